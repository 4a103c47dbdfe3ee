# SPDX-License-Identifier: Apache-2.0
"""The checks of `build --check`: what each finds, what it leaves alone, and how they are chosen."""

from __future__ import annotations

import pytest

from pyrun.rootfs.build import lint
from pyrun.rootfs.build.dockerfile import DockerfileError, parse
from pyrun.rootfs.build.ignore import Ignore
from pyrun.rootfs.build.nearest import distance, nearest


def findings(text: str, ignore: str = "", known: dict[str, dict[str, str]] | None = None) -> list[tuple[str, int]]:
    """(rule, line) of every finding. `known`: the environments of base images."""
    file = parse(text.encode())
    rules = Ignore.parse(ignore) if ignore else None
    return [
        (found.rule, found.line)
        for found in lint.check(file, ignore=rules, environment=known.get if known is not None else None)
    ]


# rule: (what it finds, and in which lines), (what it leaves alone)
CASES: dict[str, tuple[list[tuple[str, list[int]]], list[str]]] = {
    "StageNameCasing": (
        [("FROM a AS Base\n", [1]), ("FROM a AS b\nFROM c AS D\n", [2])],
        ["FROM a AS base\n", "FROM A\n"],
    ),
    "FromAsCasing": (
        [("FROM a as b\n", [1]), ("from a AS b\n", [1]), ("FROM a As b\n", [1])],
        ["FROM a AS b\n", "from a as b\n", "From a as b\n"],
    ),
    "NoEmptyContinuation": (
        [("FROM a\nRUN x \\\n\n  y\n", [4])],
        ["FROM a\nRUN x \\\n# z\n  y\n", "FROM a\n\nRUN x\n"],
    ),
    "ConsistentInstructionCasing": (
        [("FROM a\nrun x\n", [2]), ("from a\nrun x\nCMD [\"y\"]\n", [3]), ("FROM a\nRun x\n", [2])],
        ["FROM a\nRUN x\n", "from a\nrun x\n", "arg x=y\nFROM a\nRUN x\n"],
    ),
    "DuplicateStageName": (
        [("FROM a AS b\nFROM c AS b\n", [2]), ("FROM a AS b\nFROM c AS B\n", [2])],
        ["FROM a AS b\nFROM c AS d\n", "FROM a\nFROM a\n"],
    ),
    "ReservedStageName": (
        [("FROM a AS scratch\n", [1]), ("FROM a AS context\n", [1])],
        ["FROM scratch AS a\n"],
    ),
    "JSONArgsRecommended": (
        [("FROM a\nCMD x\n", [2]), ("FROM a\nENTRYPOINT x\nCMD y\n", [2, 3])],
        ['FROM a\nCMD ["x"]\n', 'FROM a\nSHELL ["bash", "-c"]\nCMD x\n', 'FROM a AS b\nSHELL ["x"]\nFROM b\nCMD x\n',
         "FROM a\nHEALTHCHECK CMD x\nRUN x\n"],
    ),
    "MaintainerDeprecated": ([("FROM a\nMAINTAINER b\n", [2])], ["FROM a\nLABEL maintainer=b\n"]),
    "UndefinedArgInFrom": (
        [("FROM a:$V\n", [1]), ("ARG V=1\nFROM a:${VV}-x\n", [2]), ("FROM --platform=$P a\n", [1]),
         ("FROM a AS b\nARG V=1\nFROM c:$V\n", [3])],
        ["ARG V=1\nFROM a:$V\n", "FROM --platform=$BUILDPLATFORM a\n", "ARG V\nFROM a:${V:-1}\n"],
    ),
    "WorkdirRelativePath": (
        [("FROM a\nWORKDIR b\n", [2]), ("FROM a\nWORKDIR b\nWORKDIR c\n", [2])],
        ["FROM a\nWORKDIR /b\nWORKDIR c\n", "FROM a AS b\nWORKDIR /b\nFROM b\nWORKDIR c\n", "FROM a\nWORKDIR $HOME\n"],
    ),
    "UndefinedVar": (
        [("FROM scratch\nCOPY $a /\n", [2]), ("FROM scratch\nARG v=$a\n", [2]), ("FROM scratch\nENV a=$b\n", [2]),
         ("FROM x\nENV PATH=$PAHT:/x\n", [2]), ("FROM scratch AS a\nARG v=1\nFROM scratch\nLABEL l=$v\n", [4]),
         ("FROM scratch\nRUN --mount=type=cache,target=/$x y\n", [2]), ("FROM scratch\nUSER $u\nWORKDIR /$w\n", [2, 3]),
         ("FROM scratch\nCOPY <<E /x\n$a\nE\n", [2]), ("ARG g=1\nFROM scratch\nLABEL l=$g\n", [3]),
         ("FROM scratch\nENV a=1 b=$a\n", [2]), ("FROM scratch\nLABEL l=$TARGETARCH\n", [2])],
        ["FROM scratch\nARG a\nCOPY $a /\n", "FROM scratch\nENV a=1\nENV b=$a\n", "FROM scratch\nRUN echo $a\n",
         "FROM scratch\nCMD [\"$a\"]\n", "FROM scratch\nENV PATH=$PATH:/x\n",
         "FROM scratch\nARG TARGETARCH\nLABEL l=$TARGETARCH\n",
         "FROM scratch AS a\nARG v=1\nFROM a\nLABEL l=$v\n", "FROM scratch\nCOPY <<'E' /x\n$a\nE\n",
         "FROM x\nENV a=$JAVA_HOME\n",
         "FROM scratch\nLABEL a='$b' c=\\$d\n", "ARG g=1\nFROM scratch\nARG g\nLABEL l=$g\n",
         "FROM scratch\nARG a=1 b=$a\n",
         "FROM scratch\nONBUILD COPY $a /\n"],
    ),
    "MultipleInstructionsDisallowed": (
        [('FROM a\nCMD ["x"]\nCMD ["y"]\n', [2]),
         ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK NONE\nHEALTHCHECK NONE\n", [2, 3])],
        ['FROM a\nCMD ["x"]\nFROM b\nCMD ["y"]\n', 'FROM a\nCMD ["x"]\nENTRYPOINT ["y"]\n'],
    ),
    "LegacyKeyValueFormat": (
        [("FROM a\nENV b c\n", [2]), ("FROM a\nLABEL b c d\n", [2])],
        ["FROM a\nENV b=c\nLABEL d='e f'\n"],
    ),
    "RedundantTargetPlatform": (
        [("FROM --platform=$TARGETPLATFORM a\n", [1]), ("FROM --platform=${TARGETPLATFORM} a\n", [1])],
        ["FROM --platform=$BUILDPLATFORM a\n", "FROM a\n"],
    ),
    "SecretsUsedInArgOrEnv": (
        [("FROM a\nARG AWS_SECRET_ACCESS_KEY\n", [2]), ("FROM a\nENV db_password=x\n", [2]),
         ("ARG TOKEN\nFROM a\n", [1]),
         ("FROM a\nENV a=1 GITHUB_TOKEN=x\n", [2])],
        ["FROM a\nENV MONKEY=x KEYBOARD=y PUBLIC_KEY=z PASSWORD_FILE=f TOKEN_VERSION=3\n", "FROM a\nLABEL token=x\n"],
    ),
    "InvalidDefaultArgInFrom": (
        [("ARG V\nFROM a:$V\n", [2]), ("ARG I\nFROM $I\n", [2]), ("ARG I=A\nFROM $I\n", [2])],
        ["ARG V=1\nFROM a:$V\n", "ARG I\nFROM ${I:-a}\n", "FROM a@sha256:" + "0" * 64 + "\n"],
    ),
    "FromPlatformFlagConstDisallowed": (
        [("FROM --platform=linux/amd64 a\n", [1]), ("FROM --platform=linux/amd64 a AS base\n", [1])],
        ["FROM --platform=linux/amd64 a AS build_amd64\n", "FROM --platform=$BUILDPLATFORM a\n", "FROM a\n"],
    ),
    "ExposeProtoCasing": ([("FROM a\nEXPOSE 80/TCP 81\n", [2])], ["FROM a\nEXPOSE 80/tcp $P/$X\n"]),
    "ExposeInvalidFormat": (
        [("FROM a\nEXPOSE 127.0.0.1:80:80\n", [2]), ("FROM a\nEXPOSE 80:80\n", [2])],
        ["FROM a\nEXPOSE 80 81-90/udp\n"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "text", "lines"), [(rule, text, lines) for rule, (bad, _) in CASES.items() for text, lines in bad]
)
def test_what_a_rule_finds(rule: str, text: str, lines: list[int]) -> None:
    """With the line that should be changed."""
    assert [line for found, line in findings(text) if found == rule] == lines


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, (_, good) in CASES.items() for text in good])
def test_what_a_rule_leaves_alone(rule: str, text: str) -> None:
    """The way that it should be written, and what only looks like the mistake."""
    assert rule not in [found for found, _ in findings(text)]


