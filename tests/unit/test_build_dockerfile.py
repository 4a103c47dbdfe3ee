# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile parser: lines, flags, exec forms, heredocs. test_build_oracle.py compares it with BuildKit's."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs.build.dockerfile import DockerfileError, exec_form, heredoc_mark, is_own_syntax, parse
from pyrun.runtime.errors import PyrunError


def test_everything_about_an_instruction() -> None:
    """Name, keyword as written, flags, text, lines, comments above it."""
    text = "FROM a\n\n# one\n# two\nrun --network=none \\\n  # inside\n  --mount=type=tmpfs,target=/x a \\\n  b\n"
    at = parse(text.encode(), path="x/Dockerfile").instructions[1]
    assert (at.name, at.keyword, at.line, at.end_line, at.path) == ("RUN", "run", 5, 8, "x/Dockerfile")
    assert at.flags == (("network", "none"), ("mount", "type=tmpfs,target=/x"))
    assert at.text == "a   b"
    assert at.comments == ("one", "two")
    assert at.json is None
    assert at.heredocs == ()


def test_the_file_as_a_whole() -> None:
    """Directives, the lines as they are shown in messages, the escape character."""
    file = parse(b"# syntax=docker/dockerfile:1\r\n# escape=`\r\n# check=skip=all\r\nFROM a `\r\n AS b\r\n")
    assert (file.syntax, file.escape, file.checks, file.checks_line) == ("docker/dockerfile:1", "`", "skip=all", 3)
    assert file.lines == ("# syntax=docker/dockerfile:1", "# escape=`", "# check=skip=all", "FROM a `", " AS b")
    assert file.instructions[0].text == "a  AS b"
    assert file.instructions[0].escape == "`"


def test_a_byte_order_mark_does_not_count() -> None:
    """Not for the first instruction and not for a directive."""
    assert parse(b"\xef\xbb\xbfFROM a\n").instructions[0].name == "FROM"
    assert parse(b"\xef\xbb\xbf# escape=`\nFROM a\n").escape == "`"


def test_bytes_that_are_no_utf8_are_kept() -> None:
    """They come out as they went in: names of files need not be UTF-8."""
    at = parse(b"FROM a\nCOPY caf\xe9 /\xff\n").instructions[1]
    assert at.text.encode("utf-8", "surrogateescape") == b"caf\xe9 /\xff"
    heredoc = parse(b"FROM a\nRUN <<X\n\xe9\r\nX\n").instructions[1].heredocs[0]
    assert heredoc.content.encode("utf-8", "surrogateescape") == b"\xe9\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker/dockerfile", True), ("docker/dockerfile:1.7-labs", True), ("docker.io/docker/dockerfile:1", True),
        ("docker/dockerfile-upstream:master", True), ("docker/dockerfile@sha256:00", True),
        ("localhost:5000/mirror/docker/dockerfile:1", True), ("docker/dockerfile:1 and more", True),
        ("dockerfile", False), ("evil/dockerfile", False), ("notdocker/dockerfile", False),
        ("docker/dockerfilex", False),
    ],
)  # fmt: skip
def test_the_language_is_built_in(text: str, expected: bool) -> None:
    """Any version of docker's own frontend, from any registry, is this parser; another one is not run."""
    assert is_own_syntax(text) is expected


def test_directives_below_a_shebang() -> None:
    """An executable Dockerfile: syntax and check count there, escape does not, as in BuildKit."""
    file = parse(b"#!/usr/bin/env -S docker build -f\n# syntax=docker/dockerfile:1\n# escape=`\nFROM a `\nRUN b\n")
    assert (file.syntax, file.escape) == ("docker/dockerfile:1", "\\")
    assert [(at.name, at.line) for at in file.instructions] == [("FROM", 4), ("RUN", 5)]


def test_comments_above_an_instruction_end_at_an_empty_line() -> None:
    """An empty line and an empty comment begin anew; directives are none."""
    text = "# check=skip=all\n# a\nFROM a\n# b\n\n# c\n#\n# d\n#e\nRUN x\n# f\n\nRUN y\n"
    assert [at.comments for at in parse(text.encode()).instructions] == [("a",), ("d", "e"), ()]


