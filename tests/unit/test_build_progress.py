# SPDX-License-Identifier: Apache-2.0
"""Progress: BuildKit's plain form, its JSON, and the lines of the live view."""

from __future__ import annotations

import base64
import io
import json
import re

from pyrun.runtime.engine.build.live import Live
from pyrun.runtime.engine.build.progress import LAST_LINES, Plain, Progress, RawJson


def plain() -> tuple[Plain, list[str]]:
    """A progress, and what it writes with times as T."""
    lines: list[str] = []

    def write(text: str) -> None:
        lines.extend(re.sub(r"\d+\.\d+", "T", text).splitlines())

    return Plain(write), lines


def test_plain() -> None:
    """Numbers in order of beginning; output by lines, whatever the pieces; an end for every step."""
    progress, lines = plain()
    one, two = progress.vertex("[1/2] FROM a"), progress.vertex("[2/2] RUN b\nc")
    one.cached()
    two.start()
    two.log("stdout", b"hel")
    two.log("stderr", b"oops\n")
    two.log("stdout", b"lo\nrest")
    two.done()
    assert lines == [
        "#1 [1/2] FROM a", "#1 CACHED", "",
        "#2 [2/2] RUN b c", "#2 T oops", "#2 T hello", "#2 T rest", "#2 DONE Ts", "",
    ]  # fmt: skip


def test_plain_switches_between_steps() -> None:
    """Lines of two steps at a time: each switch says whose they are."""
    progress, lines = plain()
    one, two = progress.vertex("one"), progress.vertex("two")
    one.start()
    two.start()
    one.log("stdout", b"1\n")
    one.error("exit code: 3\nand more")
    two.cancel()
    assert lines == [
        "#1 one", "#1 ...", "", "#2 two", "#2 ...", "", "#1 one", "#1 T 1", "#1 ERROR: exit code: 3 and more", "",
        "#2 two", "#2 CANCELED", "",
    ]  # fmt: skip


def test_end_is_said_once() -> None:
    """done() after error() changes nothing."""
    progress, lines = plain()
    vertex = progress.vertex("x")
    vertex.error("bad")
    vertex.done()
    assert lines[-2:] == ["#1 ERROR: bad", ""]
    assert vertex.failure == "bad"


def test_tail_and_endless_lines() -> None:
    """Only the last lines are remembered, and a line without end does not grow for ever."""
    vertex = Progress().vertex("x")
    vertex.log("stdout", b"".join(b"%d\n" % n for n in range(100)))
    assert vertex.tail == [str(n) for n in range(100 - LAST_LINES, 100)]
    vertex.log("stdout", b"x" * 200_000)
    assert len(vertex.tail[-1]) == 200_000
    vertex.log("stdout", b"y\n")
    assert vertex.tail[-1] == "y"


def test_rawjson() -> None:
    """Each line is an object as BuildKit's SolveStatus; output is base64."""
    out = io.StringIO()
    progress = RawJson(out.write)
    vertex = progress.vertex("RUN x")
    vertex.log("stderr", b"caf\xc3\xa9\n")
    vertex.error("exit code: 1")
    begin, log, end = (json.loads(line) for line in out.getvalue().splitlines())
    assert begin["vertexes"][0]["name"] == "RUN x"
    assert base64.b64decode(log["logs"][0]["data"]).decode() == "café\n"
    assert log["logs"][0]["stream"] == 2
    assert (end["vertexes"][0]["error"], end["vertexes"][0]["digest"]) == (
        "exit code: 1",
        begin["vertexes"][0]["digest"],
    )


def test_live_final_view() -> None:
    """Short builds print their final view alone: no drawing, no escape of a step's output."""
    out = io.StringIO()
    live = Live(out)
    vertex = live.vertex("[1/1] RUN \x1b[31mred")
    vertex.log("stdout", b"\x1b[2Jgone\n")
    vertex.done()
    live.close()
    live.close()
    text = re.sub(r"\x1b\[\d*m", "", out.getvalue())
    assert text.splitlines()[0].endswith("(1/1) FINISHED")
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
