# SPDX-License-Identifier: Apache-2.0
"""The word that was meant: BuildKit's rule, at most two edits away, so that our hints name what its hints name."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_EDITS = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """The first of the nearest words of `known` in the writing of `word` (all lower or all upper case), or ""."""
    best, least = "", MOST_EDITS + 1
    for candidate in known:
        if abs(len(candidate) - len(word)) < least and (edits := distance(word.lower(), candidate.lower())) < least:
            best, least = candidate, edits
    return best.upper() if word.isupper() else best.lower() if word.islower() else best


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an error, such as "did you mean RUN?", or ""."""
    guess = nearest(word, known)
    return f"did you mean {guess}?" if guess else ""


def distance(one: str, other: str) -> int:
    """Levenshtein: how many letters must be put in, taken out or replaced to make one word into the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != against))
    return row[-1]
