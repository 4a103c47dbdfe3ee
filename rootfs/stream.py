# SPDX-License-Identifier: Apache-2.0
"""Byte streams: chunks from a file, decompressed, hashed, read ahead by a thread, and handed out by the byte.

A compressed layer goes chunks_of(file) -> hashed(…) -> inflate(…) -> hashed(…) -> read_ahead(…) -> ByteStream. ISA-L,
zstd and SHA-256 release the interpreter lock, so a second core decompresses while the first creates files (measured:
0.94 of the time). A plain layer is not read ahead: hashing costs less than handing chunks from thread to thread.
"""

from __future__ import annotations

from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, Protocol

    class Readable(Protocol):
        """Anything with read(n): a file, a socket's file, BytesIO."""

        def read(self, size: int, /) -> bytes: ...


CHUNK = 1 << 18  # 256 KiB: measured flat from 128 KiB to 1 MiB, and four of them in flight fit in a small cache
AHEAD = 8  # chunks in the read-ahead queue: 2 MiB, enough to ride out a run of small files

MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}


def compression_of(head: bytes) -> str:
    """ "gzip", "zstd", "xz", "bzip2", or "" by the first bytes of a stream (6 are enough)."""
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    return ""


def chunks_of(file: Readable, size: int = CHUNK) -> Iterator[bytes]:
    """The content of `file` from where it stands, in chunks of at most `size` bytes."""
    while chunk := file.read(size):
        yield chunk


