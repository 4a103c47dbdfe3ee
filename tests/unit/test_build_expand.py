# SPDX-License-Identifier: Apache-2.0
"""Variables and quotes in a Dockerfile's words."""

from __future__ import annotations

import fnmatch
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs.build import expand as e
from pyrun.rootfs.build import patterns
from pyrun.rootfs.build.expand import ExpandError, expand, expand_words, quoted_words, raw

ENV = {
    "A": "value", "EMPTY": "", "B": "/usr/local/bin", "F": "a.tar.gz", "SP": "x  y", "LEAD": "  a b ", "É": "accent",
    "Q": "it's \"q\"", "STAR": "*", "D": "$A",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"), ("", ""), ("a b  c", "a b  c"),
        ("$A", "value"), ("${A}", "value"), ("x$A.y", "xvalue.y"), ("$A$A", "valuevalue"), ("$Ax", ""),
        ("${A}x", "valuex"),
        ("$UNSET", ""), ("${UNSET}", ""), ("$EMPTY", ""), ("$É", "accent"), ("$1x", "x"), ("$12a", "a"),
        ("${1:-b}", "b"),
        ("$", "$"), ("a$", "a$"), ("$.", "$."), ("$/x", "$/x"), ("$$", ""), ("$@", ""), ("${@:-z}", "z"), ("$?a", "a"),
        ("\\$A", "$A"), ("\\\\$A", "\\value"), ("\\${A}", "${A}"), ("a\\b", "ab"), ("a\\", "a"), ("\\ ", " "),
        ("'$A'", "$A"), ("'a\\b'", "a\\b"), ("''", ""), ("'\"'", '"'), ("a'b'c", "abc"),
        ('"$A"', "value"), ('"\\$A"', "$A"), ('"a\\b"', "a\\b"), ('"a\\"b"', 'a"b'), ('"\\\\"', "\\"),
        ("\"'$A'\"", "'value'"),
        ('""', ""), ('"a\\\'b"', "a\\'b"), ("$Q", "it's \"q\""), ("$D", "$A"),
        ("${UNSET:-word}", "word"), ("${EMPTY:-word}", "word"), ("${A:-word}", "value"), ("${UNSET:-}", ""),
        ("${UNSET-word}", "word"), ("${EMPTY-word}", ""), ("${A-word}", "value"),
        ("${UNSET:+word}", ""), ("${EMPTY:+word}", ""), ("${A:+word}", "word"),
        ("${UNSET+word}", ""), ("${EMPTY+word}", "word"), ("${A+word}", "word"),
        ("${A:?no}", "value"), ("${EMPTY?no}", ""), ("${A?no}", "value"),
        ("${UNSET:-$A}", "value"), ("${UNSET:-${EMPTY:-${A}}}", "value"), ("${A:+$B:}x", "/usr/local/bin:x"),
        ("${UNSET:-'$A'}", "$A"), ("${UNSET:-\"$A b\"}", "value b"), ("${UNSET:-\\}}", "}"), ("${UNSET:-a b}", "a b"),
        ("${UNSET:-a}}", "a}"), ("${UNSET:-{}", "{"),
        ("${F%.*}", "a.tar"), ("${F%%.*}", "a"), ("${F#*.}", "tar.gz"), ("${F##*.}", "gz"), ("${F%x}", "a.tar.gz"),
        ("${B##*/}", "bin"), ("${B%/*}", "/usr/local"), ("${F#?}", ".tar.gz"), ("${F%??}", "a.tar."),
        ("${F#}", "a.tar.gz"),
        ("${UNSET#x}", ""), ("${F#$STAR}", "a.tar.gz"), ("${F##$STAR}", ""), ("${F#a\\.}", None),
        ("${B/\\//_}", "_usr/local/bin"), ("${B//\\//_}", "_usr_local_bin"), ("${F/./-}", "a-tar.gz"),
        ("${F//./-}", "a-tar-gz"),
        ("${F//a/}", ".tr.gz"), ("${F/*./x}", "xgz"), ("${F//?/x}", "xxxxxxxx"), ("${UNSET//a/b}", ""),
        ("${F/$EMPTY/x}", "xa.tar.gz"), ("${F/q/x}", "a.tar.gz"), ("${F/.tar/$A}", "avalue.gz"),
        ("a<b", "a<b"), ("a << b", "a << b"),
    ],
)  # fmt: skip
def test_words(text: str, expected: str | None) -> None:
    """Operators, nesting, quotes and escapes as BuildKit's reference has them."""
    if expected is None:
        with pytest.raises(ExpandError):
            expand(text, ENV.get)
    else:
        assert expand(text, ENV.get) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${A", "cannot expand '${A': '}' is missing"),
        ("${", "cannot expand '${': '}' is missing"),
        ("${UNSET:-x", "'}' is missing"),
        ("${}", "${ must be followed by a name"),
        ("${:-x}", "${ must be followed by a name"),
        ("${{A}}", "${ must be followed by a name"),
        ("${A:=x}", "unknown operator ':=' in ${A…}"),
        ("${A:#x}", "unknown operator ':#' in ${A…}"),
        ("${A=x}", "unknown operator '=' in ${A…}"),
        ("${A:", "unknown operator ':' in ${A…}"),
        ("${A^^}", "unknown operator '^' in ${A…}"),
        ("${A/x}", "'/' is missing in ${…}"),
        ("${A/x/", "'}' is missing"),
        ("'a", "a single quote is not closed"),
        ('"a', "a double quote is not closed"),
        ('"a\\"', "a double quote is not closed"),
        ("${A#\\n}", "'\\n' has no meaning in a pattern"),
        ("${UNSET?}", "UNSET: it must not be unset"),
        ("${EMPTY:?}", "EMPTY: it must not be empty"),
        ("${UNSET:?set it to $A}", "UNSET: set it to value"),
        ("${A:-" * 2000 + "}" * 2000, "more than 50 nested"),
    ],
)
def test_errors(text: str, message: str) -> None:
    """Each says which text and what is wrong in it."""
    with pytest.raises(ExpandError) as caught:
        expand(text, ENV.get)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]), ("", []), ("  a\tb\n", ["a", "b"]), ("$SP", ["x", "y"]), ('"$SP"', ["x  y"]),
        ("p${LEAD}s", ["p", "a", "b", "s"]), ('p"${LEAD}"s', ["p  a b s"]), ("a\\ b", ["a b"]), ("'a b'c", ["a bc"]),
        ("''", []), ("$UNSET", []), ("80 ${UNSET:-8 9}/udp", ["80", "8", "9/udp"]), ("a${UNSET:-b}c", ["abc"]),
        ("a\u2003b", ["a", "b"]), ("a\x1cb", ["a\x1cb"]),
    ],
)  # fmt: skip
def test_splitting_comes_after_expansion(text: str, expected: list[str]) -> None:
    """Blanks that come out of a variable split words, quoted ones do not; empty words are none."""
    assert expand_words(text, ENV.get) == expected


