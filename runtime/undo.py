# SPDX-License-Identifier: Apache-2.0
"""Undo: every do has its undo on the next line (invariant 4)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self


class Undo:
    """A stack of clean-ups that run, last first, only when the `with` block fails.

    A clean-up that fails itself becomes a note on the error; it never replaces it, which is why this is not a bare
    contextlib.ExitStack.

    >>> with Undo() as undo:
    ...     os.mkdir(path); undo.on_failure(os.rmdir, path)
    """

    def __init__(self) -> None:
        self._stack: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def on_failure(self, action: Callable[..., object], *args: Any) -> None:
        """Runs action(*args) if the block ends with an exception."""
        self._stack.append((action, args))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        if cause is None:
            return
        for action, args in reversed(self._stack):
            try:
                action(*args)
            # Whatever went wrong in a clean-up, the cause is what the user must see, and the others must be tried:
            # also when it was interrupted (a worker's SystemExit).
            except BaseException as error:
                cause.add_note(f"clean-up: {error}")
