# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci events: a container's numbers and its OOM kills, one JSON object on a line each, until it ends."""

from __future__ import annotations

import os

from pyrun.runtime.cli.oci import SWITCH, VALUE
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.cgroups.group import Cgroup
    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {"stats": SWITCH, "interval": VALUE}
#: time.ParseDuration's units, in milliseconds
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """events [--stats] [--interval 5s] ID"""
    from pyrun.runtime.cli.oci import one_id
    from pyrun.runtime.kernel.syscalls import pidfd_open
    from pyrun.runtime.oci import state as st
    from pyrun.runtime.oci.events import stats
    from pyrun.runtime.oci.lifecycle import cgroup_of

    interval = milliseconds(values.get("interval", "5s"))
    container_id = one_id(arguments)
    state = root.load(container_id)
    st.require("watch", container_id, st.status(state, root.directory(container_id)))
    cgroup = cgroup_of(state)
    if values.get("stats"):
        put("stats", container_id, stats(cgroup))
        return 0
    pidfd = pidfd_open(state.pid)
    try:
        watch(cgroup, container_id, pidfd, interval)
    finally:
        os.close(pidfd)
    return 0


def watch(cgroup: Cgroup, container_id: str, pidfd: int, interval: int) -> None:
    """Numbers every `interval` milliseconds and "oom" as soon as the kernel kills, until the init ends."""
    from select import POLLIN, POLLPRI, poll
    from time import monotonic

    from pyrun.runtime.errors import NotFound
    from pyrun.runtime.oci.events import oom_kills, stats

    waiter = poll()
    waiter.register(pidfd, POLLIN)
    try:
        memory = os.open(f"{cgroup.directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        waiter.register(memory, POLLPRI)  # cgroup-v2.rst: a change of the file is an event
    except FileNotFoundError:  # no memory controller: there are no limits to exceed
        memory = -1
    kills, due = oom_kills(memory), monotonic()
    while True:
        left = due - monotonic()
        ready = dict(waiter.poll(max(0, left * 1000)))
        now = oom_kills(memory)
        if now > kills:
            put("oom", container_id, None)
            kills = now
        if pidfd in ready:
            return
        if monotonic() >= due:
            try:
                put("stats", container_id, stats(cgroup))
            except NotFound:
                return
            due += interval / 1000


def put(kind: str, container_id: str, data: dict[str, Any] | None) -> None:
    """One line on standard output."""
    from pyrun.runtime.oci import json

    event = {"type": kind, "id": container_id} | ({} if data is None else {"data": data})
    text = memoryview(f"{json.dumps(event)}\n".encode())
    while text:
        text = text[os.write(1, text) :]


def milliseconds(text: str) -> int:
    """ "5s", "1m30s", "250ms" as milliseconds. Raises UsageError; zero is refused too."""
    total, rest = 0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("hms"))]
        rest = rest[len(unit) :]
        if not digits or len(digits) > 9 or unit not in UNITS:
            raise UsageError(f"--interval {text}", "is not a duration such as 5s or 500ms")
        total += int(digits) * UNITS[unit]
    if not total:
        raise UsageError(f"--interval {text}", "must be more than zero")
    return total
