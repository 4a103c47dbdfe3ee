#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mmdebstrap's hook, on the host: unpacks Debian's kernel into $1/kernel. Installing it would make an initramfs too.
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir "$1/kernel"
cd "$1/kernel"
package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
apt-get download -qq -o APT::Sandbox::User=root "$package"
dpkg-deb -x ./*.deb .
rm ./*.deb
