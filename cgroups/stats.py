# SPDX-License-Identifier: Apache-2.0
"""What a cgroup uses: the numbers of `pyrun stats` and `pyrun-oci events`.

Each is docker's number. Where a controller is missing (hybrid mode) the kernel still counts some, and what it does not
count is None, shown as "--", never guessed:

    cpu      cpu.stat: there without the controller
    memory   memory.current; without it the sum of the processes' proportional set sizes, and memory_source says "pss"
             (no page cache, no kernel memory: less than memory.current would say)
    pids     pids.current; without it the threads are counted
    block io io.stat; without it None
"""

from __future__ import annotations

import time

from pyrun.runtime.errors import NotFound
from pyrun.runtime.record import Record

from .cgroupfs import flat_keyed, read, subtree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .group import Cgroup

ENOENT, ENODEV = 2, 19


class Stats(Record):
    """One reading. Bytes, microseconds and counts since the cgroup was made; None where nobody counts.

    `memory_bytes` is docker's usage (memory.current less inactive_file), `memory_limit_bytes` the tightest limit of
    the cgroup and those above it, or the machine's memory; `memory_stat` all of memory.stat.
    """

    taken_ns: int
    cpu_usec: int
    cpu_user_usec: int
    cpu_system_usec: int
    cpu_throttled_usec: int | None
    cpu_throttled_periods: int | None
    memory_bytes: int | None
    memory_source: str
    memory_limit_bytes: int
    memory_current_bytes: int | None
    swap_bytes: int | None
    oom_kills: int | None
    pids: int
    pids_limit: int | None
    io_read_bytes: int | None
    io_write_bytes: int | None
    memory_stat: dict[str, int]


def read_stats(group: Cgroup) -> Stats:
    """A reading of now. Raises NotFound when the cgroup is gone."""
    directory = group.directory
    try:
        cpu = flat_keyed(read(directory, "cpu.stat"))
        now = time.monotonic_ns()
        pids = _pids(directory)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            raise NotFound(f"cgroup {group.path}", "no such cgroup") from None
        raise
    current = _number(directory, "memory.current")
    stat = _keyed(directory, "memory.stat")
    used, source = _memory(group, current, stat)
    io_read, io_write = _io(directory)
    return Stats(
        taken_ns=now,
        cpu_usec=cpu.get("usage_usec", 0),
        cpu_user_usec=cpu.get("user_usec", 0),
        cpu_system_usec=cpu.get("system_usec", 0),
        cpu_throttled_usec=cpu.get("throttled_usec"),
        cpu_throttled_periods=cpu.get("nr_throttled"),
        memory_bytes=used,
        memory_source=source,
        memory_limit_bytes=_memory_limit(group),
        memory_current_bytes=current,
        swap_bytes=_number(directory, "memory.swap.current"),
        oom_kills=_keyed(directory, "memory.events").get("oom_kill"),
        pids=pids,
        pids_limit=_number(directory, "pids.max"),
        io_read_bytes=io_read,
        io_write_bytes=io_write,
        memory_stat=stat,
    )


def cpu_percent(before: Stats, after: Stats) -> float:
    """Docker's CPU %: 100 is one CPU fully used between the two readings; 0.0 when no time went by.

    Docker divides by the time of all CPUs and multiplies by their number; wall time is the same without the detour.
    """
    elapsed_usec = (after.taken_ns - before.taken_ns) / 1000
    used = after.cpu_usec - before.cpu_usec
    return 100.0 * used / elapsed_usec if elapsed_usec > 0 and used > 0 else 0.0


def memory_percent(stats: Stats) -> float | None:
    """Docker's MEM %: usage of the limit; None when the usage is unknown."""
    if stats.memory_bytes is None or not stats.memory_limit_bytes:
        return None
    return 100.0 * stats.memory_bytes / stats.memory_limit_bytes


def _memory(group: Cgroup, current: int | None, stat: dict[str, int]) -> tuple[int | None, str]:
    if current is not None:
        inactive = stat.get("inactive_file", 0)
        return current - inactive if inactive < current else current, "memory.current"
    total = 0
    for pid in group.procs():
        try:
            total += _pss(pid)
        except (FileNotFoundError, ProcessLookupError):  # it ended
            continue
        except PermissionError:
            return None, ""
    return total, "pss"


def _pss(pid: int) -> int:
    """proc(5), smaps_rollup: pages shared by n processes count 1/n; bytes."""
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0  # a zombie, or a kernel thread


def _memory_limit(group: Cgroup) -> int:
    with open("/proc/meminfo", "rb") as file:
        limit = int(file.readline().split()[1]) * 1024  # MemTotal comes first
    directory = group.directory
    while directory != group.mount.path:
        limit = min(limit, _number(directory, "memory.max") or limit)
        directory = directory.rpartition("/")[0]
    return limit


def _pids(directory: str) -> int:
    counted = _number(directory, "pids.current")
    if counted is not None:
        return counted
    count = 0
    for group in subtree(directory):
        try:
            count += len(read(group, "cgroup.threads").split())
        except OSError:
            if group == directory:
                raise
    return count


def _io(directory: str) -> tuple[int | None, int | None]:
    """Bytes read and written, summed over all devices as docker does. Lines: 8:0 rbytes=1 wbytes=2 rios=…"""
    try:
        text = read(directory, "io.stat")
    except OSError:
        return None, None
    sums = {"rbytes": 0, "wbytes": 0}
    for word in text.split():
        key, _, value = word.partition("=")
        if key in sums:
            sums[key] += int(value)
    return sums["rbytes"], sums["wbytes"]


def _number(directory: str, name: str) -> int | None:
    """The number in a file; None for "max", and where the controller is missing."""
    try:
        text = read(directory, name).strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _keyed(directory: str, name: str) -> dict[str, int]:
    try:
        return flat_keyed(read(directory, name))
    except OSError:
        return {}
