# SPDX-License-Identifier: Apache-2.0
"""What instructions make of an image's config and history, as docker's documentation says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builds import Builds
from requires import requires

if TYPE_CHECKING:
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def build(pyrun: Pyrun, base_image: str, tmp_path: Path) -> Builds:
    """Builds on the session's roots, where busybox:latest is."""
    return Builds(pyrun, tmp_path)


def test_env_keeps_its_order_and_sees_the_values_before_the_instruction(build: Builds) -> None:
    """ENV a=1 b=$a gives b the old a; a variable that is set again keeps its place."""
    made = build('FROM busybox\nENV a=old\nENV a=new b=$a c="two words" d=${nothing:-x}\nENV legacy two words\n')
    assert made.config["Env"] == [PATH, "a=new", "b=old", "c=two words", "d=x", "legacy=two words"]
    assert made.history[-1] == "ENV legacy=two words"


def test_arg_scopes(build: Builds) -> None:
    """ARG before FROM is for FROM; a stage sees it after an ARG without a value; --build-arg wins; ENV hides ARG."""
    made = build(
        "ARG BASE=busybox\nARG V=1\nFROM $BASE\nARG V\nARG W=w\nARG X=default\nARG HIDDEN=arg\nENV HIDDEN=env\n"
        "RUN echo $V-$W-$X-$HIDDEN-$BASE > /out\nLABEL v=$V h=$HIDDEN\n",
        "--build-arg", "X=given",
    )  # fmt: skip
    assert build.sh(made.id, "cat /out") == "1-w-given-env-"
    assert made.config["Labels"] == {"v": "1", "h": "env"}
    assert not any(item.startswith("V=") for item in made.config["Env"])


def test_predefined_arguments(build: Builds) -> None:
    """TARGETARCH and its like are there after an ARG; proxies are there without one, and in no history."""
    made = build(
        "FROM busybox\nARG TARGETPLATFORM TARGETARCH BUILDOS\nRUN echo $TARGETPLATFORM $BUILDOS > /out; "
        "echo proxy=$HTTP_PROXY\n",
        "--build-arg", "HTTP_PROXY=http://secret@proxy:1",
    )  # fmt: skip
    arch = made.document["architecture"]
    assert build.sh(made.id, "cat /out") == f"linux/{arch} linux"
    assert "proxy=http://secret@proxy:1" in made.err
    assert not any("secret" in line for line in made.history)


def test_entrypoint_drops_the_cmd_of_the_base(build: Builds) -> None:
    """ENTRYPOINT takes the base's CMD away, but not the one that this stage has set before."""
    assert "Cmd" not in build("FROM busybox\nENTRYPOINT top\n").config
    made = build('FROM busybox\nCMD ["a"]\nENTRYPOINT ["b"]\n')
    assert (made.config["Cmd"], made.config["Entrypoint"]) == (["a"], ["b"])


def test_shell_forms(build: Builds) -> None:
    """CMD, ENTRYPOINT and RUN in shell form are run by SHELL."""
    made = build('FROM busybox\nSHELL ["/bin/sh", "-e", "-c"]\nCMD echo hi\n')
    assert made.config["Cmd"] == ["/bin/sh", "-e", "-c", "echo hi"]
    assert made.config["Shell"] == ["/bin/sh", "-e", "-c"]
    build.fails('FROM busybox\nSHELL ["/bin/sh", "-e", "-c"]\nRUN false; true\n')


def test_the_small_instructions(build: Builds) -> None:
    """EXPOSE, VOLUME, USER, STOPSIGNAL, WORKDIR, LABEL, MAINTAINER, HEALTHCHECK, ONBUILD."""
    made = build(
        "FROM busybox\nARG P=8080\nEXPOSE $P 53/udp 9000-9001\nVOLUME /data [x]\nVOLUME [\"/a b\"]\nUSER 1000:1000\n"
        "STOPSIGNAL SIGINT\nWORKDIR /a/b\nWORKDIR c\nWORKDIR ../d\nLABEL a=1 \"b c\"=\"d e\"\nMAINTAINER somebody\n"
        "HEALTHCHECK --interval=5s --retries=3 --start-period=1m CMD curl -f http://localhost/\n"
        "ONBUILD RUN echo $x\n",
        "--label", "from=flag",
    )  # fmt: skip
    config = made.config
    assert sorted(config["ExposedPorts"]) == ["53/udp", "8080/tcp", "9000/tcp", "9001/tcp"]
    assert sorted(config["Volumes"]) == ["/a b", "/data", "[x]"]
    assert (config["User"], config["StopSignal"], config["WorkingDir"]) == ("1000:1000", "SIGINT", "/a/b/d")
    assert config["Labels"] == {"a": "1", "b c": "d e", "from": "flag"}
    assert made.document["author"] == "somebody"
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "curl -f http://localhost/"],
        "Interval": 5 * 10**9,
        "StartPeriod": 60 * 10**9,
        "Retries": 3,
    }
    assert config["OnBuild"] == ["RUN echo $x"]


