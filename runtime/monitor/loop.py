# SPDX-License-Identifier: Apache-2.0
"""The monitor's event loop: epoll, timers, signals; one thread.

select.epoll directly, not `selectors`: half the Python calls per event, and one thing less to import in a fork.
Callbacks must not block. One that raises is reported through `on_error` and the loop goes on: no event of one
container may end the monitor.
"""

from __future__ import annotations

import os
import select
import signal
import time
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR  # reported whether asked for or not


class Timer:
    """A callback that is due at `when` (time.monotonic()); cancel() may be called at any time."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """The callback will not be called."""
        self.callback = None

    @property
    def pending(self) -> bool:
        """Whether it is still to come."""
        return self.callback is not None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """watch() and unwatch() descriptors, after() for timers, run() until stop()."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Callable[[int], object], int]] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, Callable[[], object]] = {}
        self._running = False
        self._on_error = on_error
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_read, READ, self._signalled)

    def watch(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Calls callback(events) when one of `events` (READ | WRITE) is there; changes an earlier watch of the fd.

        events=0 still reports HANGUP: use unwatch() to hear nothing at all.
        """
        known = self._watched.get(fd)
        if known is None:
            self._epoll.register(fd, events)
        elif known[1] != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = (callback, events)

    def unwatch(self, fd: int) -> None:
        """Forgets the fd, watched or not. Must come before close(): a copy in the keeper keeps it alive for epoll."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Calls callback() once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        heappush(self._timers, timer)
        return timer

    def on_signal(self, number: int, callback: Callable[[], object]) -> None:
        """Calls callback() in the loop after signal `number` has arrived (once for several that arrive together)."""
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def stop(self) -> None:
        """run() returns after the current round of events."""
        self._running = False

    def run(self) -> None:
        """Serves events until stop()."""
        self._running = True
        while self._running:
            for fd, events in self._epoll.poll(self._patience(), 64):
                watched = self._watched.get(fd)
                if watched is not None:  # an earlier callback of this round may have unwatched it
                    self._call(watched[0], events)
            self._run_timers()

    def _patience(self) -> float:
        """Seconds until the next timer, -1 for ever."""
        while self._timers and not self._timers[0].pending:
            heappop(self._timers)
        return max(0.0, self._timers[0].when - time.monotonic()) if self._timers else -1

    def _run_timers(self) -> None:
        while self._timers and (not self._timers[0].pending or self._timers[0].when <= time.monotonic()):
            timer = heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)

    def _call(self, callback: Callable[..., object], *args: int) -> None:
        try:
            callback(*args)
        except Exception as error:
            self._on_error(error)

    def _signalled(self, _events: int) -> None:
        try:
            numbers = os.read(self._wake_read, 4096)
        except BlockingIOError:
            return
        for number in set(numbers):
            callback = self._signals.get(number)
            if callback is not None:
                self._call(callback)
