# SPDX-License-Identifier: Apache-2.0
""".dockerignore: patterns, exceptions, and what a walker can skip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs.build import ignore
from pyrun.rootfs.build.ignore import Ignore
from pyrun.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "aa"]),
        ("a/b", ["a/b", "a/b/c"], ["a", "b", "x/a/b", "a/bc"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/", ["a", "a/b"], ["b"]),
        ("./a//b/../c", ["a/c"], ["a/b"]),
        ("  a  ", ["a"], [" a"]),
        ("*", ["a", "a/b", ".x"], []),
        ("*.txt", ["a.txt", "a.txt/b", ".txt"], ["b/a.txt", "a.txtx"]),
        ("*/*.txt", ["b/a.txt"], ["a.txt", "c/b/a.txt"]),
        ("a*", ["a", "ab", "ab/c"], ["ba", "b/a"]),
        ("a?c", ["abc", "a☺c"], ["ac", "a/c", "abbc"]),
        ("**", ["a", "a/b/c"], []),
        ("**/", ["a", "a/b"], []),
        ("**/a", ["a", "b/a", "c/b/a", "b/a/x"], ["ab", "b/ab", "ba"]),
        ("**a", ["a", "ba", "c/ba", "x/a"], ["ab"]),
        ("**/*.go", ["a.go", "b/a.go", "c/b/a.go"], ["a.goo", "go"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a**", ["a", "ab", "a/b"], ["b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a", "ab", "a/xb", "b"]),
        ("a**/*.txt", ["a/x.txt", "a/b/x.txt", "ab.txt", "ax/y.txt"], ["b/x.txt"]),
        ("**/a/**/b", ["a/b", "x/a/y/z/b"], ["a", "b"]),
        ("**/**/a", ["a", "b/a"], ["ab"]),
        ("a/*.txt**", ["a/x.txt", "a/x.txtfoo"], ["a/x.md"]),
        ("[a-c]", ["a", "b", "c/d"], ["d", "ab"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        ("[a\\]]x", ["]x", "ax"], ["bx"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("a\\\\", ["a\\"], ["a"]),
        ("a.b+c(d)|$^{e}", ["a.b+c(d)|$^{e}"], ["axb+c(d)|$^{e}"]),
        ("\\#a", ["#a"], ["a"]),
        ("é*", ["éa"], ["e"]),
        (".", [], ["a", "b/c"]),
        ("/", [], ["a"]),
        ("..", [], ["a"]),
        ("../a", [], ["a"]),
        ("a/..", [], ["a", "b"]),
        ("**/.git", [".git", "a/.git", "a/.git/config"], ["git", ".gitignore"]),
        ("*a*b*c*d*e*", ["abcde", "xaxbxcxdxex", "abcde/f"], ["abcd", "a/bcde"]),
    ],
)
def test_patterns(pattern: str, matched: list[str], others: list[str]) -> None:
    """What matches a directory matches all that is in it."""
    rules = Ignore.parse(pattern)
    assert [path for path in (*matched, *others) if rules.ignored(path)] == matched


@pytest.mark.parametrize(
    ("text", "left_out", "kept"),
    [
        ("*\n!a", ["b", "b/a"], ["a", "a/b"]),
        ("!a\n*", ["a", "b"], []),
        ("docs\n!docs/README.md", ["docs", "docs/a"], ["docs/README.md"]),
        ("docs/*\n!docs/README.md", ["docs/a"], ["docs", "docs/README.md"]),
        ("**\n!src/**/*.go\nsrc/vendor/**", ["a", "src/a.c", "src/vendor/x.go"], ["src/a.go", "src/b/c.go"]),
        # docker's quirk: src/vendor was excluded already, so that its own line was not looked at and does not go down
        ("**\n!src/**/*.go\nsrc/vendor", ["src/vendor"], ["src/vendor/x.go"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md", "README-x.md", "b/a.md"]),
        ("**/*.txt\n!docs", ["docs/a.txt", "a.txt"], ["docs", "docs/b"]),
        ("docs\n!docs", [], ["docs", "docs/a"]),
        ("docs\n!docs\ndocs/a", ["docs/a"], ["docs", "docs/b"]),
        ("a\n! a/b ", ["a", "a/c"], ["a/b"]),
        ("a\n!/a/b", ["a"], ["a/b"]),
        ("**\n!util/web\nutil/web/x", ["util", "util/web/x"], ["util/web", "util/web/y"]),
    ],
)
def test_exceptions(text: str, left_out: list[str], kept: list[str]) -> None:
    """The last line that matches decides; an exception lifts only what an earlier line has excluded."""
    rules = Ignore.parse(text)
    assert [path for path in (*left_out, *kept) if rules.ignored(path)] == left_out


def test_comments_and_empty_lines() -> None:
    """A # counts in the first column only; byte order marks, CRs and blanks do not matter."""
    rules = Ignore.parse("\ufeffa\r\n# b\r\n\r\n   \n #c\n\td\t\n#")
    assert [(rule.line, rule.pattern) for rule in rules.rules] == [(1, "a"), (5, "#c"), (6, "d")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n!", "x:2: an exception needs a pattern"),
        ("! /", "x:1: an exception needs a pattern"),
        ("a[", "x:1: pattern 'a[': a [ is not closed"),
        ("[]a]", "']' is out of place"),
        ("[a-]", "']' is out of place"),
        ("[-a]", "'-' is out of place"),
        ("[z-a]", "the range z-a is empty"),
        ("a\\", "it ends in a backslash"),
        ("[a", "a [ is not closed"),
        ("[a\\", "a [ is not closed"),
    ],
)
def test_malformed_patterns(text: str, message: str) -> None:
    """As in docker an error, with the line."""
    with pytest.raises(UsageError) as caught:
        Ignore.parse(text, path="x")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "directory", "expected"),
    [
        ("node_modules", "node_modules", False),
        ("a\n!b", "a", False),
        ("a\n!a/b/c", "a", True),
        ("a\n!a/b/c", "a/b", True),
        ("a\n!a/b/c", "a/x", False),
        ("a\n!a/b/**", "a/b", True),
        ("a\n!ab/c", "a", False),
        ("a\n!**/c", "a", True),
        ("a\n!*.md", "a", True),
        ("*\n!src/*", "src", True),
        ("*\n!src/*", "lib", False),
    ],
)
def test_what_a_walker_skips(text: str, directory: str, expected: bool) -> None:
    """An excluded directory is looked into only if an exception may keep something in it."""
    assert Ignore.parse(text).may_contain_exceptions(directory) is expected


