# SPDX-License-Identifier: Apache-2.0
"""PYRUN_BREAK: stops a start right after one of its steps, so that one can look at the half-made container.

    PYRUN_BREAK=host:firewall pyrun run …           after the first host step of that area
    PYRUN_BREAK=host:7 pyrun run …                  after the seventh host step, as --trace lists them
    PYRUN_BREAK=container:pivot-root pyrun run …    after the first such step inside the container
    PYRUN_BREAK=container:12 pyrun run …            after the twelfth step inside

The process that carries out the start (the monitor's worker) says its pid and pyrun-init's, and stops itself with
SIGSTOP; `kill -CONT PID` lets it go on. pyrun-init stands exactly there meanwhile: it waits for an answer on its
socket. Meant for people with `nsenter`, `lsns` and `ip`, and for the tests, which kill everybody at every step.
docs/debugging.md shows how.
"""

from __future__ import annotations

import os

from . import events
from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import Event

VARIABLE = "PYRUN_BREAK"
SIGSTOP = 19


def wanted(where: str) -> str:
    """The point of PYRUN_BREAK if it is one of `where` ("host" or "container"): a number or an area; else "".

    Raises UsageError for a value that is neither.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return ""
    side, _, point = text.partition(":")
    if side not in ("host", "container") or not point:
        raise UsageError(f"{VARIABLE}={text}", "not a breakpoint", hint="host:7, host:cgroup, container:pivot-root, …")
    return point if side == where else ""


def watch_host() -> None:
    """Puts a host breakpoint in front of this process's event sink, if the environment names one. Raises UsageError."""
    if point := wanted("host"):
        events.set_sink(_HostBreak(point))


def position(areas: Sequence[str]) -> int:
    """How many of the container's steps (by their areas) come before the breakpoint; 0 for none.

    Raises UsageError for one that this plan does not have, or that would be after the program has taken over.
    """
    point = wanted("container")
    if not point:
        return 0
    number = int(point) if point.isascii() and point.isdecimal() else 0
    if not number and point in areas:
        number = areas.index(point) + 1
    if not 0 < number < len(areas):
        hint = "pyrun run --explain lists the steps; exec itself is too late"
        raise UsageError(f"{VARIABLE}=container:{point}", "this plan has no such step", hint=hint)
    return number


def stop(where: str, what: str) -> None:
    """Says where this is, and stops this process until somebody sends SIGCONT."""
    pid = os.getpid()
    os.write(2, f"pyrun: stopped after {where}: {what}\nhint: kill -CONT {pid} goes on\n".encode(errors="replace"))
    os.kill(pid, SIGSTOP)


class _HostBreak:
    """The sink that was there, and after the step that is meant, stop()."""

    def __init__(self, point: str) -> None:
        self._point = point
        self._inner = events.sink()
        self._seen = 0

    def __call__(self, event: Event) -> None:
        if self._inner is not None:
            self._inner(event)
        if event.where != "host" or not self._point:
            return
        self._seen += 1
        if self._point in (str(self._seen), event.area):
            self._point = ""
            stop("host", f"{event.area} {event.what}")
