# SPDX-License-Identifier: Apache-2.0
"""Wildcards in the sources of COPY and ADD: Go's filepath.Match, for one component of a path.

`*` any characters, `?` one, `[a-z]` and `[^a-z]` one of a class, `\\` before a character takes its meaning away
(https://pkg.go.dev/path/filepath#Match). Nothing matches a slash, so a path is matched component by component, and only
directories that can lead to a match are read. `**` is BuildKit's for --parents: any number of directories.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SPECIAL = frozenset("*?[")
_MANY = (
    None  # `*` in a parsed pattern; a class is (negated, ((low, high), …)), and any character is a negated empty one
)
_ANY: _Class = (True, ())

if TYPE_CHECKING:
    _Class = tuple[bool, tuple[tuple[str, str], ...]]


def is_wildcard(text: str) -> bool:
    """Whether `text` has an unescaped `*`, `?` or `[`."""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in _SPECIAL:
            return True
    return False


def unescaped(text: str) -> str:
    """The name that a text without wildcards stands for: a backslash before a special character goes."""
    name, escaped = "", False
    for char in text:
        if escaped:
            name += char if char in _SPECIAL or char == "\\" else f"\\{char}"
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            name += char
    return f"{name}\\" if escaped else name


class Pattern:
    """One component's pattern. Raises UsageError for a class that does not end, or a lone backslash at the end."""

    __slots__ = ("_items", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._items = _parse(text)

    def matches(self, name: str) -> bool:
        """Whether the whole of `name` matches. Time is at most length of name × length of pattern."""
        items = self._items
        at = item = 0
        star, resume = -1, 0
        while at < len(name):
            if item < len(items):
                wanted = items[item]
                if wanted is _MANY:
                    star, resume = item, at
                    item += 1
                    continue
                if _fits(wanted, name[at]):
                    item += 1
                    at += 1
                    continue
            if star < 0:
                return False
            resume += 1  # the last star takes one character more; earlier ones never need to
            at, item = resume, star + 1
        return all(wanted is _MANY for wanted in items[item:])


def _fits(wanted: _Class, char: str) -> bool:
    negated, ranges = wanted
    return any(low <= char <= high for low, high in ranges) is not negated


def _parse(text: str) -> list[_Class | None]:
    items: list[_Class | None] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "*":
            items.append(_MANY)
        elif char == "?":
            items.append(_ANY)
        elif char == "[":
            found, at = _class(text, at + 1)
            items.append(found)
            continue
        else:
            char, at = _literal(text, at)
            items.append((False, ((char, char),)))
            continue
        at += 1
    return items


def _literal(text: str, at: int) -> tuple[str, int]:
    """The character at `at`, which a backslash may stand before, and where the next one is."""
    if text[at : at + 1] == "\\":
        at += 1
    if at >= len(text):
        raise _bad(text)
    return text[at], at + 1


def _class(text: str, at: int) -> tuple[_Class, int]:
    """The class that begins behind `[`, and where it ends. As in Go, it has at least one range, and `-` needs both."""
    negated = text[at : at + 1] == "^"
    if negated:
        at += 1
    ranges: list[tuple[str, str]] = []
    while True:
        if text[at : at + 1] == "]" and ranges:
            return (negated, tuple(ranges)), at + 1
        if text[at : at + 1] in ("", "-", "]"):
            raise _bad(text)
        low, at = _literal(text, at)
        high = low
        if text[at : at + 1] == "-":
            if text[at + 1 : at + 2] in ("", "-", "]"):
                raise _bad(text)
            high, at = _literal(text, at + 1)
        ranges.append((low, high))


def _bad(text: str) -> UsageError:
    return UsageError(f"invalid pattern '{text}'", "syntax error", hint="for a literal [ write [[]")


def may_lead_to(pattern: Sequence[Pattern], directory: Sequence[str]) -> bool:
    """Whether something below `directory` can match `pattern` (components, `**` among them), or has matched already."""
    for wanted, name in zip(pattern, directory, strict=False):
        if "**" in wanted.text:
            return True
        if not wanted.matches(name):
            return False
    return True
