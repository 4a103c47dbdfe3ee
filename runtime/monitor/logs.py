# SPDX-License-Identifier: Apache-2.0
"""The json-file log of a container: docker's line format, rotated and bounded by default.

    {"log":"Hello\\n","stream":"stdout","time":"2024-05-01T12:00:00.123456789Z"}

json.log is the newest file, json.log.1, json.log.2, … are older. A line longer than 16 KiB is several entries, only the
last of which ends in a newline, as with docker. Bytes that are not UTF-8 become lone surrogates (\\udc80 for 0x80),
which other readers show as U+FFFD and read() turns back into the very bytes.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False

PART = 16 * 1024  # the longest entry, docker's
MAX_SIZE_BYTES = 10 << 20
MAX_FILES = 3
NAME = "json.log"

_PLAIN = bytes(set(range(0x20, 0x80)) - set(b'"\\')) + b"\n"  # what needs no escape; "\n" is treated apart
_ESCAPES = [(b"\\", b"\\\\"), (b'"', b'\\"'), (b"\r", b"\\r"), (b"\t", b"\\t")] + [
    (bytes([c]), b"\\u%04x" % c) for c in range(0x20) if c not in b"\r\t\n"
]


def timestamp(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC with nine digits: they sort as text, and all have one length."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def render(data: bytes, stream: str, ns: int) -> tuple[bytes, bytes]:
    """The log lines of `data`, and the tail: what follows its last newline and is shorter than an entry may be."""
    end = f'","stream":"{stream}","time":"{timestamp(ns)}"}}\n'.encode()
    out = []
    start = at = 0
    while len(data) - at >= PART:
        newline = data.rfind(b"\n", at, at + PART)
        if newline >= 0:
            at = newline + 1
            continue
        out.append(_lines(data[start:at], end))
        start, at = at, _boundary(data, at + PART)
        out.append(b'{"log":"' + _escape(data[start:at]) + end)
        start = at
    cut = data.rfind(b"\n", start) + 1
    if cut > start:
        out.append(_lines(data[start:cut], end))
        start = cut
    return b"".join(out), data[start:]


def render_rest(tail: bytes, stream: str, ns: int) -> bytes:
    """The entry of an unfinished line that will not be finished any more."""
    if not tail:
        return b""
    return b'{"log":"' + _escape(tail) + f'","stream":"{stream}","time":"{timestamp(ns)}"}}\n'.encode()


def _lines(block: bytes, end: bytes) -> bytes:
    """Whole lines, rendered at C speed: escape all of them, then put what belongs between two in place of newlines."""
    if not block:
        return b""
    return b'{"log":"' + _escape(block[:-1]).replace(b"\n", b"\\n" + end + b'{"log":"') + b"\\n" + end


def _escape(data: bytes) -> bytes:
    odd = data.translate(None, _PLAIN)
    if not odd:
        return data
    for raw, escaped in _ESCAPES:
        if raw in odd:
            data = data.replace(raw, escaped)
    if not odd.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return data.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace")
    return data


def _boundary(data: bytes, at: int) -> int:
    """`at`, or up to three bytes before it, so that data[:at] does not end within a UTF-8 sequence."""
    for back in (1, 2, 3):
        byte = data[at - back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return at - back if length > back else at
    return at


class LogWriter:
    """Appends rendered lines to the log in `directory`, rotating it. One writer at a time.

    Opening it cuts off a last line that was not written to its end.
    """

    def __init__(self, directory: str, *, max_size_bytes: int = MAX_SIZE_BYTES, max_files: int = MAX_FILES) -> None:
        self.path = f"{directory}/{NAME}"
        self.max_size_bytes = max_size_bytes
        self.max_files = max_files
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._open(self.path)
        self._cut_torn_line()

    def _open(self, path: str) -> None:
        self._fd = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640
        )
        status = os.fstat(self._fd)
        self.inode = status.st_ino
        self.size = status.st_size

    def _cut_torn_line(self) -> None:
        end = self.size
        while end > 0:
            start = max(0, end - 65536)
            block = os.pread(self._fd, end - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                self.cut(self.inode, start + newline + 1)
                return
            end = start
        self.cut(self.inode, 0)

    def cut(self, inode: int, size: int) -> None:
        """Makes the file `size` bytes long, if it is the one with that inode, and longer."""
        if inode == self.inode and size < self.size:
            os.ftruncate(self._fd, size)
            self.size = size

    def make_room(self, count: int) -> bool:
        """Rotates if `count` more bytes would make the file too long; says whether it did. Raises OSError.

        One batch may be longer than a file should be: it then has a file of its own. When there can be no new file
        (a disk without room, a directory that is gone), everything stays as it was.
        """
        if self.size == 0 or self.size + count <= self.max_size_bytes or self.max_size_bytes <= 0:
            return False
        former = self._fd
        self._open(f"{self.path}.new")  # before `former` is closed: its number would soon be somebody else's
        os.close(former)
        for number in range(self.max_files - 1, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            try:
                os.rename(older, f"{self.path}.{number}")
            except FileNotFoundError:
                pass
        os.rename(f"{self.path}.new", self.path)  # a new inode: who reads the old one reads it to its end
        return True

    def append(self, lines: bytes) -> None:
        """Writes all of `lines`, or nothing: a full disk leaves the file as it was. Raises OSError (ENOSPC, EDQUOT)."""
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += len(lines)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def __getattr__(name: str) -> object:
    if name in ("Entry", "read"):  # reading needs json; the monitor only writes
        from pyrun.runtime.monitor import logread

        return getattr(logread, name)
    raise AttributeError(name)


if TYPE_CHECKING:
    from pyrun.runtime.monitor.logread import Entry as Entry
    from pyrun.runtime.monitor.logread import read as read
