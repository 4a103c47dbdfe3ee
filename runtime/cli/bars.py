# SPDX-License-Identifier: Apache-2.0
"""The bars of runtime/cli/progress.py, as docker's words and rich's drawing. The only module that loads rich for it."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pyrun.runtime.engine.humanize import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

REFRESH_HZ = 8
BAR_WIDTH = 30


class Bar(BarColumn):
    """A bar where there is something to measure, nothing where there is not."""

    def render(self, task: Task) -> Text:  # type: ignore[override]
        return super().render(task) if task.total and not task.fields.get("ended") else Text("")  # type: ignore[return-value]


class Amount(ProgressColumn):
    """12.3MB/45.6MB, and how fast."""

    def render(self, task: Task) -> Text:
        if task.fields.get("ended") or (not task.total and not task.completed):
            return Text("")
        done = size(int(task.completed), 3)
        text = f"{done}/{size(int(task.total), 3)}" if task.total else done
        return Text(f"{text} {size(int(task.speed), 3)}/s" if task.speed and not task.finished else text)


def make(stream: TextIO) -> Progress:
    """Bars on a terminal, not started yet."""
    console = Console(file=stream, highlight=False)
    return Progress(
        TextColumn("{task.fields[key]}: {task.description}", markup=False),
        Bar(BAR_WIDTH),
        Amount(),
        console=console,
        refresh_per_second=REFRESH_HZ,
        redirect_stdout=False,
        redirect_stderr=False,
    )
