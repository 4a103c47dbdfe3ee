# SPDX-License-Identifier: Apache-2.0
"""Layers at random: whatever their entries do to one another, nothing outside changes, and what is inside is right.

Right is what a model says that knows the rules and makes no system call (layer_model.py): the same tree, or an error
that names the entry. Bounded by default; PYRUN_FUZZ=50 runs fifty times as many examples.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import tars
from pyrun.rootfs import stream, tarread
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs.entry import show
from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.limits import ArchiveError, Limits
from pyrun.rootfs.tree import TreeWriter
from requires import requires
from security.layer_model import Layer, Node, Refused

pytestmark = requires(root=True)

TIMES = int(os.environ.get("PYRUN_FUZZ", "1"))
LIMITS = Limits(max_bytes=50_000_000, max_entries=1000, max_file_size=1 << 30, ratio_floor=1 << 24)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
READ = ("user.note", "security.capability", "trusted.overlay.opaque")


def bounded(examples: int) -> Any:
    return settings(
        max_examples=examples * TIMES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )


# What is outside -----------------------------------------------------------------------------------------------------


def seen(top: str) -> dict[str, tuple[Any, ...]]:
    """All there is to see of a tree: names, metadata with change times, links, attributes, content."""
    found = {}
    for directory, folders, files in os.walk(top):
        for name in (".", *folders, *files):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            content: bytes | str = b""
            if stat.S_ISREG(info.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[path] = (
                info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_ino, info.st_rdev, info.st_mtime_ns,
                info.st_ctime_ns, sorted(os.listxattr(path, follow_symlinks=False)), content,
            )  # fmt: skip
    return found


class Place:
    """A directory in memory with a layer to fill, and a tree beside and above it that nobody may touch."""

    def __init__(self) -> None:
        self.base = tempfile.mkdtemp(prefix="pyrun-test-", dir="/dev/shm")
        outside = Path(self.base, "outside")
        (outside / "a" / "b").mkdir(parents=True)
        for name in ("precious", "a/b/c", "a/passwd"):
            (outside / name).write_text(name)
        os.symlink("precious", outside / "link")
        os.link(outside / "precious", outside / "a" / "same")
        os.mkfifo(outside / "fifo")
        os.mknod(outside / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        self.outside = str(outside)
        self.before = seen(self.outside)
        self.number = 0
        self.fs = ""

    def fresh(self) -> int:
        """An fd of a new layer directory."""
        if self.fs:
            remove_path(os.path.dirname(self.fs))
        self.number += 1
        self.fs = f"{self.base}/layer{self.number}/fs"
        os.makedirs(self.fs)
        return unpacking.open_root(self.fs)

    def check(self) -> None:
        """Nothing outside changed, nothing came beside the layer."""
        assert seen(self.outside) == self.before
        assert sorted(os.listdir(self.base)) == [f"layer{self.number}", "outside"]
        assert os.listdir(os.path.dirname(self.fs)) == ["fs"]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    found = Place()
    yield found
    shutil.rmtree(found.base)


# Entries -------------------------------------------------------------------------------------------------------------

NAMES = [b"a", b"b", b"c"]
PART = st.sampled_from([*NAMES, *NAMES, *NAMES, b"\xff\xfe", b"\xc3\xa9", b"n" * 120, b"..", b".", b""])
HIDDEN = st.sampled_from([b".wh.a", b".wh.b", b".wh.c", b".wh..wh..opq", b".wh.", b".wh..", b".wh..wh.aufs"])
PLAIN = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
PATH = st.one_of(
    PLAIN,
    PLAIN,
    st.lists(PART, min_size=1, max_size=4).map(b"/".join),
    st.tuples(PLAIN, HIDDEN).map(b"/".join),
    HIDDEN,
    st.sampled_from([b".", b"/", b"./", b"/a/b", b"//a", b"a/", b"x" * 256, b"d/" * 90 + b"x"]),
)
OUT = [b"..", b"../..", b"../../outside", b"/outside", b"/proc/self/root", b"../outside/a", b"/..", b"/etc", b"/"]
TARGET = st.one_of(PLAIN, PLAIN, PATH, st.sampled_from(OUT), PLAIN.map(lambda path: b"/" + path))
XATTRS: Any = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "user.note": st.binary(min_size=1, max_size=40),
            "security.selinux": st.just(b"label"),
            "security.ima": st.just(b"hash"),
            "trusted.overlay.opaque": st.just(b"y"),
            "user.overlay.redirect": st.just(b"/etc"),
        },
    ),
)
KIND = st.sampled_from(["file"] * 4 + ["dir"] * 4 + ["symlink"] * 4 + ["hardlink"] * 3 + ["fifo", "char", "block"])


class Made(NamedTuple):
    """One entry as it is put into an archive and into the model."""

    name: bytes
    kind: str
    target: bytes
    content: bytes
    holes: bool
    meta: tuple[int, int, int, int]
    device: tuple[int, int]
    xattrs: dict[str, bytes]


ENTRY = st.builds(
    Made,
    name=PATH,
    kind=KIND,
    target=TARGET,
    content=st.one_of(st.binary(max_size=30), st.sampled_from([b"", b"x" * 70_000, b"y" * 512])),
    holes=st.sampled_from([False, False, False, True]),
    meta=st.tuples(
        st.sampled_from([0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o000, 0o600, 0o6777]),
        st.sampled_from([0, 0, 1000, 65534, 2**21 + 5, 2**32 - 2]),
        st.sampled_from([0, 0, 33, 2**32 - 2]),
        st.sampled_from([0, 1, 1_700_000_000, 2**31 + 9]),
    ),
    device=st.sampled_from([(0, 0), (1, 3), (8, 0), (4095, 2**20 - 1)]),
    xattrs=XATTRS,
)


def member(entry: Made) -> bytes:
    """The entry's blocks. Files with holes in GNU's pax form 1.0: the map stands before the data."""
    pax = {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs.items()}
    data = entry.content if entry.kind == "file" else b""
    fields: dict[str, Any] = dict(zip(("mode", "uid", "gid", "mtime"), entry.meta, strict=True))
    name = os.fsdecode(entry.name)
    if entry.kind == "file" and entry.holes and name:
        text = b"1\n%d\n%d\n" % (len(HOLE), len(data))
        pax |= {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(len(HOLE) + len(data) + len(HOLE)),
        }  # fmt: skip
        data = text + bytes(-len(text) % 512) + data
        name = "GNUSparseFile.0/x"
    if entry.kind in ("symlink", "hardlink"):
        fields["linkname"] = os.fsdecode(entry.target)
    if entry.kind in ("char", "block"):
        fields |= {"devmajor": entry.device[0], "devminor": entry.device[1]}
    info, data = tars.member(name, entry.kind, data, **fields)
    info.pax_headers = pax
    form: Any = tarfile.PAX_FORMAT if pax or max(entry.meta) >= 2**21 else tarfile.GNU_FORMAT
    return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


HOLE = bytes(100_000)


def modelled(entries: list[Made]) -> tuple[Layer | None, Made | None]:
    """The tree that the entries make, or the first one that must be refused."""
    layer = Layer()
    for entry in entries:
        content = HOLE + entry.content + HOLE if entry.holes and entry.name else entry.content
        try:
            layer.add(
                entry.name, entry.kind, target=entry.target, content=content, meta=entry.meta,
                xattrs=entry.xattrs, device=entry.device,
            )  # fmt: skip
        except Refused:
            return None, entry
    layer.finish()
    return layer, None


# Comparing -----------------------------------------------------------------------------------------------------------

S_IFMT = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO,
          "char": stat.S_IFCHR, "block": stat.S_IFBLK}  # fmt: skip


def shown(path: bytes, node: Node) -> tuple[Any, ...]:
    """What there should be to see of a node; symlinks have no mode."""
    meta = node.meta
    if meta is not None and node.kind == "symlink":
        meta = (0, *meta[1:])
    if node.kind == "dir" or (node.is_whiteout and meta is None):
        meta = None  # compared apart
    device = os.makedev(*node.device) if node.kind in ("char", "block") else 0
    return path, S_IFMT[node.kind], meta, device, node.content, node.target, sorted(node.xattrs.items())


def looked_at(fs: bytes, path: bytes, model: Node | None) -> tuple[Any, ...]:
    """The same of what is really there."""
    full = fs + b"/" + path
    info = os.lstat(full)
    kind = stat.S_IFMT(info.st_mode)
    meta: tuple[int, int, int, int] | None = (
        0 if kind == stat.S_IFLNK else stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, int(info.st_mtime),
    )  # fmt: skip
    if kind == stat.S_IFDIR or (model is not None and model.is_whiteout and model.meta is None):
        meta = None
    content = Path(os.fsdecode(full)).read_bytes() if kind == stat.S_IFREG else b""
    target = os.readlink(full) if kind == stat.S_IFLNK else b""
    attributes = []
    for name in READ:
        try:
            attributes.append((name, os.getxattr(full, name, follow_symlinks=False)))
        except OSError:
            continue
    device = info.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    return path, kind, meta, device, content, target, sorted(attributes)


def compare(fs: str, layer: Layer) -> None:
    """The tree on disk is the model's: every object, and which names are one object."""
    nodes = layer.nodes()
    top = os.fsencode(fs)
    paths = {b"."}
    for directory, folders, files in os.walk(top):
        paths |= {os.path.relpath(os.path.join(directory, name), top) for name in (*folders, *files)}
    assert paths == set(nodes)
    for path, node in nodes.items():
        assert looked_at(top, path, node) == shown(path, node)
        info = os.lstat(top + b"/" + path)
        if node.kind == "dir" and node.meta is not None:
            assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == node.meta[:3], path
            assert int(info.st_mtime) == node.meta[3], path
    inodes: dict[int, set[bytes]] = {}
    objects: dict[int, set[bytes]] = {}
    for path, node in nodes.items():
        inodes.setdefault(os.lstat(top + b"/" + path).st_ino, set()).add(path)
        objects.setdefault(id(node), set()).add(path)
    assert sorted(map(sorted, inodes.values())) == sorted(map(sorted, objects.values()))


