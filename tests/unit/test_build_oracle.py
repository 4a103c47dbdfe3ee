# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile parser against BuildKit's own: what both read, both read alike, and what it refuses, ours refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from dockerfile_oracle import Oracle
from pyrun.rootfs.build import dockerfile, instructions
from pyrun.rootfs.build import steps as s
from pyrun.rootfs.build.dockerfile import DockerfileError, Instruction, parse
from requires import requires

pytestmark = requires(modules=("dockerfile",))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as found:
        yield found


def value(step: s.Step) -> list[str]:
    """The arguments of a step the way the oracle lists them: words with their quotes, nothing expanded."""
    at = step.at
    if isinstance(step, s.Onbuild):
        return value(step.step)
    if isinstance(step, s.Healthcheck):
        return [dockerfile.first_word(at.text)[0], *(step.test[1:])]
    if at.json is not None:
        return list(at.json)
    if isinstance(step, (s.Env, s.Label)):
        return [word for pair in step.pairs for word in pair]
    if isinstance(step, s.Arg):
        return [name if default is None else f"{name}={default}" for name, default in step.pairs]
    if isinstance(step, (s.From, s.Expose, s.Volume, s.FileStep)):
        return re.split(r"[\t\v\f\r ]+", at.text)
    return [at.text]


def described(at: Instruction) -> dict[str, Any]:
    """Our instruction in the oracle's words."""
    step = instructions.typed(at)
    inner = step.step.at if isinstance(step, s.Onbuild) else None
    return {
        "name": at.name,
        "inner": inner.name if inner else "",
        "json": (inner or at).json is not None,
        "lines": [at.line, at.end_line],
        "flags": [f"--{name}" if given is None else f"--{name}={given}" for name, given in at.flags],
        "value": value(step),
        "heredocs": [] if inner else [[doc.name, doc.fd, doc.content] for doc in at.heredocs],
    }


def ours(text: str) -> list[dict[str, Any]] | str:
    """What we make of a file, or what is wrong with it."""
    try:
        return [described(at) for at in parse(text.encode()).instructions]
    except DockerfileError as error:
        return str(error)


