# SPDX-License-Identifier: Apache-2.0
"""What COPY's arguments mean: wildcards as Go's filepath.Match, --chmod as chmod(1), names of downloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs.build import modes, remote
from pyrun.rootfs.build.wildcard import Pattern, is_wildcard, may_lead_to, unescaped
from pyrun.runtime.errors import UsageError

# From the table of Go's own tests (path/filepath/match_test.go: facts about the function, by pattern, name, result).
MATCHES = [
    ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True), ("a*", "abc", True),
    ("a*b*c*d*e*", "axbxcxdxe", True), ("a*b*c*d*e*", "axbxcxdxexxx", True), ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False), ("ab[c]", "abc", True), ("ab[b-d]", "abc", True), ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False), ("ab[^b-d]", "abc", False), ("ab[^e-g]", "abc", True), ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False), ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True), ("a???b", "a☺b", False),
    ("a[^a][^a][^a]b", "a☺b", False), ("[a-ζ]*", "α", True), ("*[a-ζ]", "A", False), ("[\\]a]", "]", True),
    ("[\\-]", "-", True), ("[x\\-]", "x", True), ("[x\\-]", "z", False), ("[\\-x]", "a", False), ("*x", "xxx", True),
    ("", "", True), ("", "x", False), ("arr[[]0].txt", "arr[0].txt", True), ("?", "", False), ("**", "abc", True),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "name", "expected"), MATCHES)
def test_wildcards_match_as_in_go(pattern: str, name: str, expected: bool) -> None:
    """One component of a path against one of a pattern."""
    assert Pattern(pattern).matches(name) is expected


@pytest.mark.parametrize("pattern", ["[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "a\\", "[a-b-c]"])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    """Where Go returns ErrBadPattern, so does this, whatever the name is."""
    with pytest.raises(UsageError, match="invalid pattern"):
        Pattern(pattern)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_star_and_question_mark_are_those_of_fnmatch(pattern: str, name: str) -> None:
    """Without classes and slashes, Go's rules are those of fnmatch(3)."""
    import fnmatch

    assert Pattern(pattern).matches(name) is fnmatch.fnmatchcase(name, pattern)


def test_hostile_patterns_take_no_time() -> None:
    """Many stars against a long name: quadratic at worst."""
    assert not Pattern("*a" * 200 + "b").matches("a" * 5000)


def test_escaped_characters_are_no_wildcards() -> None:
    """Only an unescaped * ? [ makes a source a pattern."""
    assert [is_wildcard(text) for text in ("a*", "\\\\*", "a\\*b", "plain")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "name"),
    [("a\\*b", "a*b"), ("\\[x]", "[x]"), ("\\\\", "\\"), ("a\\b", "a\\b"), ("\\\\\\?", "\\?"), ("x\\", "x\\")],
)
def test_escaped_names_are_those_names(text: str, name: str) -> None:
    """A file called `a*b` can be copied as a\\*b; other backslashes are the name's own."""
    assert unescaped(text) == name


def test_only_directories_that_can_lead_to_a_match_are_read() -> None:
    """--parents a/*/c.txt does not go into b, and ** may be anywhere below."""
    wanted = [Pattern(part) for part in ("a", "x*", "c.txt")]
    tried = (["a"], ["a", "xy"], ["b"], ["a", "y"])
    assert [may_lead_to(wanted, directory) for directory in tried] == [True, True, False, False]
    assert may_lead_to([Pattern("**"), Pattern("c")], ["any", "thing"])


CHMOD = [
    ("644", 0o755, False, 0o644), ("0755", 0o600, False, 0o755), ("4711", 0o600, False, 0o4711),
    ("u=rwX,go=rX", 0o600, False, 0o644), ("u=rwX,go=rX", 0o700, False, 0o755), ("u=rwX,go=rX", 0o600, True, 0o755),
    ("+x", 0o644, False, 0o755), ("a-w", 0o666, False, 0o444), ("go=", 0o777, False, 0o700),
    ("g=u", 0o740, False, 0o770),
    ("u+s", 0o755, False, 0o4755), ("g+s,o+t", 0o755, False, 0o3755), ("+X", 0o644, False, 0o644),
    ("+X", 0o644, True, 0o755), ("u=rw,u+x", 0o000, False, 0o700), ("ug+rw-x", 0o111, False, 0o661),
    ("o=g", 0o750, False, 0o755), ("=r", 0o4777, False, 0o444), ("u=rwx", 0o2755, True, 0o2755),
]  # fmt: skip


