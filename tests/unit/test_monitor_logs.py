# SPDX-License-Identifier: Apache-2.0
"""The json-file log: its lines, its rotation, and reading it back, also while it is written and rotated."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.monitor import logs
from pyrun.runtime.monitor.logread import Entry, parse, read
from pyrun.runtime.monitor.logs import PART, LogWriter, render, render_rest, timestamp

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000_123_456_789
SECOND = 1_000_000_000


def entries_of(lines: bytes) -> list[Entry]:
    assert not lines or lines.endswith(b"\n")
    found = [parse(line) for line in lines.splitlines()]
    assert None not in found
    return [one for one in found if one is not None]


# ---- lines


def test_the_format_is_dockers() -> None:
    """Three members, in this order, the newline inside, RFC 3339 with nanoseconds in UTC."""
    lines, tail = render(b'say "hi"\\\nnext', "stderr", NOW)
    assert lines == b'{"log":"say \\"hi\\"\\\\\\n","stream":"stderr","time":"2023-11-14T22:13:20.123456789Z"}\n'
    assert tail == b"next"


def test_timestamps_sort_as_text_and_have_one_length() -> None:
    """Also at a whole second: docker drops the zeros, which breaks both."""
    times = [timestamp(ns) for ns in (0, 1, SECOND - 1, SECOND, NOW)]
    assert times == sorted(times)
    assert {len(one) for one in times} == {30}
    assert timestamp(SECOND) == "1970-01-01T00:00:01.000000000Z"


@given(st.lists(st.binary(max_size=50), max_size=8).map(b"\n".join))
def test_every_byte_comes_back(data: bytes) -> None:
    """Control characters, quotes, UTF-8, halves of it, and what never was UTF-8."""
    lines, tail = render(data, "stdout", NOW)
    entries = entries_of(lines + render_rest(tail, "stdout", NOW))
    assert b"".join(one.data for one in entries) == data
    assert all(one.data.endswith(b"\n") for one in entries[:-1])
    assert b"\n" not in tail


@given(st.text(max_size=40), st.integers(0, 3))
def test_lines_are_json_for_others_too(text: str, line_ends: int) -> None:
    """What is UTF-8 is in the line as such: any JSON reader gets the very text."""
    data = text.encode("utf-8", "replace").replace(b"\n", b"") + b"\n" * line_ends
    lines, tail = render(data, "stdout", NOW)
    logged = "".join(json.loads(line)["log"] for line in (lines + render_rest(tail, "stdout", NOW)).split(b"\n")[:-1])
    assert logged.encode() == data


@pytest.mark.parametrize("length", [PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 7])
def test_long_lines_are_split_as_dockers(length: int) -> None:
    """16 KiB an entry, the newline only in the last."""
    data = b"before\n" + b"x" * length + b"\nafter\n"
    entries = entries_of(render(data, "stdout", NOW)[0])
    assert b"".join(one.data for one in entries) == data
    assert all(len(one.data) <= PART + 1 for one in entries)
    assert len(entries) == 2 + length // PART + (1 if length % PART else 0) + (0 if length % PART else 1)


@given(st.lists(st.integers(0, 3 * PART), min_size=1, max_size=6), st.integers(1, 4))
def test_batches_make_the_same_entries_however_they_are_cut(lengths: list[int], batches: int) -> None:
    """The tail of one batch goes before the next: the entries are those of a single batch."""
    data = b"\n".join(b"%d" % (number % 10) * length for number, length in enumerate(lengths))
    whole, whole_tail = render(data, "stdout", NOW)
    step = len(data) // batches + 1
    lines, tail = b"", b""
    for at in range(0, len(data), step):
        more, tail = render(tail + data[at : at + step], "stdout", NOW)
        lines += more
    assert (lines, tail) == (whole, whole_tail)
    assert len(tail) < PART


def test_a_split_does_not_cut_a_character() -> None:
    """A line of 3-byte characters longer than an entry: every entry is valid UTF-8."""
    lines, _ = render("€".encode() * PART + b"\n", "stdout", NOW)
    texts = [json.loads(line)["log"] for line in lines.splitlines()]
    assert set("".join(texts)) == {"€", "\n"}


def test_bytes_that_are_no_utf8_are_readable_by_others() -> None:
    """Lone surrogates in the JSON: valid for its grammar, U+FFFD for whoever decodes strictly."""
    lines, _ = render(b"caf\xe9\n", "stdout", NOW)
    assert lines.startswith(b'{"log":"caf\\udce9\\n"')
    assert lines.isascii()


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"7", b'{"log":1,"stream":"stdout","time":""}', b"\x00" * 9, b'{"lo']
)
def test_a_line_that_is_none_is_left_out(line: bytes) -> None:
    """What a full disk or another program left does not end `pyrun logs`."""
    assert parse(line) is None


def test_a_foreign_surrogate_is_replaced() -> None:
    """A log that another program wrote: \\ud800 stands for no byte."""
    found = parse(b'{"log":"a\\ud800","stream":"stdout","time":"t"}')
    assert found is not None
    assert found.data == b"a?"


# ---- writing


def write(writer: LogWriter, data: bytes, ns: int = NOW, stream: str = "stdout") -> None:
    lines, tail = render(data, stream, ns)
    assert not tail
    writer.make_room(len(lines))
    writer.append(lines)


def test_rotation_keeps_the_newest_within_the_bound(tmp_path: Path) -> None:
    """No file longer than it may be, no more files than there may be, the end of the output without a gap."""
    writer = LogWriter(str(tmp_path), max_size_bytes=1000, max_files=3)
    for number in range(100):
        write(writer, b"line %d\n" % number)
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["json.log", "json.log.1", "json.log.2"]
    assert all(os.stat(tmp_path / name).st_size <= 1000 for name in os.listdir(tmp_path))
    data = b"".join(one.data for one in read(str(tmp_path)))
    assert data == b"".join(b"line %d\n" % number for number in range(100))[-len(data) :]
    assert len(data.splitlines()) > 20


@pytest.mark.parametrize("files", [1, 2, 5])
def test_any_number_of_files(tmp_path: Path, files: int) -> None:
    """max-file=1: the one file starts anew."""
    writer = LogWriter(str(tmp_path), max_size_bytes=300, max_files=files)
    for number in range(30):
        write(writer, b"line %d\n" % number)
    writer.close()
    assert len(os.listdir(tmp_path)) == files
    assert [one.data for one in read(str(tmp_path))][-1] == b"line 29\n"


def test_unbounded_means_one_file(tmp_path: Path) -> None:
    """max-size 0 (-1 in docker): no rotation."""
    writer = LogWriter(str(tmp_path), max_size_bytes=0)
    for _ in range(100):
        write(writer, b"x" * 1000 + b"\n")
    writer.close()
    assert os.listdir(tmp_path) == ["json.log"]


def test_a_torn_last_line_is_cut_off_when_the_log_is_opened(tmp_path: Path) -> None:
    """Half a line of a killed writer; also when that is all there is, and when it is long."""
    for torn in (b'{"log":"half', b'{"log":"' + b"x" * 200_000):
        for before in (b"", render(b"whole\n", "stdout", NOW)[0]):
            (tmp_path / "json.log").write_bytes(before + torn)
            LogWriter(str(tmp_path)).close()
            assert (tmp_path / "json.log").read_bytes() == before


def test_a_full_disk_leaves_whole_lines() -> None:
    """/dev/full is no regular file, so: a file limit. What does not fit is not there in part."""
    import resource
    import signal
    import tempfile

    child = os.fork()
    if child == 0:
        code = 1
        try:
            with tempfile.TemporaryDirectory() as directory:
                writer = LogWriter(directory)
                write(writer, b"fits\n")
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                former = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (200, former[1]))
                with pytest.raises(OSError):
                    write(writer, b"does not fit " * 20 + b"\n")
                resource.setrlimit(resource.RLIMIT_FSIZE, former)
                assert [one.data for one in read(directory)] == [b"fits\n"]
                assert writer.size == os.stat(f"{directory}/json.log").st_size
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """The log's name leads nowhere else."""
    (tmp_path / "json.log").symlink_to("/dev/null")
    with pytest.raises(OSError):
        LogWriter(str(tmp_path))


