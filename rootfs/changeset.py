# SPDX-License-Identifier: Apache-2.0
"""A directory as an OCI layer, and as the lines of `diff`: the reverse of unpack.py.

    layer = changeset.pack(upper, lowers, ingest)      # a blob in the ingest: its digests, its size
    for change in changeset.changes(upper, lowers): …  # Change("C", b"etc/hosts")

A layer's bytes depend on the files alone: sorted by name, owners as numbers, times in whole seconds (as docker writes
them), a gzip header without a time. One thread reads, makes headers and hashes; this one compresses, hashes and writes:
the kernel, isal and SHA-256 release the interpreter lock (measured: 0.6 of the time of one thread). Memory is bounded.
"""

from __future__ import annotations

import hashlib
import os
import stat

from pyrun.runtime.errors import UsageError
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

from . import inroot, media, stream, tarwrite, upper, xattrs
from .entry import DIR, FIFO, FILE, HARDLINK, KIND_OF, SYMLINK, Entry
from .limits import DEFAULT_LIMITS, ArchiveError
from .unpack import OPAQUE, WHITEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from .layout import Ingest

BATCH = 1 << 18  # bytes of headers and small files that are handed over together
ADDED, CHANGED, REMOVED = "A", "C", "D"
SECOND = 10**9


class NewLayer(Record):
    """A layer that was packed. size: of the blob; content_size: bytes in files; entries: members of the tar."""

    digest: str
    size: int
    diff_id: str
    media_type: str
    content_size: int
    entries: int


class Change(Record):
    """One line of `diff`: A (added), C (changed) or D (deleted), and the path below the root."""

    kind: str
    path: bytes


def pack(
    directory: str,
    lowers: Sequence[str],
    ingest: Ingest,
    *,
    compression: str = "gzip",
    epoch: int | None = None,
    ignore: Container[tuple[bytes, ...]] = (),
) -> NewLayer:
    """Writes what `directory` (an overlay's upper, or a tree of its own) changes as a layer blob into `ingest`.

    Args:
        directory: see upper.walk(); lowers: the layers below it, lowest first; ignore: paths to leave out.
        compression: "gzip", "zstd", or "" for none.
        epoch: seconds since 1970; later file times become it (SOURCE_DATE_EPOCH).

    Sockets are left out, holes become zeros, attributes that belong to overlayfs or to this host stay here. Raises
    ArchiveError, naming the file, for what a layer cannot hold; UsageError for another compression; OSError.
    """
    compress = COMPRESSORS.get(compression)
    if compress is None:
        raise UsageError(f"compression '{compression}'", f"not one of {', '.join(filter(None, COMPRESSORS))}")
    if epoch is not None and compression == "gzip":
        compress = _reproducible_gzip
    plain = hashlib.sha256()
    packer = _Packer(directory, lowers, ignore, epoch)
    with step("rootfs", f"pack {directory} as a layer"):
        chunks = stream.read_ahead(stream.hashed(packer.chunks(), plain) if compression else packer.chunks())
        try:
            digest = ingest.add(compress(chunks), max_bytes=DEFAULT_LIMITS.max_bytes)
        finally:
            chunks.close()
    return NewLayer(
        digest=digest,
        size=ingest.sizes[digest],
        diff_id=f"sha256:{plain.hexdigest()}" if compression else digest,
        media_type=media.LAYER_OF[compression],
        content_size=packer.content_size,
        entries=packer.entries,
    )


def changes(directory: str, lowers: Sequence[str], *, ignore: Container[tuple[bytes, ...]] = ()) -> Iterator[Change]:
    """What `directory` changes in the layers below it, sorted as docker's `diff`. Raises ArchiveError, OSError."""
    found: dict[bytes, str] = {}
    for item in upper.walk(directory, lowers, ignore):
        path = b"/".join(item.parts)
        if item.what is upper.KEPT:
            if path:
                found[path] = ADDED if item.below is None else CHANGED
            if item.hidden:
                _removed_in(item, found)
        elif item.what is upper.OPAQUE:
            _removed_in(item, found)
        else:
            found[path] = REMOVED
    for path in sorted(found):
        yield Change(found[path], path)


def _removed_in(item: upper.Found, found: dict[bytes, str]) -> None:
    """What a directory had below that its opaque successor has no more."""
    for name in upper.listed(item.lowers):
        try:
            there = not upper.is_whiteout(os.stat(name, dir_fd=item.fd, follow_symlinks=False))
        except FileNotFoundError:
            there = False
        if not there:
            found[b"/".join((*item.parts, name))] = REMOVED


