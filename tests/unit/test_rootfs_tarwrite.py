# SPDX-License-Identifier: Apache-2.0
"""Tar headers against another reader: the standard library's tarfile sees what was meant."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs import tarwrite
from pyrun.rootfs.entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, SOCKET, SYMLINK, Entry

KINDS = {FILE: b"0", HARDLINK: b"1", SYMLINK: b"2", CHAR: b"3", BLOCK: b"4", DIR: b"5", FIFO: b"6"}
components = st.binary(min_size=1, max_size=150).filter(lambda name: b"\0" not in name and b"/" not in name)
paths = st.lists(components.filter(lambda name: name not in (b".", b"..")), min_size=1, max_size=4).map(tuple)
values = st.dictionaries(
    st.text("abcdefghij._", min_size=1, max_size=90).map(lambda name: f"user.{name}".encode()),
    st.binary(max_size=120),
    max_size=3,
)


def read(entry: Entry) -> tarfile.TarInfo:
    """The one entry of an archive of it, as tarfile reads it, which checks the sum."""
    archive = io.BytesIO(tarwrite.header(entry) + bytes(1024))
    (found,) = tarfile.open(fileobj=archive, mode="r:", encoding="utf-8", errors="surrogateescape").getmembers()
    return found


@given(
    parts=paths,
    kind=st.sampled_from(sorted(set(KINDS) - {FILE})),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(-(2**62), 2**62),
    link=paths.map(b"/".join),
    extra=values,
)
def test_any_entry_is_read_as_it_was_written(
    parts: tuple[bytes, ...],
    kind: str,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    link: bytes,
    extra: dict[bytes, bytes],
) -> None:
    """Long and non-UTF-8 names, large ids, times before 1970 and after 2242, attributes with any bytes."""
    device = os.makedev(7, 300) if kind in (CHAR, BLOCK) else 0
    target = link if kind in (SYMLINK, HARDLINK) else b""
    found = read(Entry(parts, kind, mode, uid, gid, mtime_ns=mtime_ns, link=target, rdev=device, xattrs=extra))
    assert os.fsencode(found.name).rstrip(b"/") == b"/".join(parts).rstrip(b"/")
    assert found.type == KINDS[kind]
    assert (found.mode, found.uid, found.gid) == (mode, uid, gid)
    assert abs(found.mtime - mtime_ns / 10**9) < 1e-3
    assert os.fsencode(found.linkname) == target
    assert os.makedev(found.devmajor, found.devminor) == device
    for key, value in extra.items():
        assert os.fsencode(found.pax_headers[f"SCHILY.xattr.{os.fsdecode(key)}"]) == value


@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 156, 255, 256])
@pytest.mark.parametrize("kind", [FIFO, DIR])
def test_names_at_the_limits(length: int, kind: str) -> None:
    """100 bytes fit into a header, the slash of a directory counted; longer ones come in a record."""
    assert read(Entry((b"n" * length,), kind)).name == "n" * length
    blocks = len(tarwrite.header(Entry((b"n" * length,), kind))) // 512
    assert blocks == (1 if length + (kind is DIR) <= 100 else 3)


@pytest.mark.parametrize("length", range(80, 100))
def test_a_record_counts_the_digits_of_its_own_length(length: int) -> None:
    """Where one more digit makes the record one longer."""
    value = b"v" * length
    assert read(Entry((b"n",), FIFO, xattrs={b"user.a": value})).pax_headers["SCHILY.xattr.user.a"] == "v" * length


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 0o77777777777, 0o77777777777 + 1, 2**40])
def test_sizes_at_the_limits(size: int) -> None:
    """A header holds 8 GiB; more comes in a record."""
    block = tarwrite.header(Entry((b"large",), FILE, size=size))
    info = tarfile.TarInfo.frombuf(block[-512:], "utf-8", "surrogateescape")
    assert info.size == (size if size <= 0o77777777777 else 0)
    assert (b" size=%d\n" % size in block) == (size > 0o77777777777)


def test_a_plain_entry_is_one_block() -> None:
    """No records for what a header can hold: a layer of small files would be three times as large."""
    assert len(tarwrite.header(Entry((b"usr", b"bin"), DIR, 0o755, 1000, 1000, mtime_ns=1_700_000_000 * 10**9))) == 512


def test_sockets_are_left_out_and_files_are_filled_up() -> None:
    """What shrank while it was read is padded, what grew is cut."""
    entries = [
        (Entry((b"sock",), SOCKET), []),
        (Entry((b"short",), FILE, size=1000), [b"x" * 10]),
        (Entry((b"long",), FILE, size=3), [b"ab", b"cd", b"ef"]),
        (Entry((b"none",), FILE), []),
    ]
    with tarfile.open(fileobj=io.BytesIO(b"".join(tarwrite.tar(entries)))) as archive:
        content = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]  # files
    assert content == {"short": b"x" * 10 + bytes(990), "long": b"abc", "none": b""}
