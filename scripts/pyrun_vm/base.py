# SPDX-License-Identifier: Apache-2.0
"""Debian's root file system and kernel: a disk, a vmlinux and the tree of kernel modules.

The suite is the host's own where the host is Debian, so that the host's virtual environment (with /usr/bin/python3 as
its interpreter) works in the guest too. The kernel is Debian's ordinary one: the one for clouds has no 9p.
"""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import subprocess
import zlib

from .cache import Cache, contents
from .disks import make_disk
from .errors import VmError
from .packages import last_line, program, run_quietly

GUEST = os.path.join(os.path.dirname(__file__), "guest")
PACKAGES = (
    *("python3", "libseccomp2", "libnftables1", "libcap2", "zstd"),  # what pyrun and its virtual environment load
    *("nftables", "iproute2", "iptables", "kmod", "busybox-static", "procps", "util-linux", "attr", "acl"),
    *("systemd", "systemd-sysv", "dbus"),  # for --systemd
    *("runc", "crun"),  # tests that take another runtime
    *("strace", "less", "nano", "curl", "iputils-ping"),  # for people
)
MODULE_DIRECTORIES = ("arch", "block", "crypto", "drivers/block", "drivers/net", "fs", "lib", "net", "security")
UNUSED_MODULES = ("arcnet", "can", "dsa", "ethernet", "fddi", "hamradio", "phy", "usb", "wan", "wireless", "wwan")
DISK_BYTES = 8 << 30  # sparse: what the guest may fill
SUITE = "bookworm"  # where the host is not Debian


def base(cache: Cache) -> str:
    """The entry with root.img, vmlinux, busybox and modules/ in it; made in about a minute."""
    hook = f"{GUEST}/kernel-hook.sh"
    suite = debian_suite()
    sources = (suite, contents([hook, __file__]))
    return cache.entry("base", sources, "the root disk from Debian's packages", lambda path: _make(path, suite, hook))


def debian_suite() -> str:
    """The host's release, such as "bookworm", if it is Debian."""
    fields: dict[str, str] = {}
    with open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.strip().partition("=")
            fields[name] = value.strip('"')
    return fields.get("VERSION_CODENAME", SUITE) if fields.get("ID") == "debian" else SUITE


def mirrors(suite: str) -> list[str]:
    """The host's own package sources where they name this suite, else none: then mmdebstrap takes Debian's."""
    found = []
    for path in ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if suite in file.read():
                    found.append(path)
    return found


def _make(path: str, suite: str, hook: str) -> None:
    root = f"{path}/root"
    done = run_quietly(
        [program("mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase", '--aptopt=Acquire::Languages "none"']
        + [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        + [f"--include={','.join(PACKAGES)}", f"--customize-hook={hook}", suite, root, *mirrors(suite)]
    )
    if done.returncode:
        raise VmError(f"mmdebstrap failed: {last_line(done.stderr)}")
    version = os.listdir(f"{root}/kernel/lib/modules")[0]
    extract_vmlinux(f"{root}/kernel/boot/vmlinuz-{version}", f"{path}/vmlinux")
    shutil.copy2(f"{root}/bin/busybox", f"{path}/busybox")
    installed = f"{root}/lib/modules/{version}"
    os.makedirs(f"{root}/lib/modules", exist_ok=True)
    shutil.move(f"{root}/kernel/lib/modules/{version}", installed)
    shutil.rmtree(f"{root}/kernel")
    _run_in(root, ["depmod", version])
    shutil.copytree(installed, f"{path}/modules")  # the initramfs takes drivers that the root disk does not have
    _remove_modules(installed)
    _run_in(root, ["depmod", version])
    for name in ("host", "out", "venv"):
        os.mkdir(f"{root}/{name}")
    write(f"{root}/etc/resolv.conf", "")
    write(f"{root}/etc/hostname", "vm\n")
    write(f"{root}/etc/hosts", "127.0.0.1 localhost vm\n::1 localhost\n")
    make_disk(f"{path}/root.img", root, DISK_BYTES, inodes=400_000)
    shutil.rmtree(root)


def _run_in(root: str, argv: list[str]) -> None:
    done = run_quietly(["chroot", root, *argv])
    if done.returncode:
        raise VmError(f"{argv[0]} failed in the root file system: {last_line(done.stderr)}")


def _remove_modules(tree: str) -> None:
    """Leaves the modules that a container could ever want: the whole tree is 400 MB of drivers for absent hardware."""
    kept = [f"{tree}/kernel/{directory}" for directory in MODULE_DIRECTORIES]
    unused = [f"{tree}/kernel/drivers/net/{name}" for name in UNUSED_MODULES]
    for directory, subdirectories, _ in os.walk(tree):
        for name in list(subdirectories):
            path = f"{directory}/{name}"
            on_the_way = any(each.startswith(f"{path}/") for each in kept)
            inside = any(f"{path}/".startswith(f"{each}/") for each in kept)
            if path in unused or not (on_the_way or inside):
                shutil.rmtree(path)
                subdirectories.remove(name)


def write(path: str, text: str) -> None:
    """Makes `path` a regular file with this text, whatever it was before."""
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# The payload's magic number -> how to unpack it (Documentation/x86/boot.rst: payload_offset, payload_length).
UNPACK = {
    b"\x1f\x8b": lambda data: zlib.decompressobj(31).decompress(data),
    b"\xfd7": lambda data: lzma.LZMADecompressor().decompress(data),
    b"\x28\xb5": lambda data: subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout,
}


def extract_vmlinux(bzimage: str, target: str) -> None:
    """Writes the ELF kernel out of a bzImage: unpacked here once, not by every boot under emulation."""
    with open(bzimage, "rb") as file:
        image = file.read()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload[:2] not in UNPACK:
        raise VmError(f"the kernel {os.path.basename(bzimage)} is packed in an unknown way ({payload[:4].hex()})")
    kernel = UNPACK[payload[:2]](payload)
    if kernel[:4] != b"\x7fELF":
        raise VmError(f"the kernel {os.path.basename(bzimage)} does not hold an ELF file")
    with open(target, "wb") as file:
        file.write(kernel)
