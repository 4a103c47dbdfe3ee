# SPDX-License-Identifier: Apache-2.0
"""Tar headers: against the standard library's tarfile on generated archives, and one by one where tarfile is laxer."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tars
from pyrun.rootfs import tarread, tarwrite
from pyrun.rootfs.entry import Entry
from pyrun.rootfs.limits import ArchiveError, Limits
from pyrun.rootfs.stream import ByteStream

Read = list[tuple[Entry, bytes]]


def read(data: bytes, *, require_end: bool = True, chunk: int = 1000, **limits: Any) -> Read:
    pieces = (data[at : at + chunk] for at in range(0, len(data), chunk))
    bounds = Limits(**limits)
    source = ByteStream(pieces, bounds)
    found = []
    for entry in tarread.entries(source, bounds, require_end=require_end):
        found.append((entry, b"".join(map(bytes, source.data()))))
    return found


NAME = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff"),
    min_size=1, max_size=120,
).filter(lambda name: name not in (".", ".."))  # fmt: skip
PATHS = st.lists(NAME, min_size=1, max_size=4).map("/".join)
ENTRIES = st.fixed_dictionaries(
    {
        "name": PATHS,
        "kind": st.sampled_from(list(tars.KINDS)),
        "data": st.binary(max_size=1500),
        "mode": st.integers(0, 0o7777),
        "uid": st.integers(0, 2**32 - 2),
        "gid": st.integers(0, 2**32 - 2),
        "mtime": st.integers(-(2**33), 2**40),
        "linkname": PATHS,
        "devmajor": st.integers(0, 4095),
        "devminor": st.integers(0, 2**18 - 1),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRIES, max_size=5), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
def test_generated_archives_read_as_tarfile_reads_them(items: list[dict[str, Any]], form: Any, chunk: int) -> None:
    """Names, links, numbers beyond octal, non-UTF-8: what tarfile writes in both formats comes back the same."""
    members = []
    for item in items:
        fields = dict(item)
        data = fields.pop("data") if fields["kind"] == "file" else fields.pop("data")[:0]
        members.append(tars.member(fields.pop("name"), fields.pop("kind"), data, **fields))
    archive = tars.tar(*members, form=form)
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as other:
        expected = [(info, other.extractfile(info).read() if info.isreg() else b"") for info in other]  # type: ignore[union-attr]
    found = read(archive, chunk=chunk)
    assert len(found) == len(expected)
    for (entry, data), (info, other_data) in zip(found, expected, strict=True):
        assert data == other_data
        wanted = [p for p in info.name.encode("utf-8", "surrogateescape").split(b"/") if p]
        assert list(entry.parts) == wanted
        assert (entry.mode, entry.uid, entry.gid) == (info.mode, info.uid, info.gid)
        assert entry.mtime_ns == int(info.mtime) * 10**9
        if info.issym() or info.islnk():
            assert entry.link == info.linkname.encode("utf-8", "surrogateescape")


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=1200), st.integers(0, 1023), st.binary(min_size=1, max_size=40))
def test_any_bytes_are_entries_or_an_archive_error(noise: bytes, at: int, patch: bytes) -> None:
    """Random bytes, and a good archive with random bytes in its header, end in an ArchiveError or in entries."""
    good = bytearray(tars.tar(tars.member("a/b", data=b"x" * 600), tars.member("c", "symlink", linkname="d")))
    good[at : at + len(patch)] = patch
    checksum = sum(good[:148]) + 8 * 32 + sum(good[156:512])
    for data in (noise, bytes(good), bytes(good[:148] + b"%06o\0 " % checksum + good[156:])):
        try:
            found = read(data)
        except ArchiveError:
            continue
        for entry, _ in found:
            assert b".." not in entry.parts
            assert all(part and b"/" not in part and b"\0" not in part for part in entry.parts)


@pytest.mark.parametrize("form", ["gnu", "posix", "oldgnu", "ustar", "v7"])
def test_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    """Every format of GNU tar, from real files."""
    top = tmp_path / "top"
    top.mkdir()
    long = "l" * (120 if form in ("gnu", "posix", "oldgnu") else 60)
    (top / long).write_bytes(b"content")
    (top / "link").symlink_to("target/" + long[:80])
    (top / "twin").hardlink_to(top / long)
    (top / "dir").mkdir(mode=0o750)
    archive = subprocess.run(
        ["tar", f"--format={form}", "--sort=name", "-C", top, "-c", "."], check=True, stdout=subprocess.PIPE
    ).stdout
    found = {entry.path.decode(): (entry, data) for entry, data in read(archive)}
    assert set(found) == {"", long, "link", "twin", "dir"}
    assert {found[long][1], found["twin"][1]} == {b"content", b""}
    assert found["link"][0].link == ("target/" + long[:80]).encode()
    assert found["dir"][0].mode == 0o750


@pytest.mark.parametrize(
    "form", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_all_four_sparse_forms(tmp_path: Path, form: list[str]) -> None:
    """Regions and real size as GNU tar stores them, with more regions than fit the first header."""
    with open(tmp_path / "sparse", "wb") as file:
        for at in range(0, 60 * 65536, 131072):
            file.seek(at)
            file.write(b"%8d" % at)
        file.truncate(8_000_000)
    archive = subprocess.run(
        ["tar", *form, "-S", "-C", tmp_path, "-c", "sparse"], check=True, stdout=subprocess.PIPE
    ).stdout
    assert len(archive) < 1_000_000
    ((entry, data),) = read(archive)
    assert entry.path == b"sparse"
    assert entry.real_size == 8_000_000
    assert entry.regions is not None
    content = bytearray(8_000_000)
    at = 0
    for offset, length in entry.regions:
        content[offset : offset + length] = data[at : at + length]
        at += length
    assert at == len(data) == entry.size
    assert bytes(content) == (tmp_path / "sparse").read_bytes()


def pax(name: str, **records: str) -> bytes:
    return tars.tar(tars.member(name, data=b"xy", pax_headers=records))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1.5", 1_500_000_000),
        ("-1.5", -1_500_000_000),
        ("0.000000001", 1),
        ("7", 7 * 10**9),
        ("1.1234567891", 1_123_456_789),
    ],
)
def test_pax_times_keep_nanoseconds(text: str, nanoseconds: int) -> None:
    """Decimal seconds, exactly, also before 1970."""
    assert read(pax("a", mtime=text))[0][0].mtime_ns == nanoseconds


def test_xattrs_come_from_pax_records() -> None:
    """SCHILY.xattr.*, bytes as they are."""
    entry = Entry((b"a",), "file", xattrs={b"user.x": b"\0\xff=\n"})
    ((found, _),) = read(tarwrite.header(entry) + bytes(1024))
    assert found.xattrs == {b"user.x": b"\0\xff=\n"}


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (b"", "empty"),
        (b"x" * 512, "no tar header"),
        (b"x" * 100, "truncated"),
        (tars.tar(tars.member("a", data=b"x" * 600), end=False), "truncated"),
        (tars.tar(tars.member("a", data=b"x" * 600))[:700], "truncated"),
        (tars.tar(tars.member("a")) [:512] + bytes(512) + b"y" * 512, "single zero block"),
        (tars.tar(tars.member("../a")), r"'\.\.'"),
        (tars.tar(tars.member("a/../../b")), r"'\.\.'"),
        (tars.tar(tars.member("a", kind="Q")), "unknown entry type"),
        (tars.tar(tars.member("a", "symlink")), "without a target"),
        (pax("a", path="b\0c"), "NUL"),
        (pax("a", size="-1"), "bad size"),
        (pax("a", size="1_0"), "bad size"),
        (pax("a", size="٣"), "bad size"),
        (pax("a", size="9" * 21), "bad size"),
        (pax("a", uid="4294967295"), "uid 4294967295 is out of range"),
        (pax("a", gid="+5"), "bad gid"),
        (pax("a", mtime="1e5"), "bad mtime"),
        (tars.tar(tars.member("a", "char", devmajor=4096)), "device number"),
        (tars.tar(tars.member("a", pax_headers={"comment": "x" * 70_000})), "extension header of"),
        (tars.tar(tars.member("/".join("x" * 300))), "directories deep"),
    ],
)  # fmt: skip
def test_what_is_refused(archive: bytes, why: str) -> None:
    """Each with the reason, and with the entry's name where there is one."""
    with pytest.raises(ArchiveError, match=why):
        read(archive, max_meta=65536)


