# SPDX-License-Identifier: Apache-2.0
"""What a container gets unless told otherwise: docker's defaults, as data.

Source: moby's daemon/pkg/oci (defaults.go, caps/defaults.go) and daemon/config as of August 2026, unless a line says
otherwise. Values have the form that config.json wants; copy before changing (`mounts()` does).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# caps/defaults.go. Bounding, permitted and effective; inheritable and ambient stay empty (CVE-2022-24769).
CAPABILITIES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV: tuple[str, ...] = (f"PATH={PATH}",)  # and HOSTNAME, HOME, and TERM=xterm with a terminal, which the engine adds

# A cgroup namespace of its own is docker's default on cgroup v2. Not here: user (docker's userns-remap is off) and
# time, which docker has since 2026 and which makes no difference without offsets.
NAMESPACES: tuple[str, ...] = ("mount", "network", "uts", "pid", "ipc", "cgroup")

SHM_SIZE = 64 << 20  # bytes
STOP_SIGNAL = "SIGTERM"
STOP_TIMEOUT_S = 10
RLIMITS: tuple[str, ...] = ()  # none: a container has what pyrun itself has
NO_NEW_PRIVILEGES = False

_MOUNTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (  # destination, type, source, options
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777")),
)


def mounts(*, shm_size: int = SHM_SIZE, privileged: bool = False) -> list[dict[str, Any]]:
    """The default mounts for config.json, in order. `shm_size` in bytes.

    A privileged container may write to /sys and to its cgroup (moby, WithMounts).
    """
    made: list[dict[str, Any]] = []
    for destination, kind, source, options in _MOUNTS:
        words = [word for word in options if not (privileged and word == "ro")]
        if destination == "/dev/shm":
            words.append(f"size={shm_size}")
        made.append({"destination": destination, "type": kind, "source": source, "options": words})
    return made


# What would tell about the host, or work on it. A path that is not there is skipped.
MASKED_PATHS: tuple[str, ...] = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",  # GHSA-6fw5-f8r9-fgfm: key strokes and crypto by their timing
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",  # GHSA-jq35-85cj-fj4p: power use gives away keys
    "/sys/firmware",
)
_THROTTLE = "/sys/devices/system/cpu/cpu{}/thermal_throttle"  # GHSA-6fw5-f8r9-fgfm, where the CPU has it

READONLY_PATHS: tuple[str, ...] = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


def masked_paths() -> tuple[str, ...]:
    """MASKED_PATHS, and the throttle counters of every CPU that this machine has."""
    import os

    made = list(MASKED_PATHS)
    for number in range(os.cpu_count() or 1):
        path = _THROTTLE.format(number)
        if os.path.isdir(path):
            made.append(path)
    return tuple(made)


# linux.resources.devices: everything is denied, then what follows is allowed: moby's list and what runc adds to it.
# mknod of any node is allowed: a node that may not be opened harms nobody.
def _rule(
    allow: bool, access: str, kind: str = "", major: int | None = None, minor: int | None = None
) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": allow, "access": access}
    for key, value in (("type", kind or None), ("major", major), ("minor", minor)):
        if value is not None:
            rule[key] = value
    return rule


def device_rules(*, privileged: bool = False) -> list[dict[str, Any]]:
    """The default device rules for config.json. With --privileged, one that allows everything."""
    if privileged:
        return [_rule(True, "rwm")]
    return [
        _rule(False, "rwm"),
        _rule(True, "m", "c"),
        _rule(True, "m", "b"),
        _rule(True, "rwm", "c", 1, 5),  # zero
        _rule(True, "rwm", "c", 1, 3),  # null
        _rule(True, "rwm", "c", 1, 7),  # full
        _rule(True, "rwm", "c", 1, 8),  # random
        _rule(True, "rwm", "c", 1, 9),  # urandom
        _rule(True, "rwm", "c", 5, 0),  # tty
        _rule(True, "rwm", "c", 5, 1),  # console
        _rule(True, "rwm", "c", 5, 2),  # ptmx
        _rule(True, "rwm", "c", 136),  # pts/*
        _rule(True, "rwm", "c", 10, 200),  # net/tun: runc left it out once and broke its users (runc#3468)
    ]
