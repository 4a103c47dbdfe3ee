# SPDX-License-Identifier: Apache-2.0
"""Entries as a tar stream: ustar blocks, and pax records for what those cannot hold (POSIX.1-2008, pax,
"ustar Interchange Format"): nanoseconds, attributes, long names, names that are not ASCII, large numbers.

The reverse is tarread. The standard library's tarfile takes ten times as long for a header.
"""

from __future__ import annotations

import os
import struct

from .entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, SYMLINK, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TYPES = {FILE: b"0", HARDLINK: b"1", SYMLINK: b"2", CHAR: b"3", BLOCK: b"4", DIR: b"5", FIFO: b"6"}
_BLOCK = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_NUMBER = 0o7777777  # the largest that a field of 8 holds
_LONG_NUMBER = 0o77777777777  # … of 12
END = bytes(1024)
GAP = 1 << 18


def tar(entries: Iterable[tuple[Entry, Iterable[bytes]]]) -> Iterator[bytes]:
    """The archive's bytes. Sockets, which tar cannot hold, are left out; see padded() for files that change."""
    for entry, data in entries:
        if entry.kind not in _TYPES:
            continue
        yield header(entry)
        yield from padded(data, entry.size)
    yield END


def padded(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    """`size` bytes of data, filled up to whole blocks.

    A file that shrinks while it is read is padded with zeros, one that grows is cut, as GNU tar does, so that the
    archive stays whole.
    """
    left = size
    if left:
        for piece in data:
            if len(piece) > left:
                piece = piece[:left]
            yield piece
            left -= len(piece)
            if not left:
                break
    while left:
        gap = min(left, GAP)
        yield bytes(gap)
        left -= gap
    if size % 512:
        yield bytes(-size % 512)


def header(entry: Entry) -> bytes:
    """The header blocks of one entry."""
    name = entry.path or b"."
    if entry.kind is DIR:
        name += b"/"
    seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
    uid, gid, size, link = entry.uid, entry.gid, entry.size, entry.link
    records: list[bytes] = []
    if len(name) > 100 or not name.isascii():
        records.append(_record(b"path", name))
    if len(link) > 100 or not link.isascii():
        records.append(_record(b"linkpath", link))
    if nanoseconds or not 0 <= seconds <= _LONG_NUMBER:
        records.append(_record(b"mtime", _decimal_time(entry.mtime_ns)))
        seconds = min(max(seconds, 0), _LONG_NUMBER)
    if uid > _NUMBER:
        records.append(_record(b"uid", b"%d" % uid))
        uid = 0
    if gid > _NUMBER:
        records.append(_record(b"gid", b"%d" % gid))
        gid = 0
    if size > _LONG_NUMBER:
        records.append(_record(b"size", b"%d" % size))
        size = 0
    if entry.xattrs:
        records += [_record(b"SCHILY.xattr." + key, value) for key, value in sorted(entry.xattrs.items())]
    block = _block(name, entry.mode, uid, gid, size, seconds, _TYPES[entry.kind], link, entry.rdev)
    if not records:
        return block
    body = b"".join(records)
    extension = _block(b"././@PaxHeader", 0o644, 0, 0, len(body), 0, b"x", b"", 0)
    return b"".join((extension, body, bytes(-len(body) % 512), block))


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, kind: bytes, link: bytes, rdev: int
) -> bytes:
    block = _BLOCK.pack(
        name,
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % seconds,
        b"        ",
        kind,
        link,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % os.major(rdev),
        b"%07o" % os.minor(rdev),
        b"",
    )
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _record(key: bytes, value: bytes) -> bytes:
    """ "<length> <key>=<value>\\n", where the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _decimal_time(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{rest:09d}".rstrip("0").rstrip(".").encode()
