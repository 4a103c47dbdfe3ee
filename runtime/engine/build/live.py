# SPDX-License-Identifier: Apache-2.0
"""--progress tty: the build on a terminal, drawn anew ten times a second.

rich does the drawing and costs 50 ms to import, so that it comes in only when a build takes longer than a moment: one
in which everything is cached prints its final view and is done.
"""

from __future__ import annotations

import os
import time
from threading import Event, Thread

from .progress import Progress, Vertex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console, RenderableType
    from rich.live import Live as Screen

    Line = tuple[str, str]  # the text, the name of its style

MOMENT_S = 0.2
REDRAW_S = 0.1
SHOWN_LINES = 6  # of the output of each step that runs
SHOWN_DONE = 12  # steps that have ended, above those that run
ANSI = {"": "", "blue": "\033[34m", "red": "\033[31m", "yellow": "\033[33m", "dim": "\033[2m"}
RESET = "\033[0m"


class Live(Progress):
    """A view on a terminal. close() leaves the final one there."""

    def __init__(self, stderr: TextIO) -> None:
        super().__init__()
        self._stderr = stderr
        self._began = time.time()
        self._notes: list[str] = []
        self._statuses: dict[int, str] = {}
        self._stop = Event()
        self._thread: Thread | None = None
        self._closed = False

    def warn(self, text: str) -> None:
        with self.lock:
            self._notes.append(text)

    def close(self) -> None:
        """Draws everything once more, in full, and gives the terminal back."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        styles = ANSI if "NO_COLOR" not in os.environ else dict.fromkeys(ANSI, "")
        for text, style in self._lines(self._width(), final=True):
            self._stderr.write(f"{styles[style]}{text}{RESET}\n" if styles[style] else f"{text}\n")
        self._stderr.flush()

    def _started(self, vertex: Vertex) -> None:
        with self.lock:
            super()._started(vertex)
            if self._thread is None and not self._closed:
                self._thread = Thread(target=self._draw, name="progress", daemon=True)
                self._thread.start()

    def _status(self, vertex: Vertex, text: str) -> None:
        with self.lock:
            self._statuses[vertex.number] = text

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stderr.fileno()).columns or 80
        except OSError:
            return 80

    # ── in the thread that draws ─────────────────────────────────────────────────────────────────────────────────

    def _draw(self) -> None:
        if self._stop.wait(MOMENT_S):
            return
        try:
            from rich.console import Console
            from rich.live import Live as Screen
        except ImportError:
            return  # the final view comes all the same
        console = Console(file=self._stderr, force_terminal=True, highlight=False)
        with Screen(console=console, auto_refresh=False, transient=True) as screen:
            while True:
                self._show(console, screen)
                if self._stop.wait(REDRAW_S):
                    break

    def _show(self, console: Console, screen: Screen) -> None:
        from rich.console import Group
        from rich.text import Text

        lines = self._lines(console.width - 1, final=False)
        room = max(console.height - 2, 5)
        shown: list[RenderableType] = [Text(text, style=style or "default") for text, style in lines[:1]]
        shown += [Text(text, style=style or "default") for text, style in lines[1:][-room:]]
        screen.update(Group(*shown), refresh=True)

    def _lines(self, width: int, *, final: bool) -> list[Line]:
        with self.lock:
            vertices = list(self.vertices)
            ended = [vertex for vertex in vertices if vertex.ended]
            state = ""
            if any(vertex.failure for vertex in vertices):
                state = "FAILED"
            elif final:
                state = "FINISHED"
            head = f"[+] Building {time.time() - self._began:.1f}s ({len(ended)}/{len(vertices)}) {state}"
            lines: list[Line] = [(head.rstrip(), "")]
            hidden = [] if final else ended[:-SHOWN_DONE]
            for vertex in vertices:
                if vertex not in hidden:
                    lines += self._of(vertex, width, final=final)
            return lines + [(f" - {_plain(note)}", "yellow") for note in self._notes]

    def _of(self, vertex: Vertex, width: int, *, final: bool) -> list[Line]:
        end = vertex.ended or time.time()
        word, style = "", "blue" if vertex.ended else ""
        if vertex.is_cached:
            word = "CACHED "
        elif vertex.failure:
            word, style = "ERROR ", "red"
        elif vertex.canceled:
            word, style = "CANCELED ", "yellow"
        right = f"{end - vertex.started:.1f}s"
        left = _plain(f" => {word}{' '.join(vertex.name.split())}")
        room = max(width - len(right) - 1, 8)
        if len(left) > room:
            left = left[: room - 1] + "…"
        lines: list[Line] = [(f"{left:<{room}} {right}", style)]
        if vertex.ended or final:  # a failure's output is printed below, in full
            return lines
        status = self._statuses.get(vertex.number)
        if status:
            lines.append((f" => => {_plain(status)}"[:width], ""))
        lines += [(f" => => # {_plain(line)}"[:width], "dim") for line in vertex.tail[-SHOWN_LINES:]]
        return lines


def _plain(line: str) -> str:
    """A line of output without what would move the cursor."""
    line = line.rpartition("\r")[2].expandtabs(4)
    return "".join(char if char.isprintable() else "�" for char in line)