@pytest.mark.parametrize(("text", "before", "directory", "after"), CHMOD)
def test_chmod_octal_and_symbolic(text: str, before: int, directory: bool, after: int) -> None:
    """The bits that chmod(1) gives with a umask of 0."""
    change = modes.parse(text)
    assert change is not None
    assert oct(change.apply(before, directory=directory)) == oct(after)


@pytest.mark.parametrize(
    "text", ["10000", "888", "0x1ff", "1_0", " 644", "+q", "u", "rwx", "u=rwx,", "٧٥٥", "777777777777777"]
)
def test_bad_modes_are_refused(text: str) -> None:
    """Numbers that are not octal, and clauses without an operator or with unknown letters."""
    with pytest.raises(UsageError, match="invalid --chmod"):
        modes.parse(text)


@given(st.text("ugoa+-=rwxXst,07", max_size=10) | st.text(max_size=6), st.integers(0, 0o7777), st.booleans())
def test_any_mode_is_bits_or_an_error(text: str, before: int, directory: bool) -> None:
    """Nothing else comes out of --chmod, whatever is written there."""
    try:
        change = modes.parse(text)
    except UsageError:
        return
    if change is None:
        assert text == ""
    else:
        assert 0 <= change.apply(before, directory=directory) <= 0o7777


@given(st.text("[]^-\\\\*?ab", max_size=12), st.text("[]^-\\\\*?ab", max_size=8))
def test_any_pattern_matches_or_is_refused(pattern: str, name: str) -> None:
    """A name is always matched by itself with every special character escaped."""
    try:
        Pattern(pattern).matches(name)
    except UsageError:
        pass
    assert Pattern("".join(f"\\{char}" for char in name)).matches(name)


NAMES = [
    ("", "http://h/a/b.tar?x=1#f", "b.tar"), ("", "http://h/", ""), ("", "http://h", ""), ("", "http://h/dir/", "dir"),
    ("", "http://h/a%20b", "a b"), ("", "http://h/x/..%2f..%2fetc%2fpasswd", "passwd"), ("", "http://h/..", ""),
    ("", "http://h/%2e%2e", ""), ("", "http://h/a%0ab%00", "ab"), ("", "http://h/" + "x" * 256, ""),
    ('attachment; filename="other"', "http://h/x", "x"), ('attachment; filename="real"', "http://h/?id=1", "real"),
    ('attachment; filename="../../etc/cron.d/x"', "http://h", "x"), ('attachment; filename="dir/"', "http://h", ""),
    ("attachment; filename*=UTF-8''%e2%82%ac.txt", "http://h", "€.txt"), ('attachment; filename=".."', "http://h", ""),
]  # fmt: skip


@pytest.mark.parametrize(("disposition", "url", "name"), NAMES)
def test_names_of_downloads(disposition: str, url: str, name: str) -> None:
    """The URL's last part, else Content-Disposition's; never a path."""
    assert remote.file_name(disposition, url) == name


def test_last_modified_becomes_a_time() -> None:
    """HTTP dates of all three forms; nonsense is no time."""
    assert remote.http_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777 * 10**9
    assert remote.http_date("Sunday, 06-Nov-94 08:49:37 GMT") == 784111777 * 10**9
    assert remote.http_date("yesterday") == remote.http_date("") == 0


@pytest.mark.parametrize(
    "text", ["md5:" + "0" * 32, "sha256:123", "sha256:" + "G" * 64, "deadbeef", "sha256:" + "A" * 64]
)
def test_bad_checksums_are_refused(text: str) -> None:
    """Unknown algorithms, wrong lengths, other digits."""
    with pytest.raises(UsageError, match="invalid checksum"):
        remote.parse_checksum(text)


def test_passwords_in_urls_are_not_shown() -> None:
    """Neither in errors nor in the image's history."""
    assert remote.shown("https://me:secret@host/a@b") == "https://host/a@b"
