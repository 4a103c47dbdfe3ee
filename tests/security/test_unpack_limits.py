# SPDX-License-Identifier: Apache-2.0
"""Hostile layers: bombs of every kind, damage, wrong digests."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import tarfile
from collections.abc import Callable

import pytest
import zstandard

import tars
from pyrun.rootfs.limits import ArchiveError, Limits
from requires import requires
from security.layer_place import Place, write

pytestmark = requires(root=True)


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_a_sparse_bomb_is_refused(place: Place) -> None:
    """8 EiB in one header; and many regions that a header cannot hold."""
    huge = tars.member("x", data=b"ab", pax_headers={"GNU.sparse.map": "0,2", "GNU.sparse.size": str(2**62)})
    assert "'x'" in str(place.refuse(huge, why="the limit is"))


def test_an_honest_sparse_file_takes_no_room(place: Place) -> None:
    """/var/log/lastlog: a terabyte of hole, one block of data."""
    size = 1 << 40
    records = {"GNU.sparse.map": f"{size - 2},2", "GNU.sparse.size": str(size)}
    place.unpack(tars.member("lastlog", data=b"ab", pax_headers=records))
    found = os.stat(place.fs / "lastlog")
    assert found.st_size == size
    assert found.st_blocks < 100
    with open(place.fs / "lastlog", "rb") as file:
        file.seek(size - 2)
        assert file.read() == b"ab"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": zstandard.compress, "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_refused(place: Place, kind: str) -> None:
    """A gigabyte of zeros in a megabyte: stopped at the ratio, not after filling the disk."""
    bomb = PACKERS[kind](tars.tar(tars.member("zeros", data=bytes(50_000_000))))
    with pytest.raises(ArchiveError, match="expands more than 100 times"):
        place.unpack_bytes(bomb, Limits(max_ratio=100, ratio_floor=5_000_000))
    assert (place.fs / "zeros").stat().st_size < 15_000_000


def test_a_nested_bomb_is_capped_by_its_total(place: Place) -> None:
    """Many members that are each below the ratio."""
    data = random.Random(0).randbytes(100_000)
    members = [tars.member(str(n), data=data) for n in range(100)]
    place.refuse(*members, why="more than 2000000 bytes", limits=Limits(max_bytes=2_000_000))


def test_millions_of_entries_are_capped(place: Place) -> None:
    """Inodes are used up long before bytes are."""
    members = [tars.member(f"f{n}") for n in range(2000)]
    place.refuse(*members, why="more than 1000 entries", limits=Limits(max_entries=1000))
    assert len(os.listdir(place.fs)) == 1000


def test_a_path_of_a_thousand_directories(place: Place) -> None:
    """The depth is capped, so that whoever walks the tree later has stack and fds enough."""
    place.refuse(write("/".join(["d"] * 1000)), why="more than 256 directories deep")
    place.unpack(write("/".join(["d"] * 256)))


def test_a_name_too_long_for_the_file_system(place: Place) -> None:
    """ENAMETOOLONG, with the entry, cut to a readable length."""
    error = place.refuse(write("n" * 5000), why="file name too long")
    assert len(str(error)) < 500


def test_a_pax_header_of_a_gigabyte(place: Place) -> None:
    """Extension headers are held in memory, so their size is checked before they are read."""
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 30
    with pytest.raises(ArchiveError, match="extension header of 1073741824 bytes"):
        place.unpack_bytes(info.tobuf() + bytes(4096))


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [100, 512, 700, 1100, 2048])
def test_a_truncated_layer(place: Place, cut: int) -> None:
    """At every boundary: by the tar itself or, between entries, by its diff-id."""
    whole = tars.tar(write("a", b"x" * 600), write("b", b"y" * 600))
    with pytest.raises(ArchiveError, match="truncated|diff-id"):
        place.unpack_bytes(whole[:cut], diff_id=tars.sha256(whole))


def test_a_wrong_digest_and_a_wrong_diff_id(place: Place) -> None:
    """Both are compared, and both numbers shown."""
    layer = tars.tar(write("a"))
    other = tars.sha256(b"other")
    with pytest.raises(ArchiveError, match=tars.sha256(layer)):
        place.unpack_bytes(layer, digest=other)
    with pytest.raises(ArchiveError, match="diff-id"):
        place.unpack_bytes(gzip.compress(layer), digest="", diff_id=other)


def test_bytes_after_the_end_mark_count_for_the_diff_id(place: Place) -> None:
    """Padding is part of the layer; a different tail is a different layer."""
    layer = tars.tar(write("a"))
    padded = layer + bytes(9216)
    assert place.unpack_bytes(padded).diff_id == tars.sha256(padded)
    with pytest.raises(ArchiveError, match="diff-id"):
        place.unpack_bytes(padded, diff_id=tars.sha256(layer))
