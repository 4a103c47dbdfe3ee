# SPDX-License-Identifier: Apache-2.0
"""The event loop: descriptors, timers, signals, and callbacks that fail."""

from __future__ import annotations

import os
import signal
import time

from pyrun.runtime.monitor.loop import READ, WRITE, Loop


def failing(error: BaseException) -> None:
    raise AssertionError("a callback failed") from error


def test_timers_run_in_order_and_not_when_cancelled() -> None:
    """By when they are due, not by when they were made."""
    loop = Loop(failing)
    seen: list[str] = []
    loop.after(0.03, loop.stop)
    loop.after(0.02, lambda: seen.append("b"))
    loop.after(0.01, lambda: seen.append("a"))
    loop.after(0.01, lambda: seen.append("never")).cancel()
    loop.run()
    assert seen == ["a", "b"]


def test_a_watch_can_be_changed_and_dropped_in_a_callback() -> None:
    """Reading until the end, then writing is watched on another fd, then nothing."""
    loop = Loop(failing)
    reader, writer = os.pipe()
    seen: list[bytes] = []

    def readable(_events: int) -> None:
        seen.append(os.read(reader, 10))
        if not seen[-1]:
            loop.unwatch(reader)
            loop.unwatch(reader)
            loop.stop()

    def writable(_events: int) -> None:
        os.write(writer, b"x")
        loop.unwatch(writer)
        os.close(writer)

    loop.watch(reader, READ, readable)
    loop.watch(writer, WRITE, writable)
    loop.run()
    assert seen == [b"x", b""]
    os.close(reader)


def test_a_callback_that_fails_does_not_end_the_loop() -> None:
    """It is reported, and the next one runs."""
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    loop.after(0, lambda: 1 // 0)
    loop.after(0.01, loop.stop)
    loop.run()
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_signals_arrive_in_the_loop() -> None:
    """Not in the middle of a callback; several of one kind may be one."""
    loop = Loop(failing)
    seen: list[float] = []
    former = signal.getsignal(signal.SIGUSR1)
    try:

        def arrived() -> None:
            seen.append(time.monotonic())
            loop.stop()

        loop.on_signal(signal.SIGUSR1, arrived)

        def busy() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not seen

        loop.after(0, busy)
        loop.run()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, former)
    assert len(seen) == 1