def test_which_rule_excludes() -> None:
    """For messages: the line in the file."""
    rules = Ignore.parse("# x\n*.log\nbuild\n!build/keep\n")
    found = rules.decided_by("build/a/b")
    assert found is not None
    assert (found.line, found.pattern) == (3, "build")
    assert rules.decided_by("build/keep") is None
    assert rules.decided_by("src") is None


def test_very_deep_paths() -> None:
    """A path has at most 4096 bytes, and so up to 2048 directories."""
    rules = Ignore.parse("**/b\n!a/b")
    assert rules.ignored("a/" * 2000 + "b")
    assert not rules.ignored("a/" * 2000 + "c")


PATHS = st.lists(st.text(alphabet="ab.", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)
LINES = st.lists(
    st.lists(st.sampled_from(["a", "b", ".", "*", "**", "/", "?", "[ab]", "\\a"]), min_size=1, max_size=6).map("".join),
    min_size=1,
    max_size=4,
)


@given(PATHS, LINES, st.sets(st.integers(0, 3)))
def test_a_walk_and_a_single_question_agree(path: str, lines: list[str], exceptions: set[int]) -> None:
    """Top down with remembered directories, or out of the blue: the same answer; and skipping loses nothing."""
    text = "\n".join(("!" if n in exceptions else "") + line for n, line in enumerate(lines))
    try:
        walked, asked = Ignore.parse(text), Ignore.parse(text)
    except UsageError:
        return
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts))]
    skipped = False
    for directory in above:
        skipped = skipped or (walked.ignored(directory, True) and not walked.may_contain_exceptions(directory))
    answer = asked.ignored(path)
    assert walked.ignored(path) is answer
    assert answer or not skipped


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**", "**/", "/", "?", "[a]", "[^a]"]), max_size=7).map("".join),
    st.text(alphabet="ab/", max_size=8),
)
def test_both_ways_of_matching_agree(pattern: str, path: str) -> None:
    """A regular expression for few wildcards, sets of places for many: one language."""
    tokens, _ = ignore.tokenize(pattern)
    assert ignore.by_expression(tokens)(path) == ignore.by_steps(tokens)(path)


def test_a_hostile_pattern_takes_no_time() -> None:
    """Backtracking would try for years; a context may come from anywhere."""
    assert not Ignore.parse("*a" * 40 + "b").ignored("a" * 250)
