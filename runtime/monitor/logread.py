# SPDX-License-Identifier: Apache-2.0
"""Reading a container's log: over the rotated files, from the end, by time, and as it is written."""

from __future__ import annotations

import json
import os
import time

from pyrun.runtime.monitor.logs import NAME, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 64 * 1024
POLL_S = 0.05  # how often a followed file is looked at


class Entry:
    """One log entry: `stream` ("stdout" or "stderr"), `time` (RFC 3339, UTC, nanoseconds), `data` (the exact bytes;
    without a final newline it is a part of a line that goes on in the stream's next entry)."""

    __slots__ = ("data", "stream", "time")

    def __init__(self, stream: str, time: str, data: bytes) -> None:
        self.stream = stream
        self.time = time
        self.data = data

    def __repr__(self) -> str:
        return f"Entry({self.stream!r}, {self.time!r}, {self.data!r})"


def read(
    directory: str, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None,
    stdout: bool = True, stderr: bool = True, follow: Callable[[float], bool] | None = None,
) -> Iterator[Entry]:  # fmt: skip
    """The entries of the log in `directory` (<data>/containers/<id>/log), oldest first, over all rotated files.

    tail: only the last so many (0: none; None: all). since_ns/until_ns: nanoseconds since the epoch, both inclusive.
    follow: None, or a function that waits up to the given seconds and returns whether the container still runs (or,
    more precisely, is not yet finished: its last output is logged only then); entries are yielded as they come until
    it returns False. Correct while the log is being rotated; a torn last line is waited for or left out.
    """
    streams = {"stdout": stdout, "stderr": stderr}
    since = "" if since_ns is None else timestamp(since_ns)
    until = "~" if until_ns is None else timestamp(until_ns)
    for line in _lines(directory, tail, follow):
        entry = parse(line)
        if entry is None or not streams.get(entry.stream) or entry.time < since:
            continue
        if entry.time > until:
            return
        yield entry


def parse(line: bytes) -> Entry | None:
    """The entry of one log line; None for what is none (a line that a full disk or another program spoilt)."""
    try:
        value = json.loads(line)
        text = value["log"]
        return Entry(value["stream"], value["time"], text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return Entry(value["stream"], value["time"], text.encode("utf-8", "replace"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _lines(directory: str, tail: int | None, follow: Callable[[float], bool] | None) -> Iterator[bytes]:
    path = f"{directory}/{NAME}"
    files = _open_all(path)
    try:
        skipped = _skip_to_tail(files, tail)
        for fd in files[skipped:-1]:
            yield from _whole_lines(fd)
        if files:
            yield from _whole_lines(files[-1])
        while follow is not None:
            goes_on = follow(POLL_S)  # first ask, then read: what is written before the end is read after it
            yield from _newer_lines(path, files)
            if not goes_on:
                return
    finally:
        for fd in files:
            os.close(fd)


def _open_all(path: str) -> list[int]:
    """The files of the log, oldest first, as they were at one moment: again if one was rotated away meanwhile."""
    for patience in range(50, -1, -1):
        files: list[int] = []
        number = 0
        while True:
            try:
                fd = os.open(f"{path}.{number}" if number else path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                files.append(fd)
            except FileNotFoundError:
                if number or patience:
                    break  # with the patience at its end: rotation was cut short, and there is no newest file
            number += 1
        files.reverse()
        if not patience or _consistent(path, files):
            return files
        for fd in files:
            os.close(fd)
        time.sleep(0.001)
    raise AssertionError("unreachable")


def _consistent(path: str, files: list[int]) -> bool:
    """Whether no rotation fell between the openings: no file met twice, and the newest still is the newest."""
    inodes = [os.fstat(fd).st_ino for fd in files]
    if not files:
        return _oldest(path) == 0
    return len(set(inodes)) == len(inodes) and _inode(path) == inodes[-1]


def _inode(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def _oldest(path: str) -> int:
    """The number of the oldest rotated file; 0 when there is none."""
    number = 0
    while _inode(f"{path}.{number + 1}"):
        number += 1
    return number


def _whole_lines(fd: int) -> Iterator[bytes]:
    """The lines from the file's position on; the position ends up after the last newline."""
    at = os.lseek(fd, 0, os.SEEK_CUR)
    rest = b""
    while block := os.pread(fd, BLOCK, at + len(rest)):
        *lines, last = (rest + block).split(b"\n")
        for line in lines:
            at += len(line) + 1
            os.lseek(fd, at, os.SEEK_SET)
            yield line
        rest = last


def _newer_lines(path: str, files: list[int]) -> Iterator[bytes]:
    """What was written since; files[-1] is the file being read, and becomes the newest if there is a newer one."""
    while True:
        if files:
            yield from _whole_lines(files[-1])
            inode = os.fstat(files[-1]).st_ino
            if _inode(path) in (0, inode):
                return
            yield from _whole_lines(files[-1])  # what came between the reading and the rotation
        else:
            inode = 0
        number = _oldest(path) + 1
        for candidate in range(1, number):
            if _inode(f"{path}.{candidate}") == inode:
                number = candidate  # read this one; its successor is next
        newer = f"{path}.{number - 1}" if number > 1 else path
        try:
            fd = os.open(newer, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not files:
                return
            continue  # rotated again: look once more
        for old in files:
            os.close(old)
        files[:] = [fd]


def _skip_to_tail(files: list[int], tail: int | None) -> int:
    """Moves the position of one file so that `tail` lines remain after it; returns how many older files to skip."""
    if tail is None or not files:
        return 0
    missing = tail
    for index in range(len(files) - 1, -1, -1):
        at, found = _last_lines(files[index], missing)
        missing -= found
        if missing == 0:
            os.lseek(files[index], at, os.SEEK_SET)
            return index
    return 0


def _last_lines(fd: int, count: int) -> tuple[int, int]:
    """Where the last `count` whole lines of a file begin, and how many there are, at most `count`."""
    size = os.fstat(fd).st_size
    block = b""
    start = size
    newlines_wanted = count + 1  # the newline before the first of them, too
    found = 0
    while start > 0:
        start = max(0, start - BLOCK)
        block = os.pread(fd, min(BLOCK, size - start), start)
        here = block.count(b"\n")
        if found + here >= newlines_wanted:
            at = len(block)
            while found < newlines_wanted:
                at = block.rfind(b"\n", 0, at)
                found += 1
            return start + at + 1, count
        found += here
        size = start
    return 0, found
