# SPDX-License-Identifier: Apache-2.0
"""Sizes, durations and times: as people write them, and as docker's users are used to reading them.

Every parser takes ASCII digits only and raises ValueError with the reason. Times are nanoseconds since 1970.
"""

from __future__ import annotations

import time

SECOND = 1_000_000_000  # in nanoseconds
SIZE_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}  # powers of 1024
DURATION_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
# From (seconds) on: divide by, and say. docker's words for how long ago.
AGES = (
    (0, 0, "Less than a second"),
    (1, 0, "1 second"),
    (2, 1, "{} seconds"),
    (60, 0, "About a minute"),
    (120, 60, "{} minutes"),
    (3600, 0, "About an hour"),
    (7200, 3600, "{} hours"),
    (48 * 3600, 86400, "{} days"),
    (14 * 86400, 7 * 86400, "{} weeks"),
    (60 * 86400, 30 * 86400, "{} months"),
    (730 * 86400, 365 * 86400, "{} years"),
)


def digits(text: str) -> int:
    """The number that `text` spells in ASCII digits and nothing else ("+1", " 1", "1_0" are refused by ValueError)."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}' is not a number")
    return int(text)


def signed(text: str) -> int:
    """As digits(), with a minus sign allowed."""
    return -digits(text[1:]) if text.startswith("-") else digits(text)


def decimal(text: str) -> float:
    """A number with an optional fraction, such as "1.5"; no sign, no exponent. Raises ValueError."""
    whole, dot, fraction = text.partition(".")
    if not text.isascii() or not (whole or fraction) or not (whole + fraction).isdigit() or (dot and not fraction):
        raise ValueError(f"'{text}' is not a number")
    return float(text)


def parse_size(text: str) -> int:
    """Bytes for "64m", "1.5g", "1024", "2GiB", "10kb": units are powers of 1024, as everywhere in docker run."""
    number = text.rstrip("bBiIkKmMgGtTpP")
    unit = text[len(number) :].lower()
    unit = unit[:-2] if unit.endswith("ib") and len(unit) == 3 else unit.removesuffix("b")
    if unit not in SIZE_UNITS:
        raise ValueError("not a size: use a number with b, k, m or g, such as 512m")
    try:
        value = decimal(number.removesuffix(" "))
    except ValueError:
        raise ValueError("not a size: use a number with b, k, m or g, such as 512m") from None
    return int(value * 1024 ** SIZE_UNITS[unit])


def parse_duration(text: str) -> int:
    """Nanoseconds for "90s", "1h30m", "1.5h", "100ms" (Go's durations, not negative). Raises ValueError."""
    total, rest = 0.0, text
    why = "not a duration: use numbers with h, m, s or ms, such as 1h30m"
    if text == "0":
        return 0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = next((unit for unit in sorted(DURATION_UNITS, key=len, reverse=True) if rest.startswith(unit)), "")
        if not number or not unit:
            raise ValueError(why)
        total += decimal(number) * DURATION_UNITS[unit]
        rest = rest[len(unit) :]
    if not text:
        raise ValueError(why)
    return int(total)


def parse_moment(text: str, now_ns: int | None = None) -> int:
    """Nanoseconds since 1970 for --since and --until: RFC 3339, a date, Unix seconds, or a duration before now."""
    seconds, dot, fraction = text.partition(".")
    if text.isascii() and seconds.isdigit() and (fraction.isdigit() or not dot):
        return int(seconds) * SECOND + int(fraction[:9].ljust(9, "0"))
    try:
        return parse_rfc3339(text)
    except ValueError:
        pass
    try:
        return (time.time_ns() if now_ns is None else now_ns) - parse_duration(text)
    except ValueError:
        why = "not a time: use 10m for ten minutes ago, 2026-01-31T13:45:00Z, or seconds since 1970"
        raise ValueError(why) from None


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 for "2026-01-31[T13:45[:00[.123456789]]][Z|±hh:mm]"; without a zone, local time."""
    why = f"'{text}' is not a time such as 2026-01-31T13:45:00Z"
    date, _, clock = text.partition("T")
    offset: int | None = None
    if clock.endswith("Z"):
        clock, offset = clock[:-1], 0
    elif clock[-6:-5] in ("+", "-") and clock[-3:-2] == ":":
        sign = -1 if clock[-6] == "-" else 1
        offset = sign * (digits(clock[-5:-3]) * 3600 + digits(clock[-2:]) * 60)
        clock = clock[:-6]
    clock, dot, fraction = clock.partition(".")
    days, parts = date.split("-"), clock.split(":") if clock else []
    if [len(part) for part in days] != [4, 2, 2] or any(len(part) != 2 for part in parts) or len(parts) in (1, 4):
        raise ValueError(why)
    if dot and not (0 < len(fraction) <= 9 and len(parts) == 3):
        raise ValueError(why)
    year, month, day = (digits(part) for part in days)
    hour, minute, second = (*(digits(part) for part in parts), 0, 0, 0)[:3]
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60):
        raise ValueError(why)
    if offset is None:
        whole = int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1)))
    else:
        whole = _days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset
    return whole * SECOND + (digits(fraction.ljust(9, "0")) if fraction else 0)


def _days_since_1970(year: int, month: int, day: int) -> int:
    """Days between 1970-01-01 and a date of the Gregorian calendar, negative before it."""
    years = year - (month <= 2)  # count years from March, so that the leap day comes last
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return years * 365 + years // 4 - years // 100 + years // 400 + day_of_year - 719468


def rfc3339(ns: int | None = None) -> str:
    """UTC with nanoseconds, such as 2026-01-31T13:45:00.123456789Z; now without an argument."""
    seconds, fraction = divmod(time.time_ns() if ns is None else ns, SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def age(ns: int) -> str:
    """How long `ns` nanoseconds are in docker's words: "5 seconds", "About an hour", "2 weeks"."""
    seconds = max(ns, 0) // SECOND
    _, unit, text = [row for row in AGES if row[0] <= seconds][-1]
    return text.format(seconds // unit) if unit else text


def ago(moment: str, now_ns: int | None = None) -> str:
    """How long ago an RFC 3339 time was: "2 minutes ago"; "" for one that cannot be read."""
    try:
        then = parse_rfc3339(moment)
    except ValueError:
        return ""
    return f"{age((time.time_ns() if now_ns is None else now_ns) - then)} ago"


def local_time(moment: str) -> str:
    """An RFC 3339 time as docker's CreatedAt column: "2026-01-31 13:45:00 +0100 CET"."""
    try:
        seconds = parse_rfc3339(moment) // SECOND
    except ValueError:
        return moment
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def size(number: float, precision: int = 4) -> str:
    """Powers of 1000, as docker's images, ps -s and network columns: "1.234MB"."""
    return _scaled(number, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), precision)


def binary_size(number: float, precision: int = 4) -> str:
    """Powers of 1024, as docker's memory columns: "15.5MiB"."""
    return _scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), precision)


def _scaled(number: float, base: int, units: tuple[str, ...], precision: int) -> str:
    index = 0
    while number >= base and index < len(units) - 1:
        number /= base
        index += 1
    return f"{number:.{precision}g}{units[index]}"