def test_the_escape_character_can_be_another() -> None:
    """After `# escape=`` a backslash is a letter."""
    assert expand('c:\\$A `$A "`"\\"', ENV.get, escape="`") == 'c:\\value $A "\\'
    assert quoted_words("a=b` c d\\ e", "`") == ["a=b` c", "d\\", "e"]


def test_quotes_stay_in_the_contents_of_a_heredoc() -> None:
    """Variables are replaced, quotes are text, and a backslash keeps a variable as it is."""
    assert raw("'$A' \"${A}\" \\$A it's\n", ENV.get) == "'value' \"value\" $A it's\n"


def test_every_name_that_was_asked_for_is_known_afterwards() -> None:
    """Set or not, needed or not: a cache key must not miss one."""
    used: set[str] = set()
    expand("$A ${UNSET:-$B} ${EMPTY:+$F} '$Q' \\$SP ${D#$STAR}", ENV.get, used=used)
    assert used == {"A", "UNSET", "B", "EMPTY", "F", "D", "STAR"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b c=d", ["a=b", "c=d"]),
        ("a='b c' d=\"e f\"", ["a='b c'", 'd="e f"']),
        ("a=b\\ c d", ["a=b\\ c", "d"]),
        ("a='b\\' c", ["a='b\\'", "c"]),
        ('a="b\\"c" d', ['a="b\\"c"', "d"]),
        ("a=b\\", ["a=b"]),
        ("'' a", ["''", "a"]),
        ("a='b c", ["a='b c"]),
    ],
)
def test_words_with_their_quotes(text: str, expected: list[str]) -> None:
    """ENV, LABEL and ARG are split before anything is expanded."""
    assert quoted_words(text) == expected


@given(
    st.text(alphabet="ab*?\\.", max_size=6),
    st.text(alphabet="ab.", max_size=6),
    st.sampled_from(["#", "##", "%", "%%"]),
)
def test_trimming_agrees_with_a_shell(pattern: str, value: str, operator: str) -> None:
    """Which beginnings and ends match is what fnmatch says, too; the shortest or the longest of them goes."""
    if "\\" in pattern:
        return  # escapes are in the table above; fnmatch has none
    parts = (
        [value[:n] for n in range(len(value) + 1)] if "#" in operator else [value[n:] for n in range(len(value) + 1)]
    )
    fitting = [part for part in parts if fnmatch.fnmatchcase(part, pattern)]
    trimmed = (max if len(operator) == 2 else min)(fitting, key=len) if fitting else ""
    rest = value[len(trimmed) :] if "#" in operator else value[: len(value) - len(trimmed)]
    assert expand(f"${{X{operator}{pattern}}}", {"X": value}.get) == rest


def test_operators_agree_with_sh() -> None:
    """What POSIX has of them, a real shell does alike."""
    texts = [
        "${A:-x}", "${U:-x}", "${E:-x}", "${E-x}", "${A:+x}", "${E:+x}", "${E+x}", "${U+x}", "${F%.*}", "${F%%.*}",
        "${F#*.}", "${F##*.}", "${F#?}", "${U:-${E:-${A}}}", "'$A'$A\"$A\"", "\\$A", "a\\\\b",
    ]  # fmt: skip
    env = {"A": "value", "E": "", "F": "a.tar.gz"}
    script = "".join(f"printf '%s\\n' {text}\n" for text in texts)
    done = subprocess.run(["sh", "-c", script], env={**env, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.stdout.split("\n")[:-1] == [expand(text, env.get) for text in texts]


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    """A regular expression would try for hours."""
    assert patterns.without_prefix("a" * 3000, patterns.parse("*a" * 30 + "b"), longest=True) == "a" * 3000


@given(st.text(alphabet="${}:-+?#%/'\"\\ <abA", max_size=20))
def test_no_text_breaks_it(text: str) -> None:
    """A result or an error of ours."""
    for function in (expand, expand_words, raw):
        try:
            function(text, ENV.get)
        except ExpandError:
            pass
    e.split_raw(text)