# ---- reading


@pytest.fixture
def rotated(tmp_path: Path) -> str:
    """Three files, 20 lines on both streams, one second apart."""
    writer = LogWriter(str(tmp_path), max_size_bytes=700, max_files=4)
    for number in range(20):
        write(writer, b"line %d\n" % number, NOW + number * SECOND, "stderr" if number % 5 == 0 else "stdout")
    writer.close()
    assert len(os.listdir(tmp_path)) == 3
    return str(tmp_path)


def numbers(entries: list[Entry]) -> list[int]:
    return [int(one.data.split()[1]) for one in entries]


def test_all_files_are_read_oldest_first(rotated: str) -> None:
    """And each entry tells its stream and time."""
    entries = list(read(rotated))
    assert numbers(entries) == list(range(20))
    assert (entries[5].stream, entries[5].time) == ("stderr", timestamp(NOW + 5 * SECOND))


@pytest.mark.parametrize("tail", [0, 1, 5, 6, 7, 8, 13, 19, 20, 21, 1000])
def test_tail_counts_across_files(rotated: str, tail: int) -> None:
    """Exactly so many, whichever file they begin in."""
    assert numbers(list(read(rotated, tail=tail))) == list(range(20))[20 - min(tail, 20) :]


def test_tail_of_lines_longer_than_a_block(tmp_path: Path) -> None:
    """The search from the end goes over block borders."""
    writer = LogWriter(str(tmp_path))
    for number in range(30):
        write(writer, b"line %d " % number + b"x" * 15_000 + b"\n")
    for tail in (1, 4, 5, 10, 29, 30):
        assert numbers(list(read(str(tmp_path), tail=tail))) == list(range(30 - tail, 30))


