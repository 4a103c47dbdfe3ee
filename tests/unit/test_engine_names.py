# SPDX-License-Identifier: Apache-2.0
"""Names and ids of containers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.engine import names
from pyrun.runtime.errors import PyrunError, UsageError


@pytest.mark.parametrize("name", ["ab", "web", "Web-1", "a_b.c", "0x", "a" * 200])
def test_names(name: str) -> None:
    """docker's rule: a letter or digit, then letters, digits, '_', '.' and '-'."""
    names.check(name)
    assert names.is_name(name)


@pytest.mark.parametrize(
    "name", ["", "a", "-a", ".a", "_a", "a b", "a/b", "../x", "a\n", "wéb", "٣٣", "a" * 201, "a\0b"]
)
def test_bad_names(name: str) -> None:
    """Nothing that could leave the names directory, or that a person could not type."""
    assert not names.is_name(name)
    with pytest.raises(UsageError, match="bad container name"):
        names.check(name)


def test_ids() -> None:
    """64 lower-case hex digits; a prefix is what begins so."""
    assert names.is_id("0123456789abcdef" * 4)
    assert not names.is_id("0123456789ABCDEF" * 4)
    assert not names.is_id("0" * 63)
    assert names.is_id_prefix("0a")
    assert not names.is_id_prefix("")
    assert not names.is_id_prefix("0g")
    assert not names.is_id_prefix("0" * 65)


def test_random_names_are_valid_and_free() -> None:
    """adjective_noun, a number after it when the plain ones are taken; never one that is taken."""
    seen = {names.random_name(lambda _: True) for _ in range(50)}
    assert len(seen) > 25
    assert all(names.is_name(name) and "_" in name for name in seen)
    numbered = names.random_name(lambda name: name[-1].isdigit())
    assert names.is_name(numbered)
    with pytest.raises(PyrunError, match="a thousand tries found no free one"):
        names.random_name(lambda _: False)


def test_words_are_plain_and_unique() -> None:
    """No word twice, nothing but small letters."""
    for words in (names.ADJECTIVES.split(), names.NOUNS.split()):
        assert len(words) == len(set(words))
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
        assert len(words) <= 256  # one random byte chooses


@given(st.text(max_size=12))
def test_a_name_is_one_path_component(name: str) -> None:
    """Whatever passes is a plain file name."""
    if names.is_name(name):
        assert "/" not in name
        assert name not in (".", "..")
