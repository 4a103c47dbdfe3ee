# SPDX-License-Identifier: Apache-2.0
"""Who ran out of memory: which cgroup's limit was hit when a process of a container was killed.

memory.events counts a cgroup and all below it; memory.events.local (Linux 5.2) the cgroup alone. When a limit is hit,
`oom` rises in the local file of the cgroup that has the limit, and `oom_kill` in that of the victim. So: the container
lost a process when oom_kill in its memory.events is not 0, and the limit was that of the nearest cgroup, going up from
it, whose local `oom` rose. If none did, the whole machine was out of memory.

A cgroup takes its counters with it: read them before Cgroup.remove().
"""

from __future__ import annotations

from pyrun.runtime.record import Record

from .cgroupfs import flat_keyed, read, subtree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .group import Cgroup


class OutOfMemory(Record):
    """`kills` processes were killed because of the limit of `cgroup` ("" for the machine itself).

    `whose` is "container", "parent" or "host"; `limit_bytes` 0 when it is not known any more.
    """

    kills: int
    whose: str
    cgroup: str
    limit_bytes: int

    def __str__(self) -> str:
        if self.whose == "host":
            return "killed: the machine ran out of memory"
        limit = f"memory limit {human(self.limit_bytes)}" if self.limit_bytes else "the memory limit"
        owner = "the container" if self.whose == "container" else f"cgroup {self.cgroup}, which holds the container,"
        return f"killed: {limit} of {owner} reached"


def marks(group: Cgroup) -> dict[str, int]:
    """Directory -> local `oom` count of every cgroup above `group`: take them at the start, for out_of_memory().

    {} where there is no memory controller.
    """
    found = {}
    directory = group.directory
    while directory != group.mount.path:
        directory = directory.rpartition("/")[0]
        count = _local_oom(directory)
        if count is not None:
            found[directory] = count
    return found


def out_of_memory(group: Cgroup, before: Mapping[str, int] | None = None) -> OutOfMemory | None:
    """What happened to the cgroup so far; None when no process of it was killed, or it is gone.

    `before` is what marks() said when the container started; without it a parent that ever was out of memory is blamed.
    """
    try:
        kills = flat_keyed(read(group.directory, "memory.events")).get("oom_kill", 0)
    except OSError:
        return None
    if not kills:
        return None
    for directory in subtree(group.directory):  # a cgroup that the container made for itself may have the limit
        if _local_oom(directory):
            return OutOfMemory(kills, "container", directory.removeprefix(group.mount.path), _limit(directory))
    directory = group.directory
    while directory != group.mount.path:
        directory = directory.rpartition("/")[0]
        if (_local_oom(directory) or 0) > (before or {}).get(directory, 0):
            return OutOfMemory(kills, "parent", directory.removeprefix(group.mount.path), _limit(directory))
    return OutOfMemory(kills, "host", "", 0)


def _local_oom(directory: str) -> int | None:
    try:
        return flat_keyed(read(directory, "memory.events.local")).get("oom", 0)
    except OSError:
        return None


def _limit(directory: str) -> int:
    try:
        text = read(directory, "memory.max").strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def human(size: int) -> str:
    """33554432 as "32 MiB": the largest unit that divides it, else with one decimal."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size // factor} {unit}" if size % factor == 0 else f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
