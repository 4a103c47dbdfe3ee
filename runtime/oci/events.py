# SPDX-License-Identifier: Apache-2.0
"""The data of `pyrun-oci events`: a cgroup's numbers under the names that runc gives them (types/events.go).

Bytes, nanoseconds and counts. What nobody counts here, because a controller is missing, is left out, never zero.
"""

from __future__ import annotations

import os

from pyrun.cgroups import psi
from pyrun.cgroups import stats as numbers
from pyrun.cgroups.cgroupfs import flat_keyed, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cgroups.group import Cgroup


def stats(cgroup: Cgroup) -> dict[str, Any]:
    """A reading of now. Raises NotFound when the cgroup is gone."""
    now = numbers.read_stats(cgroup)
    found: dict[str, Any] = {
        "cpu": {
            "usage": {
                "total": now.cpu_usec * 1000,
                "kernel": now.cpu_system_usec * 1000,
                "user": now.cpu_user_usec * 1000,
            },
            "throttling": _present(
                throttledPeriods=now.cpu_throttled_periods,
                throttledTime=None if now.cpu_throttled_usec is None else now.cpu_throttled_usec * 1000,
            ),
        },
        "pids": _present(current=now.pids, limit=now.pids_limit),
        "memory": _present(
            cache=now.memory_stat.get("file"),
            usage=None if now.memory_current_bytes is None else _usage(now, cgroup),
            swap=None if now.swap_bytes is None else {"usage": now.swap_bytes},
            raw=now.memory_stat or None,
        ),
        "blkio": _present(ioServiceBytesRecursive=_io(cgroup)),
    }
    for name, pressure in psi.pressure(cgroup.directory).items():
        part = {"cpu": "cpu", "memory": "memory", "io": "blkio"}[name]
        found[part]["psi"] = {"some": _stall(pressure.some), "full": _stall(pressure.full)}
    return found


def oom_kills(fd: int) -> int:
    """How many processes the kernel killed for memory, by an open memory.events; 0 without one."""
    if fd < 0:
        return 0
    try:
        return flat_keyed(os.pread(fd, 4096, 0).decode()).get("oom_kill", 0)
    except OSError:  # ENODEV: the cgroup has been removed
        return 0


def _usage(now: numbers.Stats, cgroup: Cgroup) -> dict[str, Any]:
    return _present(limit=now.memory_limit_bytes, usage=now.memory_current_bytes, max=_peak(cgroup))


def _peak(cgroup: Cgroup) -> int | None:
    try:
        return int(read(cgroup.directory, "memory.peak"))  # Linux 5.19
    except OSError:
        return None


def _io(cgroup: Cgroup) -> list[dict[str, Any]] | None:
    """Lines of io.stat, "8:0 rbytes=1 wbytes=2 …", as entries of a device and an operation each."""
    try:
        text = read(cgroup.directory, "io.stat")
    except OSError:
        return None
    found = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for key, value in [pair.split("=", 1) for pair in pairs]:
            if key in ("rbytes", "wbytes"):
                operation = "Read" if key == "rbytes" else "Write"
                found.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(value)})
    return found


def _stall(stall: psi.Stall) -> dict[str, Any]:
    return {"avg10": stall.avg10, "avg60": stall.avg60, "avg300": stall.avg300, "total": stall.total_usec}


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
