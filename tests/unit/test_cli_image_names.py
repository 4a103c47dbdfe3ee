# SPDX-License-Identifier: Apache-2.0
"""images --filter reference=: which names a pattern fits, as docker's path.Match on the familiar name has it."""

from __future__ import annotations

import pytest

from pyrun.runtime.cli.images import NONE, _named
from pyrun.runtime.errors import UsageError

NODE = "nodeapp"
TEAM = "localhost:5871/team/app"
ONE = "localhost:5871/nodeapp"
USER = "someone/nodeapp"


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("*:1.0", {NODE}),
        ("*/*:1.0", {ONE, USER}),
        ("*/nodeapp", {ONE, USER}),
        ("localhost:5871/*", {ONE}),
        ("localhost:5871/*/*", {TEAM}),
        ("*node*", {NODE}),
        ("nodeapp", {NODE}),
        ("node?pp:1.[0-9]", {NODE}),
        ("node", set()),
        ("**", {NODE}),
    ],
)
def test_a_star_does_not_cross_a_slash(pattern: str, fitting: set[str]) -> None:
    """A wildcard stands for characters of one component only; the name fits with its tag or without."""
    rows = [{"Repository": name, "Tag": "1.0"} for name in (NODE, TEAM, ONE, USER)]
    assert {row["Repository"] for row in rows if _named(row, [pattern])} == fitting


def test_an_image_without_a_name_fits_no_pattern() -> None:
    """<none> is no name."""
    assert not _named({"Repository": NONE, "Tag": NONE}, ["*"])


def test_a_pattern_that_cannot_be_read_is_refused() -> None:
    """docker says so too, instead of showing nothing."""
    with pytest.raises(UsageError, match="invalid pattern"):
        _named({"Repository": "nodeapp", "Tag": "1.0"}, ["node[a"])
