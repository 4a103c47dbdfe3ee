# SPDX-License-Identifier: Apache-2.0
"""Archives among a build's inputs: told from other files, and unpacked below one directory.

A tar, plain or compressed with gzip, bzip2, xz or zstd, is known by its content, never by its name (Dockerfile
reference, ADD, "Local tar archives").
"""

from __future__ import annotations

import os

from pyrun.rootfs import stream, tarread
from pyrun.rootfs.entry import HARDLINK
from pyrun.rootfs.limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.tree import TreeWriter

    from .source import Path

_ENOUGH = 1 << 16  # of a compressed file, to see the header of the tar in it


def is_archive(file: stream.Readable) -> bool:
    """Whether a file that stands at its beginning is a tar with at least one entry, whatever its compression."""
    return head_is_archive(file.read(_ENOUGH))


def head_is_archive(head: bytes) -> bool:
    """is_archive() of a file that begins with `head`."""
    kind = stream.compression_of(head)
    chunks = stream.inflate(iter([head]), kind)
    plain = b""
    try:
        while len(plain) < _ENOUGH and (chunk := next(chunks, b"")):
            plain += chunk
    except (ArchiveError, EOFError):  # the head alone is "truncated": what came before counts
        pass
    # a global header may stand before the first entry, and only that much was read
    source = stream.ByteStream([plain])
    try:
        return next(tarread.entries(source), None) is not None
    except ArchiveError:
        return False


def unpack(file: stream.Readable, writer: TreeWriter, base: Path, *, limits: Limits = DEFAULT_LIMITS) -> int:
    """The entries of an archive below the directory `base` of the writer's root; how many there were.

    Raises ArchiveError for what is no archive, is cut short, hostile or too big, naming the entry.
    """
    kind, raw = stream.sniffed(stream.chunks_of(file))
    chunks = stream.inflate(raw, kind, limits)
    ahead = stream.read_ahead(chunks) if kind else None
    count = 0
    try:
        source = stream.ByteStream(ahead if ahead is not None else chunks, limits)
        for entry in tarread.entries(source, limits):
            if not entry.parts:
                continue  # "./": docker too leaves the directory itself as it is
            if any(part.startswith(b".wh.") for part in entry.parts):
                raise entry.error("a name that begins with .wh. stands for a deletion in an image's layer")
            entry.parts = (*base, *entry.parts)
            if entry.kind is HARDLINK and base:
                entry.link = b"/".join(base) + b"/" + entry.link
            writer.add(entry, source.data())
            count += 1
    finally:
        if ahead is not None:
            ahead.close()
    return count


def unpack_file(path: str, writer: TreeWriter, base: Path = ()) -> int:
    """unpack() of a file of the host that this process made itself."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return unpack(file, writer, base)