SAME = {
    "one line": "FROM alpine",
    "no line end": "FROM alpine\nRUN a",
    "crlf": "FROM alpine\r\nRUN a \\\r\n  b\r\n",
    "crlf with blanks after the continuation": "FROM alpine\r\nRUN a \\ \t\r\n  b\r\n",
    "carriage returns inside": "FROM alpine\nRUN a\rb  c\nCOPY a\rb\n",
    "blank lines and comments": "\n# one\n\n  # two\nFROM alpine\n\n\n#three\nRUN a\n\n",
    "indented": "  FROM alpine\n\t RUN a\n",
    "lower case": "from alpine\nrun a\n",
    "mixed case": "From alpine\nrUn a\n",
    "tabs between words": "FROM\talpine\tAS\tb\nCOPY\ta\t\tb\n",
    "form feeds and vertical tabs": "FROM\falpine\vAS b\nCOPY a\v\fb\n",
    "platform": "FROM --platform=linux/amd64 alpine AS x\n",
    "flag quoted": 'FROM alpine\nRUN --mount="type=bind,source=a b,target=/x" a\n',
    "flag half quoted": "FROM alpine\nRUN --mount=type='bind',target=/x a\n",
    "flag escaped": "FROM alpine\nRUN --mount=type=bind,source=a\\ b,target=/x a\n",
    "two mounts": "FROM alpine\nRUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b --network=none a\n",
    "flags end at --": "FROM alpine\nRUN --network=none -- --mount a\n",
    "flags over lines": "FROM alpine\nRUN --network=none \\\n --mount=type=tmpfs,target=/b \\\n a\n",
    "one dash": "FROM alpine\nRUN -x a\n",
    "continued": "FROM alpine\nRUN a \\\n b \\\n c\n",
    "continued without blanks": "FROM alpine\nRUN a\\\nb\\\nc\n",
    "continued at the end of the file": "FROM alpine\nRUN a \\",
    "continued into the end of the file": "FROM alpine\nRUN a \\\n",
    "comment in a continuation": "FROM alpine\nRUN a \\\n# comment\n b \\\n   # another \\\n c\n",
    "empty lines in a continuation": "FROM alpine\nRUN a \\\n\n\n b \\\n   \n c\n",
    "two escapes do not continue": "FROM alpine\nRUN a \\\\\nRUN b\n",
    "three escapes": "FROM alpine\nRUN a \\\\\\\nRUN b\n",
    "escape then blanks": "FROM alpine\nRUN a \\  \t\n b\n",
    "keyword continued": "FROM alpine\nR\\\nUN a\n",
    "keyword alone in its line": "FROM alpine\nRUN \\\n a\n",
    "syntax": "# syntax=docker/dockerfile:1\nFROM alpine\n",
    "escape backtick": "# escape=`\nFROM alpine\nRUN a `\n b\nRUN c \\\nCOPY d\\e f\n",
    "escape with blanks": "#  EsCaPe =  ` \nFROM alpine\nRUN a `\n b\n",
    "escape after a comment": "# hello\n# escape=`\nFROM alpine\nRUN a `\nRUN b\n",
    "escape after an empty line": "\n# escape=`\nFROM alpine\nRUN a `\nRUN b\n",
    "escape after an unknown directive": "# foo=bar\n# escape=`\nFROM alpine\nRUN a `\nRUN b\n",
    "all directives": "# check=skip=all\n# syntax=docker/dockerfile\n# escape=\\\nFROM alpine\nRUN a \\\n b\n",
    "exec form": 'FROM alpine\nRUN ["a", "b c"]\nCMD ["x"]\nENTRYPOINT [ "y" , "z" ]\n',
    "exec form with escapes": 'FROM alpine\nCMD ["a\\"b", "\\u00e9", "\\n", "\\ud83d\\ude00"]\n',
    "exec form over lines": 'FROM alpine\nCMD ["a", \\\n  # comment\n  "b"]\n',
    "exec form empty": "FROM alpine\nCMD []\nENTRYPOINT []\n",
    "single quotes are no exec form": "FROM alpine\nCMD ['a', 'b']\n",
    "test is no exec form": "FROM alpine\nRUN [ -f /x ] && echo y\n",
    "exec form with a comma at the end": 'FROM alpine\nCMD ["a",]\n',
    "exec form not closed": 'FROM alpine\nCMD ["a"\n',
    "NaN is no JSON": "FROM alpine\nCMD [NaN]\n",
    "tab in a JSON string": 'FROM alpine\nCMD ["a\tb"]\n',
    "json copy": 'FROM alpine\nCOPY ["a b", "c d/"]\nADD ["x", "y"]\n',
    "json volume": 'FROM alpine\nVOLUME ["/a b", "/c"]\nVOLUME /d /e\n',
    "shell": 'FROM alpine\nSHELL ["/bin/bash", "-c"]\n',
    "env": "FROM alpine\nENV a=b c=\"d e\" f='g h' i=j\\ k l=\n",
    "env old form": "FROM alpine\nENV a b  c\nENV d\te\nLABEL x   y z \n",
    "env old form with an equals sign later": "FROM alpine\nENV a b=c\n",
    "env with quotes inside": "FROM alpine\nENV a=b\"c d\"e'f g'\n",
    "env with a quote in quotes": "FROM alpine\nENV a=\"b'c\" d='e\"f' g=\"h\\\"i j\"\n",
    "env with an open quote": "FROM alpine\nENV a=\"b c=d\n",
    "env over lines": "FROM alpine\nENV a=b \\\n    c=d \\\n    # no\n    e=f\n",
    "env ending in an escape": "FROM alpine\nENV a=b c=d\\\\\n",
    "env quoted name": "FROM alpine\nENV \"a b\"=c\n",
    "label": 'FROM alpine\nLABEL "com.example"="x" a.b="multi \\\n line" c=d\n',
    "arg": "ARG a=b\nFROM alpine\nARG c\nARG d=e f g='h i'\n",
    "expose": "FROM alpine\nEXPOSE 80 443/tcp  8000-8010/udp $PORT\n",
    "user, workdir": "FROM alpine\nUSER a:b\nWORKDIR /a b\n",
    "stopsignal, maintainer": "FROM alpine\nSTOPSIGNAL SIGINT\nMAINTAINER a <b@c>\n",
    "healthcheck": "FROM alpine\nHEALTHCHECK --interval=5m --timeout=3s CMD curl -f x || exit 1\nHEALTHCHECK NONE\n",
    "healthcheck exec form": 'FROM alpine\nHEALTHCHECK --retries=3 CMD  ["a", "b"]\nhealthcheck cmd x\n',
    "onbuild": "FROM alpine\nONBUILD RUN a b\nONBUILD COPY a b\nONBUILD ENV a=b c=d\nonbuild arg x\n",
    "onbuild exec form of the trigger": 'FROM alpine\nONBUILD CMD ["a", "b"]\n',
    "heredoc": "FROM alpine\nRUN <<EOF\necho a\n  echo b \\\n# kept\n\nEOF\nRUN c\n",
    "heredocs, several": "FROM alpine\nRUN cat <<A <<B > x\na\nA\nb\nB\nRUN c\n",
    "heredoc with tabs": "FROM alpine\nRUN <<-EOF\n\ta\n\t\tb\n\tEOF\nRUN c\n",
    "heredoc quoted": "FROM alpine\nRUN <<'EOF' cat\n$a\nEOF\nRUN <<\"X\" cat\nb\nX\nRUN <<E\"O\"F\nc\nEOF\n",
    "heredoc with a number": "FROM alpine\nRUN 3<<EOF cat <&3\na\nEOF\n",
    "heredoc of copy": "FROM alpine\nCOPY <<a.txt <<b.txt /x/\na\na.txt\nb\nb.txt\nADD <<c /d\nx\nc\n",
    "heredoc with crlf": "FROM alpine\r\nRUN <<EOF\r\na\r\nEOF\r\n",
    "heredoc at the end without a line end": "FROM alpine\nRUN <<EOF\na\nEOF",
    "heredoc in quotes": "FROM alpine\nRUN echo '<<EOF'\nRUN echo \"<<EOF\"\n",
    "heredoc escaped": "FROM alpine\nRUN echo \\<<EOF\nRUN b\n",
    "here-string": "FROM alpine\nRUN cat <<<EOF\n",
    "shift": "FROM alpine\nRUN echo $((1 << 2)) $((1<<2))\nRUN a\n",
    "no heredoc in exec form": 'FROM alpine\nRUN ["a", "<<EOF"]\n',
    "no heredoc in other instructions": "FROM alpine\nCMD cat <<EOF\nENV a=<<EOF\n",
    "heredoc of onbuild": "FROM alpine\nONBUILD RUN <<EOF\na\nEOF\nONBUILD COPY <<X /y\nb\nX\n",
    "heredoc over a continuation": "FROM alpine\nRUN a \\\n <<EOF \\\n b\nx\nEOF\n",
    "open quote hides a heredoc": "FROM alpine\nRUN echo ' <<EOF\n",
    "heredoc name with a dollar": "FROM alpine\nRUN <<$X\na\n$X\n",
    "heredoc named by an escape": "FROM alpine\nRUN <<E\\OF\na\nEOF\n",
    "heredoc whose name comes twice": "FROM alpine\nRUN <<A <<A\n1\nA\n2\nA\n",
    "heredoc whose end has blanks": "FROM alpine\nRUN <<A\nA \n A\nA\n",
    "unicode": "FROM alpine\nLABEL a=\"é ü\" b=漢字\nRUN echo ☃\n",
    "unicode blank between words": "FROM alpine\nENV a=b\u2003c=d\n",
    "hash inside": "FROM alpine\nRUN echo a # b\nRUN echo \\# c\n",
    "variables": "FROM a:${b:-c}\nCOPY ${d}/e $f/\nWORKDIR ${g:+/h}\n",
    "multi-stage": "FROM a AS b\nRUN x\nFROM b AS c\nCOPY --from=b --chown=1:2 --link /x /y\n",
    "exclude": "FROM a\nCOPY --exclude=*.a --exclude=b --parents x y /z/\n",
    "add": "FROM a\nADD --keep-git-dir=true --checksum=sha256:1 x y\n",
}  # fmt: skip


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_both_read_the_same(oracle: Oracle, text: str) -> None:
    """Names, flags, words, exec forms, heredocs and lines of every instruction are what BuildKit has."""
    assert ours(text) == oracle.parse(text)


