# SPDX-License-Identifier: Apache-2.0
"""Sizes, durations and times, both ways."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.engine import humanize
from pyrun.runtime.engine.humanize import SECOND

NOT_NUMBERS = ["", " ", "1_0", " 1", "1 ", "+1", "١", "1e3", "0x10", "--1", "1.", "."]


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_numbers_are_ascii_digits(text: str) -> None:
    """What int() would forgive, is refused."""
    with pytest.raises(ValueError):
        humanize.digits(text)
    with pytest.raises(ValueError):
        humanize.signed(text)
    with pytest.raises(ValueError):
        humanize.decimal(text)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("1024", 1024),
        ("5b", 5),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("64m", 64 << 20),
        ("64mb", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("10 kb", 10 << 10),
        (".5k", 512),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_sizes(text: str, bytes_: int) -> None:
    """docker's sizes: powers of 1024, a fraction, and any of k, kb, KiB."""
    assert humanize.parse_size(text) == bytes_


@pytest.mark.parametrize("text", ["", "k", "m5", "5x", "1kk", "1bk", "-5", "1,5g", "1e3", "5  k", "٥m", "1_0k", "ib"])
def test_bad_sizes(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ValueError, match="such as 512m"):
        humanize.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("100ms", 0.1), ("2m0.5s", 120.5), ("5us", 5e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    """Go's durations."""
    assert humanize.parse_duration(text) == round(seconds * SECOND)


@pytest.mark.parametrize("text", ["", "5", "h", "1x", "-1s", "1h30", "1 h", "1..5s"])
def test_bad_durations(text: str) -> None:
    """A number without a unit is no duration."""
    with pytest.raises(ValueError):
        humanize.parse_duration(text)


def test_moments() -> None:
    """--since and --until: RFC 3339 with and without a zone, Unix seconds, and so long ago."""
    assert humanize.parse_moment("10m", now_ns=1000 * SECOND) == 400 * SECOND
    assert humanize.parse_moment("1700000000") == 1700000000 * SECOND
    assert humanize.parse_moment("1700000000.5") == 1700000000 * SECOND + SECOND // 2
    assert humanize.parse_moment("2026-01-31T13:45:00Z") == 1769867100 * SECOND
    assert humanize.parse_moment("2026-01-31T13:45:00.25+01:00") == 1769863500 * SECOND + SECOND // 4
    local = time.mktime((2026, 1, 31, 0, 0, 0, 0, 0, -1))
    assert humanize.parse_moment("2026-01-31") == int(local) * SECOND
    assert humanize.parse_moment("2026-01-31T00:00") == int(local) * SECOND


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-1-31", "2026-13-01", "2026-01-31T25:00:00Z", "2026-01-31T10Z", "10"[:0]]
)
def test_bad_moments(text: str) -> None:
    """The reason shows all the forms there are."""
    with pytest.raises(ValueError, match="10m for ten minutes ago"):
        humanize.parse_moment(text)


@given(st.integers(min_value=0, max_value=253402300799 * SECOND))
def test_times_round_trip(moment: int) -> None:
    """rfc3339() and parse_rfc3339() are inverse, to the nanosecond, and agree with datetime."""
    text = humanize.rfc3339(moment)
    assert humanize.parse_rfc3339(text) == moment
    expected = datetime.fromtimestamp(moment // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    assert text[:19] == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
        (-5, "Less than a second"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    """docker's words for how long."""
    assert humanize.age(seconds * SECOND) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234567, "1.235MB"), (2e15, "2PB")]
)
def test_decimal_sizes(number: float, text: str) -> None:
    """Powers of 1000 with four digits."""
    assert humanize.size(number) == text


def test_binary_sizes() -> None:
    """Powers of 1024."""
    assert humanize.binary_size(1536) == "1.5KiB"
    assert humanize.binary_size(512 << 20) == "512MiB"


def test_unreadable_times_do_not_break_a_listing() -> None:
    """An image may say anything about when it was created."""
    assert humanize.ago("") == ""
    assert humanize.local_time("long ago") == "long ago"
