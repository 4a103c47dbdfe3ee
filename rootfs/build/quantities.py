# SPDX-License-Identifier: Apache-2.0
"""Numbers, durations, sizes and switches as Go programs write them, for the flags of instructions.

Each takes the text and returns the value, or raises ValueError with what would be right. (Layers above this one have
parsers of their own for the command line; what a Dockerfile allows differs: fractions of sizes, signs, "t" for true.)
"""

from __future__ import annotations

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SWITCHES = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_DIGITS = frozenset("0123456789")
_MOST_NS = 2**63 - 1


def number(text: str, *, most: int = 2**32 - 1) -> int:
    """A decimal number from 0 to `most`, ASCII digits only."""
    if not text or not _DIGITS.issuperset(text) or int(text[-19:]) > most or len(text.lstrip("0")) > 19:
        raise ValueError(f"write a number from 0 to {most}")
    return int(text)


def octal(text: str) -> int:
    """A file mode such as 0644 or 1777."""
    if not text or not frozenset("01234567").issuperset(text) or len(text) > 12 or int(text, 8) > 0o7777:
        raise ValueError("write a mode of octal digits, such as 0644")
    return int(text, 8)


def switch(text: str) -> bool:
    """true or false, in the spellings that Go's strconv.ParseBool() takes."""
    if text not in _SWITCHES:
        raise ValueError("write true or false")
    return _SWITCHES[text]


def size(text: str) -> int:
    """Bytes for "64m", "1.5g", "2GiB", "10 kb": units are powers of 1024 (go-units' RAMInBytes)."""
    bare = text.lower().removesuffix("b")
    bare = bare.removesuffix("i") if bare[-2:-1] in _SIZES and bare[-2:-1] else bare
    unit = bare[-1:] if bare[-1:] in _SIZES else ""
    digits = bare.removesuffix(unit) if unit else bare
    try:
        whole, parts = _fraction(digits.removesuffix(" "))
    except ValueError:
        raise ValueError("write a size such as 64m or 1g") from None
    return int(whole * 1024 ** _SIZES[unit]) // parts


def duration(text: str) -> int:
    """Nanoseconds for "90s", "1h30m", "1.5h", "0": Go's time.ParseDuration() without a minus."""
    why = "write a duration such as 30s, 1m30s or 500ms"
    rest = text.removeprefix("+")
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(why)
    total = 0
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: next((i for i, char in enumerate(rest) if char in "0123456789."), len(rest))]
        rest = rest[len(unit) :]
        if unit not in _UNITS_NS:
            raise ValueError(why)
        try:
            whole, parts = _fraction(digits)
        except ValueError:
            raise ValueError(why) from None
        total += whole * _UNITS_NS[unit] // parts
        if total > _MOST_NS:
            raise ValueError("it is longer than 292 years")
    return total


def _fraction(text: str) -> tuple[int, int]:
    """1.25 as (125, 100); at most 30 digits."""
    whole, _, part = text.partition(".")
    if not _DIGITS.issuperset(whole + part) or not whole + part or len(text) > 30:
        raise ValueError
    return int(whole + part), 10 ** len(part)


def split_csv(text: str) -> list[str]:
    """Fields between commas; one that begins with a double quote ends at the next lone one, "" in it is a quote."""
    fields: list[str] = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            field, at = _quoted_field(text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field, at = text[at:end], end
            if '"' in field:
                raise ValueError(f"a quote inside of '{field}'")
        fields.append(field)
        if at >= len(text):
            return fields
        if text[at] != ",":
            raise ValueError(f"a comma is missing after '{field}'")
        at += 1


def _quoted_field(text: str, at: int) -> tuple[str, int]:
    parts = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise ValueError("a double quote is not closed")
        parts.append(text[at:end])
        if text[end + 1 : end + 2] != '"':
            return "".join(parts), end + 1
        parts.append('"')
        at = end + 2
