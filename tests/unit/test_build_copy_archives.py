# SPDX-License-Identifier: Apache-2.0
"""What is an archive is told from the first bytes, and nothing that they hold makes that fail."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import tars
from pyrun.rootfs.build.archives import head_is_archive, is_archive

PLAIN = tars.tar(tars.member("a" * 150, data=b"x" * 3000, pax_headers={"comment": "c"}), tars.member("b", "dir"))
PACKED = [
    PLAIN, gzip.compress(PLAIN), bz2.compress(PLAIN), lzma.compress(PLAIN), zstandard.ZstdCompressor().compress(PLAIN),
]  # fmt: skip


@pytest.mark.parametrize("data", PACKED)
def test_archives_of_all_kinds(data: bytes) -> None:
    """With a long name in a header of its own, whole or cut behind the first entry's headers."""
    assert is_archive(io.BytesIO(data))


def test_the_head_of_a_long_archive_is_enough() -> None:
    """A file that is far larger than what is looked at."""
    big = tars.tar(tars.member("big", data=bytes(range(256)) * 4000))
    assert head_is_archive(big[: 1 << 16])
    assert head_is_archive(gzip.compress(big)[: 1 << 16])


@given(st.sampled_from(PACKED), st.integers(0, 600), st.integers(0, 255), st.integers(0, 4000))
def test_damage_is_no_exception(data: bytes, at: int, byte: int, length: int) -> None:
    """A changed byte, a cut: an archive or none, never an error."""
    damaged = bytearray(data[:length])
    if at < len(damaged):
        damaged[at] = byte
    assert head_is_archive(bytes(damaged)) in (True, False)


@given(st.sampled_from([b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b""]), st.binary(max_size=200))
def test_rubbish_is_no_archive(magic: bytes, rest: bytes) -> None:
    """A magic number alone makes none."""
    assert not head_is_archive(magic + rest)
