# SPDX-License-Identifier: Apache-2.0
"""Pulls and pushes as the user sees them: live bars on a terminal, a line for each change elsewhere.

    with Shown(ctx.stderr) as progress:
        pull(…, progress=progress)

However the block ends, by an error, ^C or SIGTERM, the terminal is as it was: the bars stand still, the cursor shows.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from pyrun.rootfs.registry.progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import NoReturn, Self, TextIO

    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Shown(Progress):
    """Draws on `stream`; nothing at all with `quiet`. Loads rich only when a bar is to be drawn on a terminal.

    After ^C, `on_interrupt` is the last line on stderr.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False, on_interrupt: str = "") -> None:
        self._on_interrupt = on_interrupt
        self._stream = stream
        self._quiet = quiet
        self._live = not quiet and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._lock = threading.RLock()
        self._said: dict[str, str] = {}  # key -> the last text, so that no line is written twice
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._at_work: set[str] = set()
        self._old_term: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            self._stop()
        if kind is KeyboardInterrupt and self._on_interrupt:
            sys.stderr.write(f"{self._on_interrupt}\n")
            sys.stderr.flush()

    def begin(self, key: str, text: str, total: int | None) -> None:
        with self._lock:
            if not self._live:
                self._say(key, text)
                return
            bars = self._start()
            self._at_work.add(key)
            if key not in self._tasks:
                self._tasks[key] = bars.add_task(text, total=total, key=key)
            else:
                bars.reset(self._tasks[key], total=total, description=text)

    def advance(self, key: str, current: int) -> None:
        bars, task = self._bars, self._tasks.get(key)  # without the lock: this comes often, and rich has its own
        if bars is not None and task is not None and key in self._at_work:
            bars.update(task, completed=current)

    def done(self, key: str, text: str) -> None:
        with self._lock:
            if not self._live:
                self._say(key, text)
                return
            bars = self._start()
            self._at_work.discard(key)
            if key not in self._tasks:
                self._tasks[key] = bars.add_task(text, total=None, key=key)
            bars.update(self._tasks[key], description=text, total=None, ended=True)
            bars.stop_task(self._tasks[key])

    def line(self, text: str) -> None:
        with self._lock:
            if self._bars is not None and not self._at_work:
                self._stop()  # what comes after the bars is written below them
            if self._bars is not None:
                self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif not self._quiet:
                self._stream.write(f"{text}\n")
                self._stream.flush()

    def _say(self, key: str, text: str) -> None:
        if not self._quiet and self._said.get(key) != text:
            self._said[key] = text
            self._stream.write(f"{key}: {text}\n")
            self._stream.flush()

    def _start(self) -> Bars:
        if self._bars is None:
            from pyrun.runtime.cli import bars  # rich costs 50 ms

            if threading.current_thread() is threading.main_thread():
                self._old_term = signal.getsignal(signal.SIGTERM)
                if self._old_term is signal.SIG_DFL:
                    signal.signal(signal.SIGTERM, _terminated)
            self._bars = bars.make(self._stream)
            self._bars.start()
        return self._bars

    def _stop(self) -> None:
        if self._bars is None:
            return
        self._bars.stop()
        self._bars = None
        self._tasks.clear()
        self._at_work.clear()
        if self._old_term is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._old_term = None


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM would end the process with the cursor hidden."""
    raise SystemExit(128 + number)
