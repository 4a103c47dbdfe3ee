# SPDX-License-Identifier: Apache-2.0
"""zstd streams: decoded in pieces of bounded size, and known to be whole at their end.

python-zstandard's reader gives no more than it is asked for, but takes a cut stream for one that ended. Its other
decoder knows the end of a frame, but gives all that its input holds, and a block of 4 bytes can stand for 128 KiB. So
the reader decodes, and beside it Frames follows the lengths in the stream to its end.
"""

from __future__ import annotations

from .limits import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# RFC 8878 recommends supporting windows of at least 8 MiB; `zstd --long` uses 128 MiB, and beyond it asks for memory
MAX_WINDOW = 1 << 27


def decoded(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The content of the frames in `chunks`, in pieces of at most `size` bytes; nothing for no chunks.

    Raises zstandard.ZstdError for damaged data, ArchiveError for a cut stream.
    """
    import zstandard

    source = _Source(chunks)
    context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    with context.stream_reader(source, read_size=size, read_across_frames=True) as reader:  # type: ignore[arg-type]
        while piece := reader.read(size):
            yield piece
    if not source.frames.whole:
        raise ArchiveError("zstd data", "truncated")


class _Source:
    """Chunks as the file that the reader wants, each shown to Frames."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.frames = Frames()

    def read(self, size: int = -1) -> bytes:
        for chunk in self._chunks:
            if chunk:
                self.frames.feed(chunk)
                return chunk
        return b""


class Frames:
    """Follows frames and blocks by their headers (RFC 8878, 3.1) and decodes nothing."""

    def __init__(self) -> None:
        self._skip = 0
        self._head = b""
        self._expect(4, self._magic)

    def _expect(self, size: int, then: Callable[[bytes], None]) -> None:
        self._want = size
        self._then = then

    @property
    def whole(self) -> bool:
        """Whether nothing is missing: so far no frame began that has not ended."""
        return not self._skip and not self._head and self._then == self._magic

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream. What is no header where one should be is the decoder's to report."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._want - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == self._want:
                    head, self._head = self._head, b""
                    self._then(head)
            at += step

    def _magic(self, head: bytes) -> None:
        skippable = head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
        self._expect(*((4, self._skippable) if skippable else (1, self._frame)))

    def _skippable(self, head: bytes) -> None:
        self._skip = int.from_bytes(head, "little")
        self._expect(4, self._magic)

    def _frame(self, head: bytes) -> None:
        """Frame_Header_Descriptor: which of the fields behind it are there."""
        flags = head[0]
        single = flags >> 5 & 1
        content_size = (1 if single else 0, 2, 4, 8)[flags >> 6]
        self._checksum = 4 if flags & 4 else 0
        self._skip = (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + content_size
        self._expect(3, self._block)

    def _block(self, head: bytes) -> None:
        """Block_Header: last, type (1 repeats a single byte), size."""
        value = int.from_bytes(head, "little")
        self._skip = 1 if value >> 1 & 3 == 1 else value >> 3
        if value & 1:
            self._skip += self._checksum
            self._expect(4, self._magic)
