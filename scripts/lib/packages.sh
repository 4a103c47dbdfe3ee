# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Debian packages, and how the scripts speak. Sourced.

# What it takes to build and run pyrun: the interpreter, a compiler, and the headers of the libraries that it stands on.
# shellcheck disable=SC2034 # used by those that source this
PYRUN_PACKAGES=(
  ca-certificates iproute2 nftables python3 python3-venv # at run time
  gcc libc6-dev python3-dev                              # pyrun-init, the cffi modules
  libcap-dev                                             # python-prctl
  libseccomp-dev libnftables-dev
)

say() { printf '%s\n' "${0##*/}: $*" >&2; }

die() {
  say "$@"
  exit 1
}

# need_packages NAME...: installs those that are missing; apt is not touched when nothing is.
need_packages() {
  command -v dpkg-query >/dev/null || die "this is no Debian system: install what these packages hold yourself: $*"
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || die "these packages are missing, and only root can install them: ${missing[*]}"
  say "installing ${missing[*]}"
  # Waits for another apt to finish; a name server or mirror that stumbles once is no reason to give up.
  local options=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" update </dev/null >&2 || die "apt-get update failed"
  DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" -y --no-install-recommends install "${missing[@]}" </dev/null >&2 ||
    die "apt-get could not install ${missing[*]}"
}