def test_every_rule_is_known() -> None:
    """CASES and the tests below leave none out; InvalidBaseImagePlatform needs an image and is the build's."""
    elsewhere = {"CopyIgnoredFile", "InvalidDefinitionDescription", "InvalidBaseImagePlatform"}
    assert set(CASES) | elsewhere == set(lint.RULES)


def test_an_image_whose_environment_is_known() -> None:
    """Then a variable is there or it is not; else only what looks misspelt is reported."""
    text = "FROM jdk\nENV a=$JAVA_HOME b=$NOPE\n"
    assert findings(text) == []
    assert findings(text, known={"jdk": {"JAVA_HOME": "/j"}}) == [("UndefinedVar", 2)]
    assert findings(text, known={}) == []


@pytest.mark.parametrize(
    ("copy", "ignore", "expected"),
    [
        ("COPY a /", "a", True), ("COPY a/b /", "a", True), ("COPY ./a /", "a", True), ("COPY b /", "a", False),
        ("ADD a /", "a", True), ("COPY . /", "a", False), ("COPY . /", "*", True), ("COPY --from=x a /", "a", False),
        ("COPY a /", "a\n!a/b", False), ("COPY $a /", "*", False), ("ADD https://x/a /", "**", False),
        ("COPY <<a /\nx\na", "*", False), ("COPY a b /", "b", True),
    ],
)  # fmt: skip
def test_files_that_dockerignore_leaves_out(copy: str, ignore: str, expected: bool) -> None:
    """CopyIgnoredFile; with exceptions in the file it cannot be told without looking."""
    assert (("CopyIgnoredFile", 2) in findings(f"FROM a\n{copy}\n", ignore)) is expected


