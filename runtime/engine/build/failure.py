# SPDX-License-Identifier: Apache-2.0
"""What failed in a build, as people see it: the step, its place in the Dockerfile, the last output."""

from __future__ import annotations

from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.rootfs.build.dockerfile import Dockerfile, Instruction

AROUND = 3  # lines shown before and after the instruction that failed
EXIT_FAILED = 1


class StepFailed(PyrunError):
    """A RUN ended with another exit code than 0 (or could not be started). `name` and `tail` are for the message."""

    name = ""
    tail: Sequence[str] = ()


class Cancelled(PyrunError):
    """Something else failed (or the user interrupted) while this waited or ran: never shown by itself."""


def at_line(error: PyrunError, file: Dockerfile, instruction: Instruction | None) -> PyrunError:
    """The error with "Dockerfile:7: " in front, once, and the lines to show as `error.shown`."""
    if instruction is None or hasattr(error, "shown"):
        return error
    place = f"{file.path}:{instruction.line}"
    if not str(error).startswith(f"{file.path}:"):
        error.what = f"{place}: {error.what}"
        error.args = (f"{place}: {error}",)
    return with_lines(error, place, file.lines, instruction.line, instruction.end_line)


def with_lines(error: PyrunError, place: str, lines: Sequence[str], first: int, last: int) -> PyrunError:
    """The error with the lines `first` to `last` (1-based) to show above it."""
    error.shown = [place, "-" * 20, *excerpt(lines, first, last), "-" * 20]  # type: ignore[attr-defined]
    return error


def excerpt(lines: Sequence[str], first: int, last: int) -> list[str]:
    """Lines `first` to `last` (1-based) marked with >>>, with some around them."""
    start, end = max(first - AROUND, 1), min(last + AROUND, len(lines))
    width = max(4, len(str(end)))
    marks = {True: ">>>", False: "   "}
    return [
        f"{number:>{width}} | {marks[first <= number <= last]} {_plain(lines[number - 1])}".rstrip()
        for number in range(start, end + 1)
    ]


def _plain(line: str) -> str:
    """A line that cannot steer the terminal (the Dockerfile may come from anywhere) and tells no password of a URL."""
    from pyrun.rootfs.build.giturl import masked

    plain = (char if char.isprintable() or char == "\t" or "\udc80" <= char <= "\udcff" else "�" for char in line)
    return masked("".join(plain))


def report(error: BaseException) -> list[str]:
    """The lines to print above the error itself, in BuildKit's form; [] when there is nothing to show."""
    lines: list[str] = []
    if isinstance(error, StepFailed) and error.tail:
        lines += ["------", f" > {error.name}:", *error.tail, "------"]
    return [*lines, *getattr(error, "shown", ())]
