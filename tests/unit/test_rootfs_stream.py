# SPDX-License-Identifier: Apache-2.0
"""Byte streams: decompression with bounds, reading ahead, exact counts."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import threading
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard

from pyrun.rootfs import stream
from pyrun.rootfs.limits import ArchiveError, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = random.Random(1).randbytes(300_000) + bytes(700_000) + b"end"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}


def unpacked(data: bytes, limits: Limits | None = None, size: int = 10_000) -> bytes:
    kind, chunks = stream.sniffed(stream.chunks_of(io.BytesIO(data), size))
    return b"".join(stream.inflate(chunks, kind, limits or Limits()))


@pytest.mark.parametrize("size", [1, 7, 10_000, 1 << 20])
@pytest.mark.parametrize("kind", PACKERS)
def test_each_compression_is_recognised_and_undone(kind: str, size: int) -> None:
    """By the first bytes, however the input is cut into chunks."""
    text = TEXT if size > 100 else TEXT[299_000:303_000]
    packed = PACKERS[kind](text)
    assert stream.compression_of(packed) == kind
    assert unpacked(packed, size=size) == text


@pytest.mark.parametrize("kind", PACKERS)
def test_concatenated_members_are_read_on(kind: str) -> None:
    """pigz, eStargz and zstd --split write many; the standard tools read them all."""
    pack = PACKERS[kind]
    assert unpacked(pack(b"one") + pack(b"") + pack(TEXT) + pack(b"two")) == b"one" + TEXT + b"two"


def test_zero_padding_after_gzip_is_ignored() -> None:
    """As gzip(1) does for tapes."""
    assert unpacked(gzip.compress(b"x") + bytes(5000)) == b"x"


@pytest.mark.parametrize("kind", PACKERS)
def test_a_cut_stream_is_an_error(kind: str) -> None:
    """At any place, never a silent short result."""
    packed = PACKERS[kind](TEXT)
    for cut in (len(packed) - 1, len(packed) // 2, 20):
        with pytest.raises(ArchiveError, match=r"truncated|damaged"):
            unpacked(packed[:cut])


@pytest.mark.parametrize("kind", PACKERS)
def test_damaged_data_is_an_error(kind: str) -> None:
    """The library's exception becomes one line that names the compression."""
    packed = bytearray(PACKERS[kind](TEXT))
    packed[len(packed) // 2 : len(packed) // 2 + 20] = bytes(20)
    with pytest.raises(ArchiveError, match=kind):
        unpacked(bytes(packed))


def test_garbage_after_a_member_is_an_error() -> None:
    """What follows must be another member or zeros."""
    with pytest.raises(ArchiveError):
        unpacked(gzip.compress(b"x") + b"garbage")


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_stopped_by_its_ratio(kind: str) -> None:
    """40 MB of zeros in a few bytes: refused soon after the floor, not after all of it."""
    seen = 0
    packed = PACKERS[kind](bytes(40_000_000))
    with pytest.raises(ArchiveError, match="bomb"):
        for chunk in stream.inflate([packed], kind, Limits(max_ratio=20, ratio_floor=1_000_000)):
            seen += len(chunk)
    assert seen < 5_000_000


@pytest.mark.parametrize("kind", PACKERS)
def test_chunks_stay_small_whatever_the_ratio(kind: str) -> None:
    """Memory is bounded by the chunk size, not by what the archive expands to."""
    packed = PACKERS[kind](bytes(40_000_000))
    assert max(len(chunk) for chunk in stream.inflate([packed], kind, Limits())) <= stream.CHUNK


def test_an_xz_dictionary_cannot_ask_for_any_memory() -> None:
    """The dictionary size stands in the file: 1 GiB is refused before anything is allocated."""
    filters = [
        {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "mode": lzma.MODE_FAST, "nice_len": 4, "mf": lzma.MF_HC3}
    ]
    small = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    assert unpacked(small) == b"x"
    packed = bytearray(lzma.compress(b"x" * 100, filters=[{**filters[0], "dict_size": 1 << 20}]))
    header = packed[12 : 12 + (packed[12] + 1) * 4]
    position = bytes(header).index(b"\x21\x01") + 2
    header[position] = 36  # (2 | 0) << (36 / 2 + 11) = 1 GiB
    header[-4:] = zlib.crc32(bytes(header[:-4])).to_bytes(4, "little")
    packed[12 : 12 + len(header)] = header
    with pytest.raises(ArchiveError, match="xz"):
        unpacked(bytes(packed))


def test_read_ahead_hands_on_chunks_and_errors() -> None:
    """What the thread meets is raised where the chunks are used."""

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise ArchiveError("x", "broken")

    assert list(stream.read_ahead([b"a", b"b"])) == [b"a", b"b"]
    with pytest.raises(ArchiveError, match="broken"):
        list(stream.read_ahead(broken()))


def test_read_ahead_ends_its_thread_when_it_is_closed() -> None:
    """A reader that stops early leaves no thread, and no queue that somebody waits on."""
    before = threading.active_count()
    ahead = stream.read_ahead(bytes(10) for _ in range(10_000))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before


def test_bytes_are_counted_exactly() -> None:
    """take, skip, data and drain across chunk borders; the end is an error unless it was expected."""
    text = os.urandom(1000)
    for size in (1, 3, 512, 1000):
        source = stream.ByteStream(text[at : at + size] for at in range(0, 1000, size))
        assert source.take(10) == text[:10]
        source.begin(100)
        assert b"".join(map(bytes, source.data())) == text[10:110]
        assert source.position == 110
        source.skip(390)
        assert source.take(500) == text[500:]
        assert source.take(1, optional=True) == b""
        with pytest.raises(ArchiveError, match="truncated after 1000"):
            source.take(1)


def test_a_partial_block_is_truncation_even_if_an_end_was_expected() -> None:
    """`optional` allows nothing at all, not a piece."""
    with pytest.raises(ArchiveError, match="truncated"):
        stream.ByteStream([b"abc"]).take(4, optional=True)


def test_the_total_is_capped() -> None:
    """However it is consumed."""
    source = stream.ByteStream((bytes(1000) for _ in range(100)), Limits(max_bytes=5000))
    with pytest.raises(ArchiveError, match="more than 5000 bytes"):
        source.drain()
