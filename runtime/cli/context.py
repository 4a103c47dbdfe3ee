# SPDX-License-Identifier: Apache-2.0
"""What a command may use: the roots, the standard streams, and the link to the monitor when it runs in there."""

from __future__ import annotations

import sys

from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TextIO

    from pyrun.runtime.paths import Paths


class Context:
    """Passed to every command. `link` is the worker's connection to the client and the monitor, None in process."""

    def __init__(self, paths: Paths, link: Any = None) -> None:
        self.paths = paths
        self.link = link
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr

    def print(self, *lines: str) -> None:
        """One line of data each, on standard output."""
        for line in lines:
            self.stdout.write(f"{line}\n")

    def warn(self, text: str) -> None:
        """A remark on standard error that is no failure."""
        self.stderr.write(f"pyrun: warning: {text}\n")

    def each(self, names: Iterable[str], action: Callable[[str], str | None]) -> int:
        """Runs action(name) for every name, whatever becomes of the others: prints what it gives, or its error.

        Gives 1 if any failed, else 0: docker's stop, rm, start and so on all work so.
        """
        code = 0
        for name in names:
            try:
                done = action(name)
                if done is not None:
                    self.print(done)
                    self.stdout.flush()
            except PyrunError as error:
                render(error, self.stderr)
                code = 1
        return code


def render(error: PyrunError, stderr: TextIO) -> None:
    """The error as the user sees it: one line, the notes of clean-ups, and the hint."""
    stderr.write(f"pyrun: {one_line(str(error))}\n")
    stderr.writelines(f"  {one_line(note)}\n" for note in getattr(error, "__notes__", ()))
    if error.hint:
        stderr.write(f"hint: {one_line(error.hint)}\n")
    stderr.flush()


def one_line(text: str) -> str:
    """Control characters made visible: a name in a message must not be able to forge a line or colour the terminal."""
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else repr(char)[1:-1] for char in text)


def printable(ctx: Context, text: str) -> str:
    """`text` as data for a program, or with control characters made visible for a terminal."""
    return one_line(text) if ctx.stdout.isatty() else text


def lines_for(stream: TextIO, text: str) -> str:
    """The same for lines of text that others wrote, a build's output or a Dockerfile, on their way to `stream`."""
    if not stream.isatty():
        return text
    return "".join(char if char in "\n\t" else one_line(char) for char in text)
