# SPDX-License-Identifier: Apache-2.0
"""Entries as a tar stream: pax headers, nanoseconds, attributes, names that are not UTF-8. The reverse: tarread."""

from __future__ import annotations

import os
import tarfile

from .entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, SYMLINK, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TYPES = {
    FILE: tarfile.REGTYPE, DIR: tarfile.DIRTYPE, SYMLINK: tarfile.SYMTYPE, HARDLINK: tarfile.LNKTYPE,
    CHAR: tarfile.CHRTYPE, BLOCK: tarfile.BLKTYPE, FIFO: tarfile.FIFOTYPE,
}  # fmt: skip
END = bytes(1024)


def tar(entries: Iterable[tuple[Entry, Iterable[bytes]]]) -> Iterator[bytes]:
    """The archive's bytes. Sockets, which tar cannot hold, are left out. A file that shrinks while it is read is padded
    with zeros, one that grows is cut, as GNU tar does, so that the archive stays whole."""
    for entry, data in entries:
        if entry.kind not in _TYPES:
            continue
        yield header(entry)
        left = entry.size
        for piece in data:
            yield piece[:left]
            left -= min(left, len(piece))
            if not left:
                break
        while left:
            gap = min(left, 1 << 18)
            yield bytes(gap)
            left -= gap
        if entry.size % 512:
            yield bytes(-entry.size % 512)
    yield END


def header(entry: Entry) -> bytes:
    """The header blocks of one entry."""
    path = os.fsdecode(entry.path) or "."
    info = tarfile.TarInfo(path + "/" if entry.kind is DIR else path)
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid, info.size = entry.mode, entry.uid, entry.gid, entry.size
    info.linkname = os.fsdecode(entry.link)
    info.devmajor, info.devminor = os.major(entry.rdev), os.minor(entry.rdev)
    seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
    info.mtime = seconds
    records = {}
    if nanoseconds or seconds < 0:
        records["mtime"] = _decimal_time(entry.mtime_ns)
    for name, value in sorted((entry.xattrs or {}).items()):
        records["SCHILY.xattr." + os.fsdecode(name)] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _decimal_time(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{rest:09d}".rstrip("0").rstrip(".")