def hashed(chunks: Iterable[bytes], digest: hashlib._Hash) -> Generator[bytes, None, None]:
    """The same chunks, each fed to `digest` before it is handed on."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def sniffed(chunks: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The compression of a stream, and the stream with nothing taken from it."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= 6:
            break
    return compression_of(head), _chain(head, chunks)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def inflate(chunks: Iterable[bytes], compression: str, limits: Limits = DEFAULT_LIMITS) -> Generator[bytes, None, None]:
    """The decompressed stream in chunks of about CHUNK bytes; concatenated members are read on, as gzip(1) does.

    Raises ArchiveError for damaged or cut data and for a ratio above limits.max_ratio.
    """
    if not compression:
        yield from chunks
        return
    taken = given = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for chunk in chunks:
            taken += len(chunk)
            yield chunk

    decode, errors = _decoder(compression)
    try:
        for block in decode(counted()):
            given += len(block)
            if given > limits.ratio_floor and given > taken * limits.max_ratio:
                raise ArchiveError(f"{compression} data", f"expands more than {limits.max_ratio} times: a bomb?")
            yield block
    except errors as error:
        why = str(error).lower()  # ISA-L: "Error -6 Incorrect checksum found"
        why = why.split(" ", 2)[2] if why.startswith("error -") and why.count(" ") > 1 else why
        raise ArchiveError(f"{compression} data", f"damaged: {why}") from error


def _decoder(
    compression: str,
) -> tuple[Callable[[Iterator[bytes]], Iterator[bytes]], type[Exception] | tuple[type[Exception], ...]]:
    """The generator that decodes, and what its library raises. Imported here: a plain layer needs none of them."""
    if compression == "gzip":
        from isal import igzip_lib  # 0.37 of zlib's time (measured)

        # ISA-L checks the header and the trailer's CRC and length
        new = lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)  # noqa: E731
        failure: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub makes it an instance
        return lambda chunks: _members(chunks, new, "gzip"), failure
    if compression == "zstd":
        import zstandard

        from . import zstdframes

        return lambda chunks: zstdframes.decoded(chunks, CHUNK), zstandard.ZstdError
    if compression == "xz":
        import lzma

        # memlimit: the dictionary size stands in the file, and xz allows 4 GiB; `xz -9` needs 65 MiB
        return lambda chunks: _members(chunks, lambda: lzma.LZMADecompressor(memlimit=1 << 28), "xz"), (
            lzma.LZMAError,
            EOFError,
        )
    import bz2

    return lambda chunks: _members(chunks, bz2.BZ2Decompressor, "bzip2"), (OSError, EOFError, ValueError)


def _members(chunks: Iterator[bytes], new: Callable[[], Any], name: str) -> Iterator[bytes]:
    """gzip, bz2 and lzma decompressors: the same interface, one object for each member."""
    member = new()
    started = False
    for data in chunks:
        while data or (started and not member.needs_input):
            if not started and not data.strip(b"\0"):
                break
            started = True
            block = member.decompress(data, CHUNK)
            data = b""
            if block:
                yield block
            if member.eof:
                data, member, started = member.unused_data, new(), False
    if started:
        raise ArchiveError(f"{name} data", "truncated")


def read_ahead(chunks: Iterable[bytes], depth: int = AHEAD) -> Generator[bytes, None, None]:
    """The same chunks, produced by a thread of their own up to `depth` chunks ahead; its exception is raised here.

    Closing the generator stops the thread. The thread only computes: it holds no lock and changes nothing.
    """
    import queue
    import threading

    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(depth)
    stopped = False

    def produce() -> None:
        last: BaseException | None = None
        try:
            for chunk in chunks:
                ready.put(chunk)
                if stopped:
                    return
        except BaseException as error:  # it is raised in the consumer
            last = error
        ready.put(last)

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped = True
        while thread.is_alive():
            try:
                ready.get_nowait()  # makes room for a producer that waits in put()
            except queue.Empty:
                thread.join(0.01)


class ByteStream:
    """Chunks handed out by the byte, with a position and a cap on the total.

    `begin(n)` opens a run of n data bytes; data() yields them as memoryviews (valid until the next call), `remaining`
    says how many are left. Raises ArchiveError when the stream ends early or exceeds limits.max_bytes.
    """

    def __init__(self, chunks: Iterable[bytes], limits: Limits = DEFAULT_LIMITS) -> None:
        self._chunks = iter(chunks)
        self._view = memoryview(b"")
        self._read = 0
        self._max = limits.max_bytes
        self.remaining = 0

    @property
    def position(self) -> int:
        """How many bytes have been handed out."""
        return self._read - len(self._view)

    def _more(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._view = memoryview(chunk)
                self._read += len(chunk)
                if self._read > self._max:
                    raise ArchiveError("archive", f"more than {self._max} bytes uncompressed")
                return True
        return False

    def take(self, size: int, *, optional: bool = False) -> bytes:
        """Exactly `size` bytes; with `optional`, b"" if the stream has ended just here."""
        view = self._view
        if len(view) >= size:
            self._view = view[size:]
            return view[:size].tobytes()
        got = view.tobytes()
        self._view = memoryview(b"")
        parts = [got]
        missing = size - len(got)
        while missing:
            if not self._more():
                if optional and missing == size:
                    return b""
                raise self._cut()
            piece = self._view[:missing]
            self._view = self._view[len(piece) :]
            parts.append(piece.tobytes())
            missing -= len(piece)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Drops `size` bytes."""
        while size:
            if not len(self._view) and not self._more():
                raise self._cut()
            step = min(size, len(self._view))
            self._view = self._view[step:]
            size -= step
        self.remaining = 0

    def begin(self, size: int) -> None:
        """The next `size` bytes are what data() yields."""
        self.remaining = size

    def data(self) -> Iterator[memoryview]:
        """What is left of the current run of data."""
        while self.remaining:
            if not len(self._view) and not self._more():
                raise self._cut()
            piece = self._view[: self.remaining]
            self._view = self._view[len(piece) :]
            self.remaining -= len(piece)
            yield piece

    def drain(self) -> None:
        """Reads to the end of the stream: trailing padding belongs to a layer's digest."""
        self._view = memoryview(b"")
        while self._more():
            self._view = memoryview(b"")

    def _cut(self) -> ArchiveError:
        none = ", or no archive at all" if self._read < 512 else ""  # less than one tar header
        return ArchiveError("archive", f"truncated after {self._read} bytes{none}")