def test_an_archive_cut_between_entries_is_noticed_when_asked() -> None:
    """Without the end mark it may be whole or cut: only a digest can tell, so layers allow it."""
    archive = tars.tar(tars.member("a"), end=False)
    assert len(read(archive, require_end=False)) == 1
    with pytest.raises(ArchiveError, match="no end mark"):
        read(archive)


def test_too_many_entries() -> None:
    """The cap counts entries, not bytes."""
    with pytest.raises(ArchiveError, match="more than 10 entries"):
        read(tars.tar(*(tars.member(str(n)) for n in range(11))), max_entries=10)


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.map": "0,2,1,2", "GNU.sparse.size": "10"},  # overlapping
        {"GNU.sparse.map": "8,4", "GNU.sparse.size": "10"},  # beyond the end
        {"GNU.sparse.map": "0,1", "GNU.sparse.size": "10"},  # does not account for the data
        {"GNU.sparse.map": "0,x", "GNU.sparse.size": "10"},
        {"GNU.sparse.size": "9223372036854775807", "GNU.sparse.map": "0,2"},  # 8 EiB
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},  # no map in the data
    ],
)
def test_bad_sparse_maps(records: dict[str, str]) -> None:
    """A map that overlaps, leaves the file or does not fit the data is an error, not a guess."""
    with pytest.raises(ArchiveError):
        read(pax("a", **records))


def test_endless_extension_headers() -> None:
    """A row of headers that never comes to an entry is given up."""
    one = tars.member("x", kind="x", data=b"11 path=xx\n")
    with pytest.raises(ArchiveError, match="extension headers"):
        read(tars.tar(*[one] * 50))


def test_a_global_header_changes_nothing() -> None:
    """git archive's comment; a global path or size would apply to every later entry in tarfile."""
    archive = tars.tar(tars.member("g", kind="g", data=b"11 path=no\n"), tars.member("yes"))
    assert [entry.path for entry, _ in read(archive)] == [b"yes"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(NAME.map(lambda name: name.encode("utf-8", "surrogateescape")), min_size=1, max_size=3),
    st.sampled_from(["file", "dir", "symlink", "hardlink", "fifo"]),
    st.integers(-(10**18), 2**62),
    st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=30), max_size=2),
)
def test_what_tarwrite_writes_tarread_reads(
    parts: list[bytes], kind: str, mtime: int, attributes: dict[bytes, bytes]
) -> None:
    """Names that are not UTF-8, nanoseconds and attributes survive the round trip."""
    entry = Entry(tuple(parts), kind, 0o4755, 2**32 - 2, 70000, 0, mtime, b"t\xff/x", xattrs=attributes or None)
    ((found, _),) = read(tarwrite.header(entry) + bytes(1024))
    assert (found.parts, found.kind, found.mode, found.uid, found.gid) == (entry.parts, kind, 0o4755, 2**32 - 2, 70000)
    assert found.mtime_ns == mtime
    assert (found.xattrs or {}) == attributes
    if kind in ("symlink", "hardlink"):
        assert found.link == b"t\xff/x"
