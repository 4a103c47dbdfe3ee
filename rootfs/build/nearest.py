# SPDX-License-Identifier: Apache-2.0
"""The word that was meant: at most two edits away, as BuildKit has it, and at most half of a short word."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_EDITS = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """The first of the nearest words of `known` in the writing of `word` (all lower or all upper case), or ""."""
    best, least = "", min(MOST_EDITS, max(1, len(word) // 2)) + 1
    for candidate in known:
        if abs(len(candidate) - len(word)) < least and (edits := distance(word.lower(), candidate.lower())) < least:
            best, least = candidate, edits
    return best.upper() if word.isupper() else best.lower() if word.islower() else best


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an error, such as "did you mean RUN?", or ""."""
    guess = nearest(word, known)
    return f"did you mean {guess}?" if guess else ""


def distance(one: str, other: str) -> int:
    """How many letters must be put in, taken out, replaced or swapped with their neighbour to make the other word."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row, two_above = row, [i], before
        for j, against in enumerate(other, 1):
            edits = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != against))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                edits = min(edits, two_above[j - 2] + 1)
            row.append(edits)
        before = above
    return row[-1]
