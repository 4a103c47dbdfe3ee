# SPDX-License-Identifier: Apache-2.0
"""One layer blob -> one directory of an overlay, with its digests checked.

Whiteouts are the OCI image spec's (layer.md, "Whiteouts"): `.wh.<name>` and `.wh..wh..opq` become what overlayfs
understands.
"""

from __future__ import annotations

import hashlib
import os

from pyrun.runtime.record import Record

from . import stream, tarread
from .entry import Entry
from .limits import DEFAULT_LIMITS, ArchiveError, Limits
from .tree import TreeWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."  # other names of this form were aufs's own bookkeeping; docker skips them too


class Unpacked(Record):
    """What a layer turned out to be: both digests ("sha256:…"), bytes of file content, number of entries."""

    digest: str
    diff_id: str
    size: int
    entries: int


def unpack(
    blob: stream.Readable,
    root_fd: int,
    *,
    digest: str = "",
    diff_id: str = "",
    verified: bool = False,
    require_end: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    metadata_of: Callable[[tuple[bytes, ...]], Entry | None] | None = None,
    implied: list[tuple[bytes, ...]] | None = None,
) -> Unpacked:
    """Unpacks a layer (tar, plain or compressed) below the empty directory `root_fd`.

    Args:
        blob: the layer as it is stored.
        digest: what the blob must hash to, diff_id: what the uncompressed tar must hash to; "" for not known.
        verified: this process has just seen that the blob has that digest: it is not hashed again.
        require_end: the tar's end mark must be there; for a stream that no digest covers.
        metadata_of: see TreeWriter: what parent directories that the layer does not list look like below.
        implied: gets those directories instead, for inherit(), where the layers below are not there yet.

    Returns what it found. Raises ArchiveError, naming the entry, for hostile or damaged archives, digests that differ,
    and a full disk; the directory then holds half a layer, and the caller removes it.
    """
    kind, raw = stream.sniffed(stream.chunks_of(blob))
    packed = plain = None
    if not verified:
        packed = hashlib.sha256()
        raw = stream.hashed(raw, packed)
    chunks = stream.inflate(raw, kind, limits)
    if kind:
        plain = hashlib.sha256()
        chunks = stream.hashed(chunks, plain)
    ahead = stream.read_ahead(chunks) if kind else chunks
    try:
        source = stream.ByteStream(ahead, limits)
        count = size = 0
        with TreeWriter(root_fd, overlay=True, metadata_of=metadata_of, implied=implied, batched=True) as writer:
            writer.default_root()
            for entry in tarread.entries(source, limits, require_end=require_end):
                count += 1
                add(writer, entry, source)
            size = writer.bytes_written
        source.drain()
    finally:
        ahead.close()
    found_digest = f"sha256:{packed.hexdigest()}" if packed else digest
    found = Unpacked(found_digest, f"sha256:{plain.hexdigest()}" if plain else found_digest, size, count)
    if digest and found.digest != digest:
        raise ArchiveError(
            f"layer {digest}", f"its content is {found.digest}", hint="the blob is damaged: load or pull it again"
        )
    if diff_id and found.diff_id != diff_id:
        raise ArchiveError(
            f"layer {found.digest}", f"its diff-id is {found.diff_id}, but the image's config says {diff_id}"
        )
    return found


def add(writer: TreeWriter, entry: Entry, source: stream.ByteStream) -> None:
    """One entry of a layer: a whiteout if its name says so, else an object of the file system."""
    name = entry.parts[-1] if entry.parts else b""
    if entry.parts and entry.parts[0].startswith(AUFS) and name != OPAQUE:
        return
    for part in entry.parts[:-1]:
        if part.startswith(WHITEOUT):
            raise entry.error("lies below a whiteout")
    if not name.startswith(WHITEOUT):
        writer.add(entry, source.data())
    elif name == OPAQUE:
        writer.opaque(entry)
    else:
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise entry.error("a whiteout of nothing")
        writer.whiteout(entry, hidden)


def inherit(
    root_fd: int, implied: Iterable[tuple[bytes, ...]], metadata_of: Callable[[tuple[bytes, ...]], Entry | None]
) -> None:
    """Gives directories that a layer made without listing them the metadata they have below. Raises ArchiveError."""
    with TreeWriter(root_fd, overlay=True) as writer:
        for parts in implied:
            like = metadata_of(parts)
            if like is not None:
                writer.settle(parts, like)


def syncfs(fd: int) -> None:
    """Writes out the file system of `fd`: one call for a layer of ten thousand files. Raises OSError."""
    from pyrun.runtime.kernel import syscalls

    syscalls.syncfs(fd)


def open_root(path: str) -> int:
    """The directory at a host path, as the root_fd of a TreeWriter."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
