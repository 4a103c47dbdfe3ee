# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/rlimits.py: names, numbers and --ulimit."""

from __future__ import annotations

import resource

import pytest

from pyrun.runtime.errors import UsageError
from pyrun.runtime.oci.rlimits import NUMBERS, UNLIMITED, Rlimit, parse_ulimit


def test_numbers_are_the_kernels() -> None:
    """Every number that Python's resource module knows agrees, on the architecture that runs the test."""
    compared = 0
    for name, number in NUMBERS.items():
        if hasattr(resource, name):
            assert getattr(resource, name) == number
            compared += 1
    assert compared >= 13
    assert sorted(NUMBERS.values()) == list(range(16))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024:2048", Rlimit("RLIMIT_NOFILE", 1024, 2048)),
        ("nofile=1024", Rlimit("RLIMIT_NOFILE", 1024, 1024)),
        ("core=-1", Rlimit("RLIMIT_CORE", UNLIMITED, UNLIMITED)),
        ("memlock=64:-1", Rlimit("RLIMIT_MEMLOCK", 64, UNLIMITED)),
        ("memlock=unlimited", Rlimit("RLIMIT_MEMLOCK", UNLIMITED, UNLIMITED)),
        ("cpu=0", Rlimit("RLIMIT_CPU", 0, 0)),
        ("nice=9223372036854775807", Rlimit("RLIMIT_NICE", 2**63 - 1, 2**63 - 1)),
    ],
)
def test_ulimit(text: str, limit: Rlimit) -> None:
    """--ulimit name=soft[:hard]; -1 is no limit."""
    assert parse_ulimit(text) == limit
    assert limit.number == NUMBERS[limit.type]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nofile", "expected name=soft"),
        ("nofile=", "expected name=soft"),
        ("=1", "unknown ulimit ''"),
        ("nofiles=1", "unknown ulimit 'nofiles'"),
        ("nofile=2048:1024", "above the hard limit"),
        ("nofile=-1:1024", "above the hard limit"),
        ("nofile=1:2:3", "'2:3' is not a number"),
        ("nofile=1:", "'' is not a number"),
        ("nofile= 1", "' 1' is not a number"),
        ("nofile=+1", "'+1' is not a number"),
        ("nofile=1_0", "'1_0' is not a number"),
        ("nofile=١", "'١' is not a number"),
        ("nofile=-2", "'-2' is not a number"),
        ("nofile=1.5", "'1.5' is not a number"),
        ("nofile=9223372036854775808", "is not a number"),
        ("nofile=" + "9" * 5000, "is not a number"),
    ],
)
def test_bad_ulimit(text: str, why: str) -> None:
    """Anything else is a usage error that shows what was given."""
    with pytest.raises(UsageError) as caught:
        parse_ulimit(text)
    assert why in str(caught.value)


def test_hint_for_a_mistyped_ulimit() -> None:
    """The nearest resource is suggested."""
    with pytest.raises(UsageError) as caught:
        parse_ulimit("nofiles=1")
    assert caught.value.hint == "did you mean 'nofile'?"