def test_experimental_rules_are_asked_for() -> None:
    """InvalidDefinitionDescription comes only with experimental=; an empty line makes a comment something else."""
    text = "# the version\nARG V=1\n# base x\nFROM a AS base\n\n# foo\n\nARG B\n# B is it\nARG B\n"
    assert findings(text) == []
    assert findings(f"# check=experimental=all\n{text}") == [("InvalidDefinitionDescription", 3)]
    assert findings(f"# check=experimental=InvalidDefinitionDescription\n{text}") == [
        ("InvalidDefinitionDescription", 3)
    ]


def test_rules_are_left_out() -> None:
    """By the file's directive, by a comment above an instruction, or all of them."""
    text = "FROM a as B\nWORKDIR x\n"
    assert {rule for rule, _ in findings(text)} == {"FromAsCasing", "StageNameCasing", "WorkdirRelativePath"}
    assert findings(f"# check=skip=FromAsCasing, StageNameCasing\n{text}") != []
    assert {rule for rule, _ in findings(f"# check=skip=FromAsCasing,StageNameCasing\n{text}")} == {
        "WorkdirRelativePath"
    }
    assert findings(f"# check=skip=all\n{text}") == []
    assert {rule for rule, _ in findings("FROM a as B\n# check=skip=all\nWORKDIR x\n")} == {
        "FromAsCasing",
        "StageNameCasing",
    }
    assert {rule for rule, _ in findings("\n# hello\n# check=skip=all\nFROM a as B\n\nWORKDIR x\n")} == {
        "WorkdirRelativePath"
    }


def test_findings_can_be_errors() -> None:
    """The file says so; what follows from it is the caller's."""
    assert lint.file_options(parse(b"# check=error=true\nFROM a\n")).error
    assert lint.file_options(parse(b"# check=skip=A,B;error=true\nFROM a\n")) == lint.Options(
        skip=frozenset(("A", "B")), error=True
    )
    assert not lint.file_options(parse(b"FROM a\n")).error


@pytest.mark.parametrize("text", ["nope=1", "skip", "error=maybe", "=x"])
def test_wrong_options_are_an_error_with_their_line(text: str) -> None:
    """Line 2 here."""
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: check: "):
        lint.file_options(parse(f"# syntax=docker/dockerfile\n# check={text}\nFROM a\n".encode()))


def test_messages() -> None:
    """One line with the rule's name and what was probably meant."""
    file = parse(b"ARG VERSION=1\nFROM a:$VERSOIN\nENV PATH=$PTAH\n")
    assert [str(found) for found in lint.check(file)] == [
        "UndefinedArgInFrom: no ARG before it declares 'VERSOIN': did you mean VERSION?",
        "InvalidDefaultArgInFrom: 'a:$VERSOIN' is 'a:', no valid image, without build arguments",
        "UndefinedVar: nothing sets $PTAH: did you mean $PATH?",
    ]


def test_build_arguments_count() -> None:
    """--build-arg gives an ARG its value, and cannot hide that a default is missing."""
    file = parse(b"ARG B\nFROM $B\nARG x\nENV y=$x\n")
    assert [found.rule for found in lint.check(file, build_args={"B": "scratch", "x": "1"})] == [
        "InvalidDefaultArgInFrom"
    ]


def test_a_file_that_cannot_be_built_is_an_error() -> None:
    """Not a finding."""
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: unknown flag|Dockerfile:2: COPY has no flag"):
        lint.check(parse(b"FROM a\nCOPY --x a b\n"))


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("RNU", ["ENV", "RUN"], "RUN"), ("rnu", ["ENV", "RUN"], "run"), ("Rnu", ["RUN"], "RUN"), ("x", ["RUN"], ""),
        ("fo", ["a", "PATH"], ""), ("", ["a"], "a"), ("COPPY", ["COPY"], "COPY"), ("WRKDR", ["WORKDIR"], "WORKDIR"),
    ],
)  # fmt: skip
def test_nearest(word: str, known: list[str], expected: str) -> None:
    """At most two edits, at most half of the word; a swap of neighbours is one."""
    assert nearest(word, known) == expected
    assert distance("kitten", "sitting") == 3