class _Packer:
    """The layer's tar as chunks, and what was counted on the way."""

    def __init__(
        self, directory: str, lowers: Sequence[str], ignore: Container[tuple[bytes, ...]], epoch: int | None
    ) -> None:
        self.content_size = 0
        self.entries = 0
        self._walk = upper.walk(directory, lowers, ignore)
        self._latest = epoch
        self._first_names: dict[tuple[int, int], bytes] = {}  # of files with several names

    def chunks(self) -> Iterator[bytes]:
        """Pieces of about BATCH bytes: each one costs a hand-over between threads."""
        batch: list[bytes] = []
        size = 0
        for piece in self._pieces():
            batch.append(piece)
            size += len(piece)
            if size >= BATCH:
                yield b"".join(batch)
                batch, size = [], 0
        yield b"".join([*batch, tarwrite.END])

    def _pieces(self) -> Iterator[bytes]:
        for item in self._walk:
            if item.what is upper.KEPT:
                yield from self._object(item)
                continue
            self.entries += 1
            *above, name = (*item.parts, OPAQUE) if item.what is upper.OPAQUE else item.parts
            if item.what is upper.DELETED:
                name = WHITEOUT + name
            # no time of its own: when something was deleted is not part of the change
            yield tarwrite.header(Entry((*above, name), FILE, 0o600, mtime_ns=self._time(0)))

    def _object(self, item: upper.Found) -> Iterator[bytes]:
        info = item.info
        kind = KIND_OF.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return  # a socket: nobody can listen on it any more
        entry = Entry(item.parts, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        if item.parts and item.parts[-1].startswith(WHITEOUT):
            raise ArchiveError(
                f"'{entry.path.decode(errors='backslashreplace')}'",
                "in a layer, a name that begins with .wh. stands for a deleted file",
                hint="rename or remove it first",
            )
        entry.mtime_ns = self._time(info.st_mtime_ns)
        self.entries += 1
        if kind is FILE:
            yield from self._file(item, entry)
            return
        if kind is SYMLINK:
            entry.link = os.readlink(b"", dir_fd=item.fd)  # of the O_PATH fd itself, readlinkat(2)
        else:
            entry.rdev = info.st_rdev if kind is not FIFO else 0
            entry.xattrs = xattrs.get(b"/proc/self/fd/%d" % item.fd, follow=True)
        if kind is not DIR and info.st_nlink > 1 and self._is_link(info, entry):
            entry.link = self._first_names[info.st_dev, info.st_ino]
        yield tarwrite.header(entry)

    def _is_link(self, info: os.stat_result, entry: Entry) -> bool:
        """Turns the second and later names of a file into hard links to the first."""
        first = self._first_names.setdefault((info.st_dev, info.st_ino), entry.path)
        if first == entry.path:
            return False
        entry.kind, entry.link, entry.xattrs, entry.rdev = HARDLINK, first, None, 0
        return True

    def _file(self, item: upper.Found, entry: Entry) -> Iterator[bytes]:
        if item.info.st_nlink > 1 and self._is_link(item.info, entry):
            yield tarwrite.header(entry)
            return
        fd = inroot.reopen_regular(item.fd, entry.path)
        try:
            entry.xattrs = xattrs.get(fd)
            entry.size = item.info.st_size
            if entry.size > DEFAULT_LIMITS.max_bytes:
                raise entry.error(f"{entry.size} bytes are too many for a layer")
            self.content_size += entry.size
            yield tarwrite.header(entry)
            yield from tarwrite.padded(iter(lambda: os.read(fd, BATCH), b""), entry.size)
        finally:
            os.close(fd)

    def _time(self, mtime_ns: int) -> int:
        seconds = mtime_ns // SECOND
        if self._latest is not None and seconds > self._latest:
            seconds = self._latest
        return seconds * SECOND


def _plain(chunks: Iterator[bytes]) -> Iterator[bytes]:
    return chunks


def _gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    from isal import isal_zlib  # a fifth of zlib's time at its level 1, and about its size

    member = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)  # 31: a gzip header, whose time stays 0
    for chunk in chunks:
        yield member.compress(chunk)
    yield member.flush()


def _reproducible_gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """zlib's own: ISA-L has one routine for each generation of processors, and their output may differ."""
    import zlib

    member = zlib.compressobj(6, zlib.DEFLATED, 31)
    for chunk in chunks:
        yield member.compress(chunk)
    yield member.flush()


def _zstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    frame = zstandard.ZstdCompressor(level=3).compressobj()
    for chunk in chunks:
        yield frame.compress(chunk)
    yield frame.flush()


# How a layer's chunks are compressed, by the name of its media type; push uses them too.
COMPRESSORS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {"": _plain, "gzip": _gzip, "zstd": _zstd}