def unpack_slowly(data: bytes, fd: int) -> None:
    """Every entry by itself, without the batches that C makes."""
    source = stream.ByteStream([data], LIMITS)
    with TreeWriter(fd, overlay=True) as writer:
        writer.default_root()
        for entry in tarread.entries(source, LIMITS):
            unpacking.add(writer, entry, source)


def refusal(data: bytes, fd: int, *, fast: bool, **options: str) -> str:
    """The text of the error that unpacking ends in, "" for none."""
    try:
        if fast:
            unpacking.unpack(io.BytesIO(data), fd, limits=LIMITS, **options)  # type: ignore[arg-type]
        else:
            unpack_slowly(data, fd)
    except ArchiveError as error:
        return str(error)
    finally:
        os.close(fd)
    return ""


# Tests ---------------------------------------------------------------------------------------------------------------


def plain(name: bytes, kind: str = "file", target: bytes = b"", **fields: Any) -> Made:
    """An entry for the examples that were found once and stay."""
    defaults: dict[str, Any] = {
        "content": b"x", "holes": False, "meta": (0o644, 0, 0, 1), "device": (1, 3), "xattrs": {},
    }  # fmt: skip
    return Made(name, kind, target, **{**defaults, **fields})


@bounded(400)
@given(entries=st.lists(ENTRY, min_size=1, max_size=14), fast=st.booleans())
@example(entries=[plain(b"d/up", "symlink", b".."), plain(b"d/up/d"), plain(b"d/up/x")], fast=False)
@example(entries=[plain(b"d/x"), plain(b"c", "symlink", b"d/x"), plain(b"d", "hardlink", b"d/x")], fast=True)
@example(entries=[plain(b".wh.a/.wh..wh..opq")], fast=True)
@example(entries=[plain(b".", "dir", xattrs={"trusted.overlay.opaque": b"y"}), plain(b"a"), plain(b"a/b")], fast=True)
@example(entries=[plain(b"a", "symlink", b"../outside"), plain(b"a/precious")], fast=True)
def test_any_entries_make_what_the_model_says(place: Place, entries: list[Made], fast: bool) -> None:
    """The same tree, object by object, or an error that names the first entry that cannot be; nothing else changes."""
    data = b"".join(map(member, entries)) + bytes(1024)
    layer, refused = modelled(entries)
    said = refusal(data, place.fresh(), fast=fast)
    place.check()
    if refused is None:
        assert layer is not None
        assert said == ""
        compare(place.fs, layer)
    else:
        parts = b"/".join(part for part in refused.name.split(b"/") if part not in (b"", b"."))
        assert any(f"'{show(name)}'" in said for name in (parts, refused.name, refused.name + b"/")), (
            said,
            refused,
        )