def test_user_that_is_only_a_group(build: Builds) -> None:
    """`USER :5` is root with group 5, for a RUN and for the directory that WORKDIR makes."""
    build(
        "FROM busybox\nUSER :5\nWORKDIR /made\n"
        'RUN test "$(id -u):$(id -g)" = 0:5\nRUN test "$(stat -c %u:%g .)" = 0:5\n'
    )


def test_healthcheck_none(build: Builds) -> None:
    """HEALTHCHECK NONE takes the base's away."""
    assert build("FROM busybox\nHEALTHCHECK NONE\n").config["Healthcheck"] == {"Test": ["NONE"]}


def test_onbuild_triggers_run_after_from_and_are_not_inherited(build: Builds) -> None:
    """A base's triggers are the first instructions of the stage; the new image has them no more."""
    build("FROM busybox\nONBUILD ENV triggered=yes\nONBUILD COPY x /x\nONBUILD RUN echo ran > /ran\n", "-t", "trig:1")
    made = build("FROM trig:1\nRUN cat /ran > /seen\n", files={"x": "content"})
    assert build.sh(made.id, "cat /x /seen") == "contentran"
    assert "triggered=yes" in made.config["Env"]
    assert "OnBuild" not in made.config


def test_workdir_makes_a_directory_of_the_user(build: Builds) -> None:
    """The directory belongs to USER; one that is there makes no layer."""
    made = build("FROM busybox\nUSER 1234\nWORKDIR /new/deep\nWORKDIR /tmp\n")
    assert build.sh(made.id, "stat -c %u:%a /new/deep") == "1234:755"
    layers = [item for item in made.document["history"] if not item.get("empty_layer")]
    assert len(layers) == len(made.document["rootfs"]["diff_ids"]) == 2


def test_from_scratch(build: Builds) -> None:
    """FROM scratch: an image of the files alone, with docker's PATH and working directory."""
    made = build('FROM scratch\nCOPY a /a\nCMD ["/a"]\n', files={"a": "x"})
    assert made.config == {"Env": [PATH], "Cmd": ["/a"], "WorkingDir": "/"}
    assert len(made.document["rootfs"]["diff_ids"]) == 1
    assert made.document["os"] == "linux"


def test_history_and_layers_fit(build: Builds) -> None:
    """Every layer has a line of history, and every line has a time that is not before the one above."""
    made = build("FROM busybox\nENV a=1\nRUN echo 1 > /1\nLABEL x=y\nCOPY f /f\nCMD true\n", files={"f": "1"})
    entries = made.document["history"]
    assert sum(1 for item in entries if not item.get("empty_layer")) == len(made.document["rootfs"]["diff_ids"])
    times = [item["created"] for item in entries]
    assert times == sorted(times)
    assert made.document["created"] == times[-1]
    assert made.history[-5:] == [
        "ENV a=1", "RUN /bin/sh -c echo 1 > /1", "LABEL x=y", "COPY f /f", 'CMD ["/bin/sh" "-c" "true"]',
    ]  # fmt: skip


def test_run_forms(build: Builds) -> None:
    """RUN in shell form, exec form, as a heredoc of commands, as one with a shebang, with heredocs for programs."""
    made = build(
        "FROM busybox\nRUN echo shell > /1\n"
        'RUN ["sh", "-c", "echo exec > /2"]\n'
        "RUN <<EOF\necho here > /3\necho doc >> /3\nEOF\n"
        'RUN <<EOF\n#!/bin/busybox sh\necho "$0" > /4\nEOF\n'
        "RUN cat <<A > /5; cat <<-B >> /5\none\nA\n\ttwo\nB\n"
    )
    assert build.sh(made.id, "cat /1 /2 /3 /4 /5").split() == [
        "shell",
        "exec",
        "here",
        "doc",
        "/dev/pipes/EOF",
        "one",
        "two",
    ]


def test_copy_heredocs_and_owners(build: Builds) -> None:
    """COPY of heredocs expands variables unless the name is quoted; --chown and --chmod apply."""
    made = build(
        "FROM busybox\nENV n=world\nRUN echo 'app:x:77:78::/:/bin/sh' >> /etc/passwd; echo 'grp:x:79:' >> /etc/group\n"
        "COPY --chmod=640 --chown=app:grp <<one <<'two' /files/\nhello $n\none\nraw $n\ntwo\n"
        "COPY --chown=55 f /f\n",
        files={"f": "x"},
    )
    assert build.sh(made.id, "cat /files/one /files/two") == "hello world\nraw $n"
    assert build.sh(made.id, "stat -c %u:%g:%a /files/one /f") == "77:79:640\n55:55:644"
