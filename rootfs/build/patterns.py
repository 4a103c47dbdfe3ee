# SPDX-License-Identifier: Apache-2.0
"""The patterns of ${name#pattern} and its relatives: ? one character, * any number, \\ before ? * \\ } and /.

POSIX.1-2017, section 2.13, without bracket expressions, which BuildKit does not know either. A pattern is a list of
single characters, of ANY and of MANY; matching keeps the set of places that a pattern can have reached, so its time is
length of value × length of pattern, whatever the pattern.
"""

from __future__ import annotations

ANY = "any"  # longer than one character: cannot be confused with a literal
MANY = "many"


def parse(text: str) -> list[str]:
    """The pattern in `text`. Raises ValueError for \\ before another character."""
    found: list[str] = []
    chars = iter(text)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise ValueError(f"'\\{escaped}' has no meaning in a pattern")
            found.append(escaped)
        else:
            found.append({"*": MANY, "?": ANY}.get(char, char))
    return found


def without_prefix(value: str, pattern: list[str], *, longest: bool) -> str:
    """`value` without the shortest or longest beginning that matches, `value` itself when none does."""
    ends = _ends(value, 0, pattern)
    return value[(max if longest else min)(ends) :] if ends else value


def without_suffix(value: str, pattern: list[str], *, longest: bool) -> str:
    """As without_prefix() for the end of `value`."""
    return without_prefix(value[::-1], pattern[::-1], longest=longest)[::-1]


def replace(value: str, pattern: list[str], word: str, *, everywhere: bool) -> str:
    """`value` with the first match, or every match, replaced: leftmost, longest; an empty match counts."""
    result: list[str] = []
    copied = at = 0
    last_end = -1
    while at <= len(value):
        ends = _ends(value, at, pattern)
        end = max(ends) if ends else -1
        if end < 0 or (end == at and at == last_end):  # nothing here, or an empty match right behind the last one
            at += 1
            continue
        result += (value[copied:at], word)
        copied = last_end = end
        if not everywhere:
            break
        at = end if end > at else at + 1
    return "".join([*result, value[copied:]])


def _ends(value: str, start: int, pattern: list[str]) -> set[int]:
    """Where a match that begins at `start` can end."""
    places = {start}
    for item in pattern:
        if item is MANY:
            places = set(range(min(places), len(value) + 1))
        elif item is ANY:
            places = {place + 1 for place in places if place < len(value)}
        else:
            places = {place + 1 for place in places if value[place : place + 1] == item}
        if not places:
            break
    return places
