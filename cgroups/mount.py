# SPDX-License-Identifier: Apache-2.0
"""Where cgroup2 is mounted, what it offers, and which cgroup a process is in.

unified  /sys/fs/cgroup is cgroup2 (systemd since 2019, Debian since 11)
hybrid   /sys/fs/cgroup/unified is cgroup2, beside v1 mounts that hold the controllers
Either way the mount is found through proc(5) /proc/self/mountinfo, at whatever path.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import SpecError, Unsupported
from pyrun.runtime.record import Record

PREFIX = "/pyrun"  # where the engine's containers live unless --cgroup-parent says otherwise; recover() tidies it
OCI_PREFIX = (
    "/pyrun-oci"  # where a bundle without linux.cgroupsPath goes: its state may be in any --root, nobody tidies
)

HOW_TO_MOUNT = (
    "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line, "
    "or: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
)


class Mount(Record):
    """One cgroup2 mount: its mount point, and the controllers its root offers (cgroup.controllers)."""

    path: str
    controllers: frozenset[str] = frozenset()

    def directory(self, group: str) -> str:
        """The directory of the cgroup `group`, which starts with "/" and is relative to the mount."""
        return self.path + group if group != "/" else self.path


def find(mountinfo: str = "/proc/self/mountinfo") -> Mount:
    """The cgroup2 mount of this mount namespace. Raises Unsupported when there is none.

    Of several, one that shows the whole hierarchy and is writable is preferred: containers and chroots bring
    bind mounts and read-only ones of their own.
    """
    with open(mountinfo, "rb") as file:
        lines = [line for line in file.read().splitlines() if b" - cgroup2 " in line]
    for path in _by_preference(lines):
        try:
            with open(f"{path}/cgroup.controllers", "rb") as file:
                return Mount(path, frozenset(file.read().decode().split()))
        except OSError:  # another mount covers it, or it is not ours to see
            continue
    raise Unsupported("no cgroup2 mount", "pyrun limits and tracks containers by cgroup v2 only", hint=HOW_TO_MOUNT)


def _by_preference(lines: list[bytes]) -> list[str]:
    ranked: list[tuple[bool, bool, int, str]] = []
    for line in lines:
        before, _, after = line.partition(b" - ")
        # 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
        fields = before.split(b" ")
        root, path, options = fields[3], fields[4], fields[5].split(b",")
        writable = b"rw" in options and b"rw" in after.split(b" ")[-1].split(b",")
        ranked.append((root != b"/", not writable, len(ranked), _unescape(path)))
    return [path for *_, path in sorted(ranked)]


def _unescape(path: bytes) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    first, *rest = path.split(b"\\")
    return os.fsdecode(first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest))


def own_path(pid: int | str = "self") -> str:
    """The cgroup v2 path of a process, such as "/user.slice/user-0.slice"; relative to our cgroup namespace.

    Raises FileNotFoundError or ProcessLookupError when there is no such process, Unsupported without cgroup v2.
    """
    with open(f"/proc/{pid}/cgroup", "rb") as file:
        for line in file.read().splitlines():
            if line.startswith(b"0::"):
                return os.fsdecode(line[3:].removesuffix(b" (deleted)"))
    raise Unsupported("no cgroup2 mount", "the process is in no cgroup v2", hint=HOW_TO_MOUNT)


def clean(path: str, where: str = "cgroup path") -> str:
    """`path` as an absolute one without "." and double slashes. Raises SpecError for "..", NUL and newlines.

    ".." is refused rather than resolved: a container's cgroup must be where its configuration says it is.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path or "\n" in path:
        raise SpecError(where, f"{path!r} must be a plain path below the cgroup2 mount, without '..'")
    return "/" + "/".join(parts)


def container_path(container_id: str, *, instance: str = "", parent: str = "") -> str:
    """The cgroup of a container: /pyrun[-instance]/<id>, or below `parent` (--cgroup-parent). Raises SpecError."""
    base = clean(parent, "--cgroup-parent") if parent else f"{PREFIX}-{instance}" if instance else PREFIX
    return f"{base.rstrip('/')}/{container_id}"


def spec_path(cgroups_path: str, container_id: str) -> str:
    """The cgroup for linux.cgroupsPath: absolute as it is, relative below /pyrun-oci, "" by container id."""
    path = clean(cgroups_path, "config.json: linux.cgroupsPath")
    if cgroups_path.startswith("/"):
        return path
    return f"{OCI_PREFIX}{path}" if path != "/" else f"{OCI_PREFIX}/{container_id}"
