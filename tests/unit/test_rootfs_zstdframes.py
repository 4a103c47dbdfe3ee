# SPDX-License-Identifier: Apache-2.0
"""zstd frames followed by their lengths: a stream that was cut is told from one that ended."""

from __future__ import annotations

import random

import pytest
import zstandard

from pyrun.rootfs import zstdframes
from pyrun.rootfs.limits import ArchiveError

CHOOSE = random.Random(7)
TEXT = CHOOSE.randbytes(3000) + bytes(200_000) + b"abc" * 5000
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"


def frame(data: bytes, level: int = 3, *, checksum: bool = False, size: bool = True) -> bytes:
    """One frame; without its content's size as a stream that was not known beforehand."""
    return zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=size).compress(data)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


FRAMES = [
    frame(data, level, checksum=checksum, size=size)
    for data in (b"", b"x", bytes(300), TEXT, TEXT * 3)
    for level in (1, 19)
    for checksum in (False, True)
    for size in (False, True)
]


@pytest.mark.parametrize("number", range(len(FRAMES)))
def test_whole_at_the_end_and_nowhere_before(number: int) -> None:
    """Byte by byte: only the last one makes it whole."""
    packed = FRAMES[number]
    frames = zstdframes.Frames()
    assert frames.whole
    seen = []
    for at in range(len(packed)):
        frames.feed(packed[at : at + 1])
        seen.append(frames.whole)
    assert seen == [False] * (len(packed) - 1) + [True]


def test_many_frames_and_skippable_ones() -> None:
    """In any order, however the input is cut."""
    for size in (1, 2, 5, 1000, 1 << 20):
        chosen = [CHOOSE.choice([*FRAMES, SKIPPABLE]) for _ in range(6)]
        whole = b"".join(chosen)
        frames = zstdframes.Frames()
        for piece in pieces(whole, size):
            frames.feed(piece)
        assert frames.whole
        frames.feed(SKIPPABLE[:-1])
        assert not frames.whole


def test_what_is_decoded_comes_in_small_pieces() -> None:
    """600 MB out of a few KB, never more than asked for at once."""
    packed = frame(bytes(600_000_000), 19)
    sizes = [len(piece) for piece in zstdframes.decoded(iter([packed]), 100_000)]
    assert (sum(sizes), max(sizes)) == (600_000_000, 100_000)


@pytest.mark.parametrize("size", [1, 3000, 1 << 20])
def test_cut_streams_are_refused(size: int) -> None:
    """Wherever they end: within a header, a block, the checksum, or a second frame."""
    packed = frame(TEXT, checksum=True) + frame(b"second", checksum=True)
    assert b"".join(zstdframes.decoded(iter(pieces(packed, size)), 999)) == TEXT + b"second"
    first = len(frame(TEXT, checksum=True))
    for cut in {1, 3, 5, 8, 100, first - 1, first - 4, first + 2, len(packed) - 1, len(packed) - 5}:
        with pytest.raises(ArchiveError, match="truncated"):
            list(zstdframes.decoded(iter(pieces(packed[:cut], size)), 1 << 18))


def test_damage_is_the_decoders_to_report() -> None:
    """Rubbish instead of a frame, and one flipped bit under a checksum."""
    packed = bytearray(frame(TEXT, checksum=True))
    packed[-1] ^= 1
    for bad in (bytes(packed), b"no zstd at all", frame(b"x") + b"rubbish"):
        with pytest.raises(zstandard.ZstdError):
            list(zstdframes.decoded(iter([bad]), 1 << 18))
