# SPDX-License-Identifier: Apache-2.0
"""What --filter of the prune commands lets go."""

from __future__ import annotations

import time

import pytest

from pyrun.runtime.engine import humanize, prune
from pyrun.runtime.errors import UsageError

NOW = time.time_ns()
HOUR = 3600 * 10**9


def test_without_a_filter_everything_fits() -> None:
    """Whatever its age and labels."""
    assert prune.EVERYTHING.fits(NOW, {})
    assert prune.parse_filters([]) == prune.EVERYTHING


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ([("until", "1h")], {"old"}),
        ([("until", "3h")], set()),
        ([("until", "1h"), ("until", "3h")], set()),  # the earliest counts
        ([("label", "team")], {"old", "new"}),
        ([("label", "team=a")], {"old"}),
        ([("label", "team=a"), ("label", "kind")], set()),
        ([("label!", "team=a")], {"new", "bare"}),
        ([("label!", "team")], {"bare"}),
        ([("label", "team"), ("label!", "team=b")], {"old"}),
        ([("until", "1h"), ("label", "team=b")], set()),
    ],
)
def test_age_and_labels(filters: list[tuple[str, str]], fits: set[str]) -> None:
    """All filters must fit; label! is the opposite of label."""
    things = {
        "old": (NOW - 2 * HOUR, {"team": "a"}),
        "new": (NOW, {"team": "b"}),
        "bare": (NOW, {}),
    }
    chosen = prune.parse_filters(filters)
    assert {name for name, (created, labels) in things.items() if chosen.fits(created, labels)} == fits


def test_until_takes_a_time_too() -> None:
    """RFC 3339, and seconds since 1970."""
    for text in (humanize.rfc3339(NOW - HOUR), str((NOW - HOUR) // 10**9)):
        chosen = prune.parse_filters([("until", text)])
        assert chosen.fits(NOW - 2 * HOUR, {})
        assert not chosen.fits(NOW, {})


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("until", "soon", "--filter until=soon: not a time", ""),
        ("until", "1_0", "--filter until=1_0: not a time", ""),
        ("lable", "x", "--filter lable=x: unknown filter 'lable'", "did you mean 'label'?"),
        ("xyzzy", "x", "--filter xyzzy=x: unknown filter 'xyzzy'", "until=24h, label=NAME or label!=NAME"),
    ],
)
def test_mistakes(name: str, value: str, message: str, hint: str) -> None:
    """One line, and what would have been right."""
    with pytest.raises(UsageError) as caught:
        prune.parse_filters([(name, value)])
    assert str(caught.value).startswith(message)
    assert caught.value.hint == hint


def test_a_time_that_cannot_be_read_is_long_ago() -> None:
    """An image without `created` is as old as can be."""
    assert prune.moment("") == 0
    assert prune.moment("1970-01-01T00:00:01Z") == 10**9
