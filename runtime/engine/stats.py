# SPDX-License-Identifier: Apache-2.0
"""What containers use: two readings of each cgroup a moment apart, and the network counters of its namespace."""

from __future__ import annotations

import time

from pyrun.cgroups.group import Cgroup
from pyrun.cgroups.stats import cpu_percent, memory_percent, read_stats
from pyrun.runtime.engine import humanize
from pyrun.runtime.engine.containers import ContainerStore
from pyrun.runtime.errors import NotFound, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.cgroups.stats import Stats
    from pyrun.runtime.engine.containers import Container, State
    from pyrun.runtime.paths import Paths

UNKNOWN = "--"
COLUMNS = {
    "ID": "CONTAINER ID",
    "Container": "CONTAINER",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


class Reader:
    """Takes readings of some containers, and keeps the last one of each for the CPU percentage."""

    def __init__(self, paths: Paths, names: Sequence[str] = (), *, everything: bool = False) -> None:
        self._store = ContainerStore(paths)
        self._everything = everything
        self._ids = [self._store.lookup(name) for name in names]
        self._before: dict[str, Stats] = {}

    def rows(self, *, shorten: bool = True) -> list[dict[str, Any]]:
        """One row per container, in docker's words; without names all running ones (or all)."""
        return [self._row(container, state, shorten=shorten) for container, state in self._containers()]

    def first(self, pause_s: float = 1.0) -> None:
        """A first reading, and a pause: a CPU percentage needs two."""
        for container, state in self._containers():
            self._read(container, state)
        time.sleep(pause_s)

    def _containers(self) -> list[tuple[Container, State]]:
        if self._ids:
            found = []
            for container_id in self._ids:
                try:
                    found.append((self._store.load(container_id), self._store.load_state(container_id)))
                except NotFound:
                    continue  # removed meanwhile
            return found
        found, _ = self._store.all()
        return [(container, state) for container, state in found if state.running or self._everything]

    def _read(self, container: Container, state: State) -> tuple[Stats | None, Stats | None]:
        """The reading before and the one of now; None where there is none."""
        if not state.running:
            return None, None
        try:
            now = read_stats(Cgroup(container.cgroup_path))
        except (PyrunError, OSError):
            return None, None
        before = self._before.get(container.id)
        self._before[container.id] = now
        return before, now

    def _row(self, container: Container, state: State, *, shorten: bool) -> dict[str, Any]:
        before, now = self._read(container, state)
        received, sent = network_bytes(state.pid) if now else (None, None)
        share = memory_percent(now) if now else None
        limit = humanize.binary_size(now.memory_limit_bytes) if now else UNKNOWN
        return {
            "BlockIO": f"{_bytes(now.io_read_bytes)} / {_bytes(now.io_write_bytes)}"
            if now
            else f"{UNKNOWN} / {UNKNOWN}",
            "CPUPerc": f"{cpu_percent(before, now):.2f}%" if before and now else UNKNOWN,
            "Container": container.short_id if shorten else container.id,
            "ID": container.short_id if shorten else container.id,
            "MemPerc": UNKNOWN if share is None else f"{share:.2f}%",
            "MemUsage": f"{_memory(now.memory_bytes if now else None)} / {limit}",
            "Name": container.name,
            "NetIO": f"{_bytes(received)} / {_bytes(sent)}",
            "PIDs": str(now.pids) if now else UNKNOWN,
        }


def _bytes(number: int | None) -> str:
    return UNKNOWN if number is None else humanize.size(number, 3)


def _memory(number: int | None) -> str:
    return UNKNOWN if number is None else humanize.binary_size(number)


def network_bytes(pid: int) -> tuple[int | None, int | None]:
    """(received, sent) by all interfaces but lo of the process's network namespace; None when it is gone."""
    try:
        with open(f"/proc/{pid}/net/dev") as file:
            lines = file.readlines()[2:]
    except OSError:
        return None, None
    counters = [line.partition(":") for line in lines]
    numbers = [[int(word) for word in after.split()] for name, _, after in counters if name.strip() != "lo"]
    return sum(row[0] for row in numbers), sum(row[8] for row in numbers)