FIELDS = {"name": (0, 100), "mode": (100, 108), "uid": (108, 116), "size": (124, 136), "mtime": (136, 148),
          "type": (156, 157), "link": (157, 257), "magic": (257, 265), "device": (329, 345), "prefix": (345, 500),
          "sparse": (386, 495)}  # fmt: skip
WHOLE = tars.tar(
    tars.member("d", "dir"), tars.member("d/" + "n" * 150, data=b"long"), tars.member("f", data=b"z" * 700),
    tars.member("l", "symlink", linkname="d"), tars.member("h", "hardlink", linkname="f"),
    tars.member("s", data=b"1\n0\n1\n" + bytes(506) + b"q", pax_headers={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sp", "GNU.sparse.realsize": "9"}),
    tars.member("x", data=b"", pax_headers={"SCHILY.xattr.user.note": "v", "mtime": "1.5"}), tars.member("p", "fifo"),
)  # fmt: skip
MUTATION = st.tuples(
    st.integers(0, len(WHOLE) // 512 - 1),
    st.sampled_from(sorted(FIELDS)),
    st.one_of(
        st.binary(min_size=1, max_size=12),
        st.sampled_from([b"../../outside/precious", b"/outside", b"77777777777", b"\x80\xff\xff\xff\xff\xff\xff\xff"]),
        st.sampled_from(list(b"0123456789SgxLKVMN\0")).map(lambda byte: bytes([byte])),
    ),
)


@bounded(400)
@given(mutations=st.lists(MUTATION, min_size=1, max_size=4), cut=st.integers(0, len(WHOLE)), fast=st.booleans())
def test_damaged_headers_end_in_an_archive_error(
    place: Place, mutations: list[tuple[int, str, bytes]], cut: int, fast: bool
) -> None:
    """Fields overwritten, checksums made right again, the end cut off: an error of one line, or a layer."""
    data = bytearray(WHOLE)
    for block, field, value in mutations:
        start, end = FIELDS[field]
        at = block * 512 + start
        data[at : at + min(len(value), end - start)] = value[: end - start]
        header = data[block * 512 : block * 512 + 512]
        header[148:156] = b" " * 8
        data[block * 512 + 148 : block * 512 + 156] = b"%06o\0 " % sum(header)
    assert refusal(bytes(data[: cut or None]), place.fresh(), fast=fast).isprintable()
    place.check()


PACKED = {"gzip": gzip.compress(WHOLE, 6, mtime=0), "zstd": zstandard.compress(WHOLE, 6)}


@bounded(150)
@given(
    kind=st.sampled_from(sorted(PACKED)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
    cut=st.integers(0, 10_000),
)
def test_damaged_compression_ends_in_an_archive_error(
    place: Place, kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    """Bytes changed and the end cut off: the decoders of ISA-L and zstd report it, or the digest does."""
    packed = bytearray(PACKED[kind])
    for at, value in changes:
        packed[at % len(packed)] = value
    blob = bytes(packed[: cut % len(packed) or None])
    said = refusal(blob, place.fresh(), fast=True, diff_id=tars.sha256(WHOLE))
    place.check()
    assert said.isprintable()
    assert said or sorted(os.listdir(place.fs)) == ["d", "f", "h", "l", "p", "sp", "x"]
