# SPDX-License-Identifier: Apache-2.0
"""How a refusal must look: one line that says what and why, at most one line of advice, nothing changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from half_started import assert_nothing_left

if TYPE_CHECKING:
    from cli import Pyrun, Result


def assert_refused(result: Result, code: int, line: str, hint: str = "") -> None:
    """The exit code is `code`, stderr is exactly "pyrun: {line}" and, if `hint`, a hint that contains it.

    A line that ends with "…" has to match up to there.
    """
    assert result.rc == code, str(result)
    assert result.out == "", str(result)
    lines = result.err.splitlines()
    assert len(lines) == (2 if hint else 1), str(result)
    wanted = f"pyrun: {line}"
    assert lines[0].startswith(wanted[:-1]) if wanted.endswith("…") else lines[0] == wanted, str(result)
    if hint:
        assert lines[1].startswith("hint: "), str(result)
        assert hint in lines[1], str(result)


def refused(pyrun: Pyrun, *args: str, code: int, line: str, hint: str = "", cwd: str | None = None) -> Result:
    """Calls it, asserts that it is refused so, and that nothing of it is left."""
    result = pyrun(*args, cwd=cwd)
    assert_refused(result, code, line, hint)
    assert_nothing_left(pyrun, " ".join(args))
    return result