def test_since_until_and_streams(rotated: str) -> None:
    """Both ends inclusive; streams by choice."""
    since, until = NOW + 3 * SECOND, NOW + 6 * SECOND
    assert numbers(list(read(rotated, since_ns=since, until_ns=until))) == [3, 4, 5, 6]
    assert numbers(list(read(rotated, since_ns=since + 1, until_ns=until - 1))) == [4, 5]
    assert numbers(list(read(rotated, stdout=False))) == [0, 5, 10, 15]
    assert numbers(list(read(rotated, stderr=False, tail=3))) == [17, 18, 19]


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    """A container that has not written, or never started."""
    assert list(read(str(tmp_path))) == []
    assert list(read(str(tmp_path / "missing"), tail=5)) == []


def test_a_torn_last_line_is_left_out(rotated: str) -> None:
    """It is being written right now."""
    with open(f"{rotated}/json.log", "ab") as file:
        file.write(b'{"log":"half')
    assert numbers(list(read(rotated))) == list(range(20))
    assert numbers(list(read(rotated, tail=1))) == [19]


def test_a_rotation_that_was_cut_short_is_read(rotated: str) -> None:
    """Killed between two renames: there is no newest file for a while."""
    os.rename(f"{rotated}/json.log", f"{rotated}/json.log.9")
    assert numbers(list(read(rotated))) == list(range(len(list(read(rotated)))))
    assert list(read(rotated))


def test_following_sees_everything_while_the_log_is_written_and_rotated(tmp_path: Path) -> None:
    """Readers that keep up get every line once, in order, over many rotations; it ends when the container does."""
    total = 3000
    running = threading.Event()
    running.set()

    def writes() -> None:
        writer = LogWriter(str(tmp_path), max_size_bytes=20_000, max_files=5)
        for number in range(total):
            write(writer, b"line %d\n" % number)
            if number % 50 == 0:
                time.sleep(0.005)
        writer.close()
        running.clear()

    def goes_on(seconds: float) -> bool:
        time.sleep(min(seconds, 0.002))
        return running.is_set()

    thread = threading.Thread(target=writes)
    thread.start()
    assert numbers(list(read(str(tmp_path), follow=goes_on))) == list(range(total))
    thread.join()
    assert len(os.listdir(tmp_path)) == 5


def test_reading_while_it_is_rotated_is_without_gaps(tmp_path: Path) -> None:
    """Without following: what is read is one contiguous stretch, at whatever moment it was read."""
    stop = threading.Event()

    def writes() -> None:
        writer = LogWriter(str(tmp_path), max_size_bytes=2000, max_files=3)
        number = 0
        while not stop.is_set():
            write(writer, b"line %d\n" % number)
            number += 1
        writer.close()

    thread = threading.Thread(target=writes)
    thread.start()
    try:
        for _ in range(150):
            found = numbers(list(read(str(tmp_path))))
            assert found == list(range(found[0], found[0] + len(found))) if found else True
    finally:
        stop.set()
        thread.join()


def test_following_waits_for_the_end_of_a_torn_line(tmp_path: Path) -> None:
    """Half a line is not shown; when its rest comes, it is."""
    line = render(b"line 1\n", "stdout", NOW)[0]
    path = tmp_path / "json.log"
    path.write_bytes(line[:20])
    looks = 0

    def goes_on(_seconds: float) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            path.write_bytes(line)
        return looks < 5

    assert numbers(list(read(str(tmp_path), follow=goes_on))) == [1]


def test_following_with_tail(rotated: str) -> None:
    """-f --tail 2: the last two, then what comes."""
    looks = 0

    def goes_on(_seconds: float) -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            writer = LogWriter(rotated, max_size_bytes=700, max_files=4)
            write(writer, b"line 20\n")
            writer.close()
        return looks < 2

    assert numbers(list(read(rotated, tail=2, follow=goes_on))) == [18, 19, 20]


def test_the_writer_does_not_import_json() -> None:
    """The monitor only writes; reading is loaded when somebody reads."""
    assert logs.read is read
    with pytest.raises(AttributeError):
        _ = logs.nothing
