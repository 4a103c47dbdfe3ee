# SPDX-License-Identifier: Apache-2.0
"""Every step that pyrun takes on the host or in the container, as an event: what --trace prints.

One sink per process. With no sink set (the normal case) a step costs one comparison.

    with step("cgroup", f"mkdir {path}"):
        os.mkdir(path)
"""

from __future__ import annotations

import time

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self


class Event(Record):
    """One step: where it ran ("host" or "container"), its area, what it did, how it ended, how long it took."""

    where: str
    area: str
    what: str
    microseconds: float
    error: str = ""


_sink: Callable[[Event], None] | None = None


def set_sink(sink: Callable[[Event], None] | None) -> None:
    """Sends all later events of this process to `sink`; None turns events off."""
    global _sink
    _sink = sink


def sink() -> Callable[[Event], None] | None:
    """Where events go now, for one who wants to stand in front of it."""
    return _sink


def active() -> bool:
    """Whether anybody listens: lets a caller skip building an expensive description."""
    return _sink is not None


def emit(event: Event) -> None:
    """Hands `event` to the sink, if there is one."""
    if _sink is not None:
        _sink(event)


_warner: Callable[[str], None] | None = None


def set_warner(warner: Callable[[str], None] | None) -> None:
    """Sends all later warnings of this process to `warner`; None drops them."""
    global _warner
    _warner = warner


def warn(text: str) -> None:
    """Something the user should know that is no failure, such as an option without effect."""
    if _warner is not None:
        _warner(text)


class step:  # noqa: N801 - reads as a statement: `with step(...)`
    """Times the `with` block and emits one host event, with the error's text if it fails (the error goes on)."""

    __slots__ = ("area", "start", "what")

    def __init__(self, area: str, what: str) -> None:
        self.area = area
        self.what = what

    def __enter__(self) -> Self:
        if _sink is not None:
            self.start = time.perf_counter_ns()
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        if _sink is not None:
            taken = (time.perf_counter_ns() - self.start) / 1000
            _sink(Event("host", self.area, self.what, taken, str(cause) if cause is not None else ""))