REFUSED = {
    "nothing": "",
    "comments only": "# a\n\n# b\n",
    "escape twice": "# escape=`\n# escape=\\\nFROM alpine\n",
    "escape with another character": "# escape=x\nFROM alpine\n",
    "env without a value": "FROM alpine\nENV a\n",
    "env without an equals sign": "FROM alpine\nENV a=b c\n",
    "label without a value": "FROM alpine\nLABEL a\n",
    "numbers in an exec form": "FROM alpine\nCMD [1]\n",
    "an array in an exec form": 'FROM alpine\nRUN [["a"]]\n',
    "null in an exec form": 'FROM alpine\nCOPY ["a", null]\n',
    "numbers in the exec form of a healthcheck": "FROM alpine\nHEALTHCHECK CMD [1]\n",
    "a heredoc without end": "FROM alpine\nRUN <<EOF\na\n",
    "a heredoc of onbuild without end": "FROM alpine\nONBUILD RUN <<EOF\na\n",
    "the second heredoc without end": "FROM alpine\nRUN <<A <<B\nA\n",
    "an exec form with numbers in a trigger": "FROM alpine\nONBUILD CMD [1]\n",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_both_refuse(oracle: Oracle, text: str) -> None:
    """What BuildKit cannot read is an error here as well."""
    assert isinstance(oracle.parse(text), str)
    assert isinstance(ours(text), str)


# What we say earlier than BuildKit, which refuses it in its second step (frontend/dockerfile/instructions).
LATER = {
    "unknown instruction": "FROM alpine\nRUNN a\n",
    "a continuation of nothing is an instruction without a name": "FROM alpine\n\\\nx\n",
    "unknown trigger": "FROM alpine\nONBUILD RUNN a\n",
    "run without a command": "FROM alpine\nRUN\n",
    "arg without a name": "FROM alpine\nARG\n",
    "shell in shell form": "FROM alpine\nSHELL sh -c\n",
    "healthcheck without a kind": "FROM alpine\nHEALTHCHECK\n",
    "healthcheck of another kind": "FROM alpine\nHEALTHCHECK FOO a\n",
    "copy without a destination": "FROM alpine\nCOPY a\n",
    "unknown flag": "FROM alpine\nCOPY --form=a b c\n",
    "flag without a value": "FROM alpine\nCOPY --from a b\n",
    "flag twice": "FROM alpine\nCOPY --from=a --from=b c d\n",
    "bad name of a stage": "FROM alpine AS 1\n",
    "from with two words": "FROM alpine x\n",
}


@pytest.mark.parametrize("text", LATER.values(), ids=LATER)
def test_we_refuse_at_once_what_buildkit_refuses_later(oracle: Oracle, text: str) -> None:
    """The oracle is BuildKit's first step only; these are errors of its second."""
    assert not isinstance(oracle.parse(text), str)
    assert isinstance(ours(text), str)


# Where we differ, and why.
DIFFERENT = {
    # BuildKit looks at a flag's bytes one by one as if they were Latin-1, and makes é into Ã©.
    "letters in a flag stay what they are": "FROM alpine\nRUN --mount=type=bind,target=/é a\n",
    # Since 0.22 BuildKit reads `<< EOF` as a heredoc (moby/buildkit#5817); the oracle is older.
    "a heredoc with a blank": "FROM alpine\nRUN cat << EOF\nUSER a\nEOF\n",
    # The oracle takes the first JSON value of a line; BuildKit has since asked for nothing behind it, as we do.
    "an exec form and more": 'FROM alpine\nCMD ["a"] b\n',
    # BuildKit reads an empty line that only a \ precedes as an instruction without a name, and refuses it later.
    "a lone continuation character is nothing": "FROM alpine\n\\\n\n",
}


@pytest.mark.parametrize("text", DIFFERENT.values(), ids=DIFFERENT)
def test_known_differences(oracle: Oracle, text: str) -> None:
    """Each of them reads well here and is a mistake there; should BuildKit change, this test says so."""
    assert not isinstance(ours(text), str)
    assert ours(text) != oracle.parse(text)


NAMES = (
    "RUN", "COPY", "ENV", "CMD", "LABEL", "ARG", "VOLUME", "HEALTHCHECK CMD", "HEALTHCHECK", "ONBUILD RUN", "ONBUILD",
    "USER", "EXPOSE", "SHELL", "ADD", "ENTRYPOINT", "run", "  RUN", "# escape=`", "# x", "", "A", "\tA",
)  # fmt: skip
WORDS = (
    " ", " ", " ", " ", "\t", "\r", "\n", "\r\n", "\\\n", "\\\n", "\\ \n", "\\", "\\\\", "#", "\\\n# c\n", "\\\n\n",
    "a", "b", "A", "=", "a=b", "c=", "'", '"', "'a b'", '"a b"', "<<", "<<A", "<<-A", "<<'A'", '<<"A"', "<<A <<B",
    "\nA\n", "\n\tA\n", "\nB\n", "<", "3", "$", "${", "}", "$a", "${a:-b}", "${a#b}", "--", "--x=y", "--network=none",
    "--link", "[", "]", '["a"]', '["a", "b"]', ",", "[1]", "`", "`\n", "CMD", "NONE", "é", "\u2003", "\x1c", "\f",
    "/a", "RUN",
)  # fmt: skip
LINES = st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(WORDS), max_size=10).map("".join)).map(" ".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(LINES, max_size=5))
@example(lines=["RUN <<A", "\\", "A"])
def test_anything_reads_the_same(oracle: Oracle, lines: list[str]) -> None:
    """What both can read they read alike; what BuildKit refuses we refuse, and the other way round with a reason."""
    text = "\n".join(["FROM x", *lines])
    assume(not NEWER.search(text))
    theirs = oracle.parse(text)
    mine = ours(text)
    if isinstance(theirs, str):
        assert isinstance(mine, str), theirs
    elif isinstance(mine, str):
        assert any(reason in mine for reason in SECOND_STEP), mine
    else:
        assert mine == [found for found in theirs if found["name"]]  # lone continuation characters, see DIFFERENT


# What newer BuildKits read otherwise than the oracle, see DIFFERENT.
NEWER = re.compile(r"<<-?[\s\\`]|\][^\n]*\S|--[^\n]*[^\x00-\x7f]|#[^\n]*syntax")

# Beginnings of what we say of files that the oracle can read: all of BuildKit's second step.
SECOND_STEP = (
    "unknown instruction", "needs", "has no flag", "is given twice", "cannot be the name", "it takes an image",
    "begins with CMD or NONE", "it is a JSON array", "the name is empty", "RUN [] starts nothing", "takes nothing else",
    "cannot be a trigger", "heredoc", "is unknown", "is neither true nor false", "the destination",
)  # fmt: skip


def test_the_oracle_is_needed_by_nothing_but_tests() -> None:
    """The parser loads no Go: `dockerfile` here is our module."""
    assert dockerfile.__name__ == "pyrun.rootfs.build.dockerfile"
