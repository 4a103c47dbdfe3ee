# SPDX-License-Identifier: Apache-2.0
"""The command line's conventions: docker's."""

from __future__ import annotations

import pytest

from pyrun.runtime.cli.flags import LIST, SWITCH, Args, Command, Flag, parse
from pyrun.runtime.cli.values import between
from pyrun.runtime.errors import UsageError

FLAGS = (
    Flag("detach", "d", SWITCH),
    Flag("interactive", "i", SWITCH),
    Flag("tty", "t", SWITCH),
    Flag("sig-proxy", "", SWITCH, default=True),
    Flag("publish", "p", LIST),
    Flag("name"),
    Flag("network", aliases=("net",)),
    Flag("memory", "m"),
    Flag("timeout", parse=between(0, 60)),
    Flag("gpus", refused="pass the devices with --device"),
)


def nothing(args: Args, ctx: object) -> int:
    raise AssertionError("a parser runs nothing")


RUN = Command("run", "IMAGE [COMMAND]", "", nothing, FLAGS, least=1, stops_at_argument=True)
STOP = Command("stop", "CONTAINER", "", nothing, FLAGS, least=1)
PS = Command("ps", "", "", nothing, FLAGS, most=0)


@pytest.mark.parametrize(
    ("words", "flags", "arguments"),
    [
        ("image", {}, ["image"]),
        ("-d image", {"detach": True}, ["image"]),
        ("-dit image", {"detach": True, "interactive": True, "tty": True}, ["image"]),
        ("--detach=false image", {"detach": False}, ["image"]),
        ("--sig-proxy=false image", {"sig-proxy": False}, ["image"]),
        ("--name web image", {"name": "web"}, ["image"]),
        ("--name=web image", {"name": "web"}, ["image"]),
        ("--name= image", {"name": ""}, ["image"]),
        ("--name=a=b image", {"name": "a=b"}, ["image"]),
        ("-p 80 image", {"publish": ["80"]}, ["image"]),
        ("-p80 image", {"publish": ["80"]}, ["image"]),
        ("-p=80 image", {"publish": ["80"]}, ["image"]),
        ("-dp 80 image", {"detach": True, "publish": ["80"]}, ["image"]),
        ("-dp80:80 image", {"detach": True, "publish": ["80:80"]}, ["image"]),
        ("-d=false image", {"detach": False}, ["image"]),
        ("-p 80 -p 81 --publish=82 image", {"publish": ["80", "81", "82"]}, ["image"]),
        ("--name a --name b image", {"name": "b"}, ["image"]),
        ("--name -d image", {"name": "-d"}, ["image"]),
        ("--net host image", {"network": "host"}, ["image"]),
        ("image -d --name x", {}, ["image", "-d", "--name", "x"]),
        ("-d image -- sh -c x", {"detach": True}, ["image", "--", "sh", "-c", "x"]),
        ("-d -- image -t", {"detach": True}, ["image", "-t"]),
        ("- x", {}, ["-", "x"]),
        ("--timeout 30 image", {"timeout": 30}, ["image"]),
    ],
)
def test_run_takes_flags_up_to_the_image(words: str, flags: dict[str, object], arguments: list[str]) -> None:
    """Everything before the image is a flag in any of docker's spellings; everything after it is the command's."""
    args = parse(RUN, words.split(" "))
    assert args.flags == flags
    assert args.arguments == arguments


def test_other_commands_take_flags_anywhere() -> None:
    """`pyrun stop web --name x other` knows the flag between two arguments."""
    args = parse(STOP, ["web", "--name", "x", "other"])
    assert args.arguments == ["web", "other"]
    assert args.text("name") == "x"


def test_defaults() -> None:
    """A flag that is not given has its default; a list is empty."""
    args = parse(RUN, ["image"])
    assert args.on("sig-proxy")
    assert not args.on("detach")
    assert args.text("name") == ""
    assert args.value("timeout") is None
    assert args.many("publish") == []
    assert not args.given("sig-proxy")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--nam x image", "run: unknown flag --nam", "did you mean --name?"),
        ("--detatch image", "run: unknown flag --detatch", "did you mean --detach?"),
        ("--nme=x image", "run: unknown flag --nme", "did you mean --name?"),
        ("-x image", "run: unknown flag -x", "pyrun run --help lists the flags"),
        ("-dx image", "run: unknown flag -x in -dx", ""),
        ("-name x image", "run: unknown flag -n in -name", "did you mean --name?"),
        ("--name", "run: flag --name: needs a value", "pyrun run --help lists the flags"),
        ("-d -p", "run: flag -p: needs a value", ""),
        ("-d=maybe image", "flag -d=maybe: it is on or off", "use -d=true or -d=false"),
        ("--timeout 61 image", "flag --timeout '61': it must be between 0 and 60", ""),
        ("--timeout 1_0 image", "flag --timeout '1_0': '1_0' is not a number", ""),
        ("--gpus all image", "flag --gpus: pyrun does not have it", "pass the devices with --device"),
        ("-d", "run: needs at least 1 argument", "pyrun run [OPTIONS] IMAGE [COMMAND]"),
    ],
)
def test_mistakes_are_one_line_with_a_hint(words: str, message: str, hint: str) -> None:
    """Unknown flags name the nearest one; missing values and arguments are said; the exit code is 125."""
    with pytest.raises(UsageError) as caught:
        parse(RUN, words.split(" "))
    assert str(caught.value) == message
    assert hint in caught.value.hint
    assert caught.value.code == 125


def test_a_command_without_arguments_refuses_one() -> None:
    """`pyrun ps web` is a mistake, not a filter."""
    with pytest.raises(UsageError, match="ps: takes no arguments, got 'web'"):
        parse(PS, ["web"])
