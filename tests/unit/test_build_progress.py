# SPDX-License-Identifier: Apache-2.0
"""Progress: BuildKit's plain form, its JSON, and the lines of the live view."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import tracemalloc

from pyrun.runtime.engine.build.live import Live
from pyrun.runtime.engine.build.progress import (
    LAST_BYTES,
    LAST_LINES,
    MAX_LINE,
    MAX_OUTPUT,
    Plain,
    Progress,
    RawJson,
)


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
    assert [len(line) for line in vertex.tail[-3:]] == [MAX_LINE] * 3
    vertex.log("stdout", b"y\n")
    assert vertex.tail[-1] == "x" * (200_000 % MAX_LINE) + "y"


def test_a_step_shows_no_more_than_a_limit() -> None:
    """The first 2 MiB, that there was more, how much; a report of the failure has the last lines all the same."""
    progress, lines = plain()
    vertex = progress.vertex("x")
    line = b"y" * 99 + b"\n"
    for _ in range(50):
        vertex.log("stdout", line * 1000)
    vertex.log("stderr", b"".join(b"%d\n" % n for n in range(100)))
    assert vertex.tail == [str(n) for n in range(100 - LAST_LINES, 100)]
    vertex.error("exit code: 1")
    assert sum(len(text.split(" ", 2)[2]) + 1 for text in lines if text.endswith("y")) == MAX_OUTPUT + 1
    assert lines[-4:] == [
        "#1 output clipped, 2 MiB reached", "#1 TMiB of output left out", "#1 ERROR: exit code: 1", ""
    ]  # fmt: skip
    assert vertex.left_out == 5_000_000 + 290 - MAX_OUTPUT


def test_what_fits_is_shown_whole() -> None:
    """Nothing is said of a limit that was not reached."""
    progress, lines = plain()
    vertex = progress.vertex("x")
    vertex.log("stdout", b"y" * (MAX_OUTPUT - 1) + b"\n")
    vertex.done()
    assert sum(line.count("y") for line in lines) == MAX_OUTPUT - 1
    assert not [line for line in lines if "clipped" in line or "left out" in line]


def test_a_line_of_300_mb_takes_neither_memory_nor_time() -> None:
    """No newline ever comes: what is kept is bounded, and looking at it does not become slower."""
    progress = Progress()
    vertex = progress.vertex("x")
    data = b"x" * 65536
    begin = time.process_time()
    tracemalloc.start()
    for _ in range(300_000_000 // len(data)):
        vertex.log("stdout", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_OUTPUT
    assert time.process_time() - begin < 5
    assert sum(map(len, vertex.tail)) <= LAST_LINES * MAX_LINE + LAST_BYTES
    vertex.done()


def test_a_line_written_a_byte_at_a_time() -> None:
    """What has come so far is not copied for every byte."""
    vertex = Progress().vertex("x")
    begin = time.process_time()
    for _ in range(300_000):
        vertex.log("stdout", b"x")
    assert time.process_time() - begin < 3
    assert len(vertex.tail) == 300_000 // MAX_LINE


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
