# SPDX-License-Identifier: Apache-2.0
"""Media types and annotations of the OCI image spec and of docker's registry schema 2, and this machine's platform."""

from __future__ import annotations

import os

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)

# Media type -> compression. The stream's own first bytes decide how it is read; the table says what is a layer at all.
LAYERS = {
    OCI_LAYER: "",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}
LAYER_OF = {"": OCI_LAYER, "gzip": OCI_LAYER + "+gzip", "zstd": OCI_LAYER + "+zstd"}
DOCKER_LAYER_OF = {
    "": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
}

REF_NAME = "org.opencontainers.image.ref.name"  # what skopeo and podman look an image up by
CONTAINERD_NAME = "io.containerd.image.name"  # the full name, as containerd and docker 25 write it
CONFIG_DIGEST = "pyrun.config-digest"  # the image's id, so that finding one does not read every manifest
REPO_DIGESTS = "pyrun.repo-digests"  # where it was pulled from: name@digest, separated by blanks
PACKED = "pyrun.packed"  # what its plain layers became in a push: <hex>:<compression>:<hex>:<size>, separated by blanks

OURS = (CONFIG_DIGEST, REPO_DIGESTS, PACKED)  # what a descriptor keeps when its name changes

_ARCHITECTURES = {  # uname -m -> GOARCH and variant, as image configs use them
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}


def host_platform() -> tuple[str, str, str]:
    """(os, architecture, variant) of this machine."""
    machine = os.uname().machine
    return ("linux", *_ARCHITECTURES.get(machine, (machine, "")))
