# SPDX-License-Identifier: Apache-2.0
"""The nearest known word to a mistyped one, for error messages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The word of `known` that `word` was probably meant to be, or ""."""
    import difflib  # 10 ms: only a mistake pays it

    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return found[0] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an error, such as "did you mean 'nosuid'?", or ""."""
    guess = nearest(word, known)
    return f"did you mean {guess!r}?" if guess else ""