def test_empty_lines_in_a_continuation_are_noticed() -> None:
    """The warning has the line where the instruction ends; comments do not count."""
    file = parse(b"FROM a\nRUN a \\\n\n  b\nRUN a \\\n# x\n b\n")
    assert [warning.line for warning in file.warnings] == [4]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("FROM a\n\nRUNN x\n", "Dockerfile:3: unknown instruction 'RUNN'", "did you mean RUN?"),
        ("form a\n", "Dockerfile:1: unknown instruction 'form'", "did you mean from?"),
        ("FROM a\nENTRYPOINTS x\n", "Dockerfile:2: unknown instruction 'ENTRYPOINTS'", "did you mean ENTRYPOINT?"),
        ("FROM a\n\x1b[31mX y\n", "Dockerfile:2: unknown instruction '\\x1b[31mX'", ""),
        ("FROM a\nxyzzyx y\n", "Dockerfile:2: unknown instruction 'xyzzyx'", ""),
        ("FROM a\nworkdır x\n", "Dockerfile:2: unknown instruction 'workdır'", "did you mean workdir?"),
        ("", "Dockerfile: there is no instruction in it", "start with FROM <image>"),
        ("# only a comment\n\n", "Dockerfile: there is no instruction in it", "start with FROM <image>"),
        ("FROM a\nCMD [1]\n", "Dockerfile:2: CMD: the exec form is a JSON array of strings only", ""),
        ("FROM a\nRUN \\\n x <<E\nfoo\n", "Dockerfile:2: the heredoc 'E' has no end", "a line must consist of E alone"),
        ("# escape=|\nFROM a\n", "Dockerfile:1: escape cannot be '|'", "it is \\ or `"),
        ("# check=a\n# check=b\nFROM a\n", "Dockerfile:2: the directive 'check' can be given only once", ""),
        ("# syntax=tonistiigi/mopy\napiVersion: v1\n", "Dockerfile:1: syntax 'tonistiigi/mopy' is another language",
         "docker/dockerfile is built in; there are no other frontends"),
    ],
)  # fmt: skip
def test_errors_say_where_and_what_was_meant(text: str, message: str, hint: str) -> None:
    """One line with the file and the line; the nearest instruction as a hint."""
    with pytest.raises(DockerfileError) as caught:
        parse(text.encode())
    assert str(caught.value) == message
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("<<EOF", ("EOF", True, False, 0)),
        ("<<-EOF", ("EOF", True, True, 0)),
        ("4<<EOF", ("EOF", True, False, 4)),
        ("<<'EOF'", ("EOF", False, False, 0)),
        ('<<-"EOF"', ("EOF", False, True, 0)),
        ("<<E'O'F", ("EOF", False, False, 0)),
        ("<< EOF", ("EOF", True, False, 0)),
        ("<<$EOF", ("$EOF", True, False, 0)),
        ("<<", None), ("<<<EOF", None), ("a<<EOF", None), ("<EOF", None), ("<<a b", None), ("<<'a", None),
        ("٣<<EOF", None),
    ],
)  # fmt: skip
def test_what_announces_a_heredoc(word: str, expected: tuple[str, bool, bool, int] | None) -> None:
    """(name, whether it is expanded, whether tabs go, file descriptor)."""
    mark = heredoc_mark(word)
    assert (mark and (mark.name, mark.expand, mark.chomp, mark.fd)) == expected


def test_tabs_go_from_the_contents_only_where_asked() -> None:
    """`<<-` takes the tabs at the beginning of each line, nothing else; \\r, \\f and the like are no lines' ends."""
    at = parse(b"FROM a\nRUN <<-A <<B\n\t\ta\n \tb\x0b\tc\n\tA\n\ta\nB\n").instructions[1]
    assert [heredoc.text() for heredoc in at.heredocs] == ["a\n \tb\x0b\tc\n", "\ta\n"]
    assert at.heredocs[0].content == "\t\ta\n \tb\x0b\tc\n"


def test_an_arithmetic_shift_is_no_heredoc() -> None:
    """`1 << 2` looks like one since blanks are allowed; without a line that ends it, it is none."""
    file = parse(b"FROM a\nRUN echo $((1 << 2))\nRUN b\n")
    assert [(at.name, at.heredocs) for at in file.instructions[1:]] == [("RUN", ()), ("RUN", ())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b"]', ("a", "b")),
        ("[]", ()),
        ('["\\u00e9\\ud83d\\ude00"]', ("é😀",)),
        ('["\\ud800x", "\\udc80"]', ("\ufffdx", "\ufffd")),
        ("['a']", None), ("[ -f x ]", None), ('["a"', None), ('["a"] x', None), ("a", None), ("[NaN]", None),
        ("[Infinity]", None), ('["a",]', None), ('["a\nb"]', None),
    ],
)  # fmt: skip
def test_exec_form(text: str, expected: tuple[str, ...] | None) -> None:
    """A JSON array of strings, or the shell form; a lone surrogate becomes U+FFFD and never a byte."""
    assert exec_form(text) == expected


@pytest.mark.parametrize("text", ["[1]", "[null]", '["a", ["b"]]', "[{}]", "[" * 100_000, "[1" + "0" * 5000 + "]"])
def test_an_exec_form_of_something_else_is_a_mistake(text: str) -> None:
    """Numbers and nested arrays are told, not run by a shell, however deep or long they are."""
    assert exec_form(text) == "the exec form is a JSON array of strings only"


@given(st.binary(max_size=300))
def test_no_input_breaks_the_parser(data: bytes) -> None:
    """Any bytes are a Dockerfile or an error of ours."""
    try:
        parse(data)
    except PyrunError:
        pass


@given(st.lists(st.sampled_from(["RUN a", "RUN a \\", "  b", "# c", "", "RUN <<A", "A", "ENV a=b"]), max_size=12))
def test_lines_add_up(lines: list[str]) -> None:
    """Instructions come in order, none overlaps the next, and the first line of each is where it is written."""
    try:
        found = parse("\n".join(["FROM x", *lines]).encode()).instructions
    except PyrunError:
        return
    all_lines = ["FROM x", *lines]
    for at, following in itertools.pairwise(found):
        assert at.line <= at.end_line < following.line
    for at in found:
        assert all_lines[at.line - 1].lstrip().startswith(at.keyword)


def test_importing_the_language_is_cheap() -> None:
    """The monitor preloads it: nothing of the standard library that costs milliseconds comes with it."""
    slow = ("re", "json", "typing", "dataclasses", "enum", "functools", "contextlib", "difflib", "posixpath", "hashlib")
    code = (
        "import sys\n"
        "import pyrun.runtime.errors, pyrun.runtime.record\n"
        f"for name in {slow!r}: sys.modules.pop(name, None)\n"  # what the interpreter's own start has loaded
        "from pyrun.rootfs.build import dockerfile, instructions, expand, ignore, lint, platforms\n"
        "found = dockerfile.parse(b'FROM a AS b\\nRUN --mount=type=tmpfs,target=/x y\\nENV a=$b\\n')\n"
        "instructions.stages(found)\n"
        f"print(*(name for name in {slow!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
