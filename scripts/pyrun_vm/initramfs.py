# SPDX-License-Identifier: Apache-2.0
"""The initramfs: busybox, the modules that reach the disks and the ports, the guest's scripts; a cpio archive."""

from __future__ import annotations

import os

from .base import GUEST
from .cache import Cache, contents

MODULES = (
    *("virtio_pci", "virtio_console", "virtio_blk", "ext4", "crc32c_generic", "overlay", "9p", "9pnet_virtio"),
    *("fuse", "loop", "autofs4"),  # systemd wants autofs4
)
DIRECTORIES = ("bin", "dev", "modules", "proc", "sbin", "sys", "usr", "usr/bin", "usr/sbin")
SCRIPTS = {"init": "init.sh", "agent.sh": "agent.sh", "masked-units": "masked-units"}


def initramfs(cache: Cache, base: str) -> str:
    """The file of the initramfs for this base entry."""
    sources = (os.path.basename(base), contents([__file__, *(f"{GUEST}/{name}" for name in SCRIPTS.values())]))
    return cache.entry("initramfs", sources, "", lambda path: _make(path, base)) + "/initramfs.cpio"


def _make(path: str, base: str) -> None:
    order = load_order(f"{base}/modules")
    files = {"bin/busybox": _read(f"{base}/busybox")}
    files |= {name: _read(f"{GUEST}/{source}") for name, source in SCRIPTS.items()}
    files |= {f"modules/{os.path.basename(name)}": _read(f"{base}/modules/{name}") for name in order}
    files["modules/order"] = "".join(f"{os.path.basename(name)}\n" for name in order).encode()
    with open(f"{path}/initramfs.cpio", "wb") as file:
        file.write(archive(files))


def load_order(modules: str) -> list[str]:
    """The paths of MODULES and what they depend on, dependencies first (modules.dep); what is built in is left out."""
    depends: dict[str, list[str]] = {}
    with open(f"{modules}/modules.dep", encoding="utf-8") as file:
        for line in file:
            path, _, needed = line.partition(":")
            depends[path] = needed.split()
    by_name = {os.path.basename(path).split(".")[0].replace("-", "_"): path for path in depends}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in reversed(depends[path]):
            add(needed)
        if path not in order:
            order.append(path)

    for name in MODULES:
        if name in by_name:
            add(by_name[name])
    return order


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive of the "new" format (cpio(5)) with DIRECTORIES and these files, all mode 0755, owned by root."""
    entries = [(name, 0o040755, b"") for name in DIRECTORIES]
    entries += [(name, 0o100755, data) for name, data in files.items()]
    out = bytearray()
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
