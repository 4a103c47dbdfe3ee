# SPDX-License-Identifier: Apache-2.0
"""Hostile layers: each ends in an error that names the entry, or in the right file inside; nothing outside is touched.

PEERS' rows: CVE-2025-47290, undock#460, nbc#85 and #86 (symlink, then write through it; hard links out; whiteouts), and
what tar archives have been used for elsewhere: "..", absolute names, devices, bombs, truncation, wrong digests, full
disks.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tars
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.limits import ArchiveError, Limits
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)

Member = tuple[tarfile.TarInfo, bytes]


class Place:
    """A layer's directory with something precious beside it."""

    def __init__(self, base: Path) -> None:
        self.outside = base / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_text("untouched")
        self.fs = base / "layer" / "fs"
        self.fs.mkdir(parents=True)

    def unpack(self, *members: Member, limits: Limits | None = None, **options: Any) -> unpacking.Unpacked:
        return self.unpack_bytes(tars.tar(*members), limits, **options)

    def unpack_bytes(self, data: bytes, limits: Limits | None = None, **options: Any) -> unpacking.Unpacked:
        fd = unpacking.open_root(str(self.fs))
        try:
            return unpacking.unpack(io.BytesIO(data), fd, limits=limits or Limits(), **options)
        finally:
            os.close(fd)

    def attempt(self, *members: Member) -> str:
        """The error's text, "" if the archive was taken."""
        try:
            self.unpack(*members)
        except ArchiveError as error:
            return str(error)
        return ""

    def refuse(self, *members: Member, why: str, **options: Any) -> ArchiveError:
        with pytest.raises(ArchiveError, match=why) as caught:
            self.unpack(*members, **options)
        return caught.value

    def check(self) -> None:
        assert sorted(os.listdir(self.outside)) == ["precious"]
        assert (self.outside / "precious").read_text() == "untouched"
        assert os.listdir(self.fs.parent) == ["fs"]
        assert os.stat(self.outside / "precious").st_nlink == 1


@pytest.fixture
def place(tmp_path: Path) -> Any:
    found = Place(tmp_path)
    yield found
    found.check()


def link(name: str, target: str) -> Member:
    return tars.member(name, "symlink", linkname=target)


def hard(name: str, target: str) -> Member:
    return tars.member(name, "hardlink", linkname=target)


def write(name: str, data: bytes = b"new", **fields: Any) -> Member:
    return tars.member(name, data=data, **fields)


# Names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../outside/x", "a/../../outside/x", "..", "a/..", "./../x", "a/../b", "../../../../../../tmp/x"]
)
def test_dot_dot_is_refused(place: Place, name: str) -> None:
    """Also where it would stay inside: no tool that makes images writes it."""
    assert name in str(place.refuse(write(name), why=r"'\.\.' in its path"))


def test_absolute_names_land_inside(place: Place) -> None:
    """/etc/x and //etc/x are the layer's etc/x, as in docker."""
    place.unpack(write("/etc/a"), write("//etc//b"), write("/./etc/./c"), write(str(place.outside / "precious")))
    assert sorted(os.listdir(place.fs / "etc")) == ["a", "b", "c"]


def test_the_root_itself_can_only_be_a_directory(place: Place) -> None:
    """A file or symlink called "." would replace the layer's directory."""
    for member in (write("."), link("./", "/etc"), write("/")):
        place.refuse(member, why="only a directory can be the root")
    place.unpack(tars.member("./", "dir", mode=0o711))
    assert stat.S_IMODE(place.fs.stat().st_mode) == 0o711


# Links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["/", "/outside", "../outside", "../../outside", "..", "/proc/self/root", "/proc/self/cwd"]
)
def test_a_symlink_and_then_a_write_through_it(place: Place, target: str) -> None:
    """CVE-2025-47290's class: the path is resolved in the layer's root, whatever the link says."""
    real = str(place.outside) if target == "/outside" else target
    error = place.attempt(link("escape", real), write("escape/precious", b"owned"))
    assert not error or "escape/precious" in error
    found = [p for p in place.fs.rglob("precious") if p.is_file()]
    assert all(str(p.resolve()).startswith(str(place.fs)) for p in found)


def test_a_symlink_is_resolved_inside(place: Place) -> None:
    """usr-merged layers write bin/x with bin -> usr/bin, or -> /usr/bin: it lands in the layer's usr/bin."""
    place.unpack(
        tars.member("usr/bin", "dir"), link("bin", "usr/bin"), link("sbin", "/usr/bin"), write("bin/a"), write("sbin/b")
    )
    assert sorted(os.listdir(place.fs / "usr/bin")) == ["a", "b"]


def test_a_chain_of_symlinks_cannot_climb(place: Place) -> None:
    """Each step up from the root stays at the root."""
    members = [link("up0", ".."), *(link(f"up{n}", f"up{n - 1}/..") for n in range(1, 8))]
    error = place.attempt(*members, write("up7/outside/precious", b"owned"))
    assert not error or "up7/outside" in error


def test_a_symlink_loop_is_an_error(place: Place) -> None:
    """ELOOP, with the entry's name."""
    place.refuse(link("a", "b"), link("b", "a"), write("a/x"), why="'a/x': its parent is not a directory")


def test_a_dangling_parent_is_an_error(place: Place) -> None:
    """No directory is made where a symlink points to nothing."""
    place.refuse(link("a", "/nowhere/deep"), write("a/x"), why="'a/x'")
    assert os.listdir(place.fs) == ["a"]


def test_a_file_over_a_symlink_replaces_the_link(place: Place) -> None:
    """Writing never goes through the last component: the link's target keeps its content."""
    place.unpack(link("a", str(place.outside / "precious")), write("a", b"mine"))
    assert (place.fs / "a").read_bytes() == b"mine"
    assert not (place.fs / "a").is_symlink()


def test_a_directory_entry_over_a_symlink_makes_a_directory(place: Place) -> None:
    """And what is then written below it is in that directory, not where the link led."""
    place.unpack(link("d", str(place.outside)), tars.member("d", "dir"), write("d/x"))
    assert (place.fs / "d" / "x").read_bytes() == b"new"


def test_metadata_of_a_symlink_is_not_its_targets(place: Place) -> None:
    """chown, chmod and utime of the entry touch the link alone."""
    before = os.stat(place.outside / "precious")
    place.unpack(tars.member("a", "symlink", linkname=str(place.outside / "precious"), uid=1234, mode=0o777, mtime=5))
    assert os.lstat(place.fs / "a").st_uid == 1234
    after = os.stat(place.outside / "precious")
    assert (after.st_uid, after.st_mode, after.st_mtime) == (before.st_uid, before.st_mode, before.st_mtime)


@pytest.mark.parametrize("target", ["../outside/precious", "a/../../outside/precious"])
def test_a_hard_link_out_is_refused(place: Place, target: str) -> None:
    """frostyard/nbc#85: never linked, never copied."""
    place.refuse(hard("stolen", target), why=r"'\.\.'")
    assert os.listdir(place.fs) == []


def test_an_absolute_hard_link_is_inside(place: Place) -> None:
    """/etc/shadow is the layer's; when it has none that is an error, not the host's file."""
    error = place.refuse(hard("stolen", "/etc/shadow"), why="hard link target '/etc/shadow' is not there")
    assert "stolen" in str(error)
    place.unpack(write("etc/shadow", b"layer"), hard("copy", "/etc/shadow"))
    assert (place.fs / "copy").read_bytes() == b"layer"


def test_a_hard_link_through_a_symlink_stays_inside(place: Place) -> None:
    """The target's parent is resolved in the root too."""
    place.refuse(link("out", str(place.outside)), hard("stolen", "out/precious"), why="'stolen'")
    assert not (place.fs / "stolen").exists()


def test_a_hard_link_to_a_symlink_links_the_symlink(place: Place) -> None:
    """AT_SYMLINK_FOLLOW would have linked /etc/passwd of the host into the image."""
    place.unpack(link("a", "/etc/passwd"), hard("b", "a"))
    assert os.readlink(place.fs / "b") == "/etc/passwd"
    assert os.lstat(place.fs / "a").st_ino == os.lstat(place.fs / "b").st_ino


def test_a_write_after_a_hard_link_does_not_change_the_other_name(place: Place) -> None:
    """A later entry replaces the name; it does not write into the shared inode."""
    place.unpack(write("a", b"one"), hard("b", "a"), write("b", b"two"))
    assert (place.fs / "a").read_bytes() == b"one"
    assert (place.fs / "b").read_bytes() == b"two"


def test_a_hard_link_to_a_directory_or_to_the_root(place: Place) -> None:
    """Neither exists."""
    place.refuse(tars.member("d", "dir"), hard("x", "d"), why="'x'")
    place.refuse(hard("y", "/"), why="hard link to the root")


# Kinds -------------------------------------------------------------------------------------------------------------


def test_devices_fifos_and_setuid_are_made_as_told(place: Place) -> None:
    """They are the image's right; owner, mode, number and time come out as they are in the archive."""
    place.unpack(
        tars.member("null", "char", devmajor=1, devminor=3, mode=0o666, mtime=100),
        tars.member("disk", "block", devmajor=8, devminor=0, mode=0o600, uid=7),
        tars.member("pipe", "fifo", mode=0o620, gid=8, mtime=200),
        write("su", mode=0o4755, uid=0, mtime=300),
        write("sg", mode=0o2711, uid=12, gid=34),
        tars.member("tmp", "dir", mode=0o1777, mtime=400),
        write("tmp/inside", mtime=500),
    )
    null, disk, pipe, su, sg, tmp = (os.lstat(place.fs / n) for n in ("null", "disk", "pipe", "su", "sg", "tmp"))
    assert (null.st_rdev, stat.S_IMODE(null.st_mode), null.st_mtime) == (os.makedev(1, 3), 0o666, 100)
    assert stat.S_ISBLK(disk.st_mode)
    assert (disk.st_rdev, disk.st_uid) == (os.makedev(8, 0), 7)
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (stat.S_IMODE(pipe.st_mode), pipe.st_gid, pipe.st_mtime) == (0o620, 8, 200)
    assert (stat.S_IMODE(su.st_mode), su.st_mtime) == (0o4755, 300)
    assert (stat.S_IMODE(sg.st_mode), sg.st_uid, sg.st_gid) == (0o2711, 12, 34)
    assert (stat.S_IMODE(tmp.st_mode), tmp.st_mtime) == (0o1777, 400)


def test_a_fifo_in_the_way_is_replaced_and_not_opened(place: Place) -> None:
    """Opening it would hang the unpacking for ever."""
    place.unpack(tars.member("x", "fifo"), write("x", b"file"))
    assert (place.fs / "x").read_bytes() == b"file"


def test_a_device_in_the_way_is_replaced_and_not_written(place: Place) -> None:
    """/dev/kmsg or a disk as the target of a later file entry."""
    place.unpack(tars.member("x", "char", devmajor=1, devminor=7), write("x", b"file"))
    assert stat.S_ISREG(os.lstat(place.fs / "x").st_mode)


def test_below_a_file_nothing_can_be(place: Place) -> None:
    """ENOTDIR, by name."""
    place.refuse(write("a"), write("a/b"), why="'a/b': its parent is not a directory")


# Whiteouts -----------------------------------------------------------------------------------------------------------


def whiteout(name: str) -> Member:
    return tars.member(name)


def test_whiteouts_become_what_overlayfs_reads(place: Place) -> None:
    """A character device 0:0, and trusted.overlay.opaque on the directory; no .wh. file is left."""
    place.unpack(tars.member("d", "dir"), whiteout("d/.wh.gone"), tars.member("o", "dir"), whiteout("o/.wh..wh..opq"))
    gone = os.lstat(place.fs / "d" / "gone")
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(place.fs / "o", "trusted.overlay.opaque") == b"y"
    assert os.listdir(place.fs / "o") == []


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", ".wh..", "a/.wh..", ".wh...", "a/.wh..."])
def test_bad_whiteouts(place: Place, name: str) -> None:
    """Deleting nothing, "." or "..": frostyard/nbc#86 deleted the parent."""
    place.refuse(whiteout(name), why="whiteout of nothing")


def test_a_whiteout_through_a_symlink_stays_inside(place: Place) -> None:
    """The precious file is not deleted, and not hidden."""
    error = place.attempt(link("out", str(place.outside)), whiteout("out/.wh.precious"))
    assert not error or "out/.wh.precious" in error


def test_an_opaque_mark_through_a_symlink_stays_inside(place: Place) -> None:
    """No attribute is set on a directory of the host."""
    error = place.attempt(link("out", str(place.outside)), whiteout("out/.wh..wh..opq"))
    assert not error or "out/.wh..wh..opq" in error
    assert os.listxattr(place.outside) == []


def test_nothing_can_be_below_a_whiteout(place: Place) -> None:
    """A directory called .wh.x is no place for files."""
    place.refuse(write("a/.wh.x/y"), why="below a whiteout")


def test_a_whiteout_hides_only_what_is_below_this_layer(place: Place) -> None:
    """In either order of the entries, what the same layer brings stays (layer.md); a directory becomes opaque."""
    place.unpack(
        write("first"), whiteout(".wh.first"), whiteout(".wh.second"), write("second"),
        tars.member("d1", "dir"), write("d1/x"), whiteout(".wh.d1"), whiteout(".wh.d2"), tars.member("d2", "dir"),
        whiteout(".wh.d3"), write("d3/implied/x"),
    )  # fmt: skip
    assert (place.fs / "first").read_bytes() == (place.fs / "second").read_bytes() == b"new"
    assert (place.fs / "d1" / "x").exists()
    assert (place.fs / "d3" / "implied" / "x").exists()
    for name in ("d1", "d2", "d3"):
        assert os.getxattr(place.fs / name, "trusted.overlay.opaque") == b"y"


def test_aufs_bookkeeping_is_skipped(place: Place) -> None:
    """.wh..wh.plnk and .wh..wh.aufs at the top, in layers from before 2015."""
    place.unpack(write(".wh..wh.aufs"), tars.member(".wh..wh.plnk", "dir"), write(".wh..wh.plnk/123.45"), write("real"))
    assert os.listdir(place.fs) == ["real"]


# Attributes ----------------------------------------------------------------------------------------------------------

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep, capabilities(7)


def attributed(name: str, kind: str = "file", **attributes: bytes) -> Member:
    records = {f"SCHILY.xattr.{key}": value.decode("latin-1") for key, value in attributes.items()}
    info, data = tars.member(name, kind, b"")
    info.pax_headers = records
    return info, data


def with_attribute(name: str, key: str, value: bytes, kind: str = "file") -> bytes:
    from pyrun.rootfs import tarwrite
    from pyrun.rootfs.entry import Entry

    return tarwrite.header(Entry((name.encode(),), kind, 0o755, xattrs={key.encode(): value})) + bytes(1024)


def test_file_capabilities_and_user_attributes_survive(place: Place) -> None:
    """security.capability is set after chown, which would clear it."""
    place.unpack_bytes(with_attribute("ping", "security.capability", CAPABILITY))
    assert os.getxattr(place.fs / "ping", "security.capability") == CAPABILITY
    place.unpack_bytes(with_attribute("x", "user.note", b"a\0b\xff"))
    try:
        os.setxattr(place.outside, "user.probe", b"")
    except OSError:  # tmpfs before Linux 6.6 has no user attributes: left out, without an error
        assert os.listxattr(place.fs / "x") == []
    else:
        os.removexattr(place.outside, "user.probe")
        assert os.getxattr(place.fs / "x", "user.note") == b"a\0b\xff"


@pytest.mark.parametrize(
    "key", ["trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.x", "user.overlay.metacopy"]
)
@pytest.mark.parametrize("kind", ["file", "dir"])
def test_attributes_that_steer_overlayfs_are_refused(place: Place, key: str, kind: str) -> None:
    """redirect=/… would map another directory of the layers, metacopy another file's data."""
    with pytest.raises(ArchiveError, match=key):
        place.unpack_bytes(with_attribute("x", key, b"/etc", kind))


@pytest.mark.parametrize("key", ["security.selinux", "security.ima", "security.evm", "system.nfs4_acl", "weird"])
def test_the_hosts_policy_is_not_the_images(place: Place, key: str) -> None:
    """Labels of another machine are left out, as they mean nothing here."""
    place.unpack_bytes(with_attribute("x", key, b"value"))
    assert key not in os.listxattr(place.fs / "x")


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


def test_a_gzip_bomb_is_refused(place: Place) -> None:
    """A gigabyte of zeros in a megabyte: stopped at the ratio, not after filling the disk."""
    bomb = gzip.compress(tars.tar(tars.member("zeros", data=bytes(50_000_000))), 9)
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


# Duplicates, strange names -------------------------------------------------------------------------------------------


def test_the_later_of_two_entries_wins(place: Place) -> None:
    """Whatever kinds they have; a directory stays and is merged with a second entry for it."""
    place.unpack(
        write("a", b"1"), write("a", b"2"),
        tars.member("b", "dir"), write("b/deep/er/x"), write("b", b"file now"),
        write("c"), tars.member("c", "dir"), write("c/x"),
        tars.member("d", "dir", mode=0o700), write("d/x"), tars.member("d", "dir", mode=0o711),
        link("e", "/etc"), link("e", "/usr"),
    )  # fmt: skip
    assert (place.fs / "a").read_bytes() == b"2"
    assert (place.fs / "b").read_bytes() == b"file now"
    assert (place.fs / "c" / "x").exists()
    assert (place.fs / "d" / "x").exists()
    assert stat.S_IMODE((place.fs / "d").stat().st_mode) == 0o711
    assert os.readlink(place.fs / "e") == "/usr"


def test_a_directory_swapped_for_a_symlink_half_way(place: Place) -> None:
    """The parent's fd was cached: what comes next must not go where the old directory was, nor outside."""
    outside = str(place.outside)
    error = place.attempt(tars.member("d", "dir"), write("d/one"), write("d"), link("d", outside), write("d/precious"))
    assert not error or "d/precious" in error
    assert os.readlink(place.fs / "d") == str(place.outside)


def test_names_that_are_not_utf8(place: Place) -> None:
    """The kernel's names are bytes: Latin-1, control characters and newlines come out as they went in."""
    names = ["caf\udce9", "new\nline", "tab\there", "\udcff\udcfe", "ünï", "dollar$(id)", "-rf", "a\\b"]
    place.unpack(*(write(name, name.encode("utf-8", "surrogateescape")) for name in names))
    assert sorted(os.listdir(os.fsencode(place.fs))) == sorted(
        name.encode("utf-8", "surrogateescape") for name in names
    )
    for name in os.listdir(os.fsencode(place.fs)):
        with open(os.fsencode(place.fs) + b"/" + name, "rb") as file:
            assert file.read() == name


def test_control_characters_do_not_reach_the_terminal(place: Place) -> None:
    """An escape sequence in a name is shown escaped."""
    error = place.refuse(write("../\x1b[2J\x07evil"), why="evil")
    assert str(error).isprintable()


def test_long_names_of_gnu_and_pax(place: Place) -> None:
    """Beyond the header's 100 and 255 characters, for files and links."""
    deep = "/".join(["directory-with-a-name"] * 20)
    for top in ("gnu", "pax"):
        form = tarfile.GNU_FORMAT if top == "gnu" else tarfile.PAX_FORMAT
        place.unpack_bytes(tars.tar(write(f"{top}/{deep}/x"), link(f"{top}/l", deep), form=form))
        assert (place.fs / top / deep / "x").read_bytes() == b"new"
        assert os.readlink(place.fs / top / "l") == deep


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


# Through the store ---------------------------------------------------------------------------------------------------


def files_below(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir())


EMPTY_STORE = ["images/lock", "images/oci-layout", "layers/lock"]


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([tars.tar(write("../x"))], r"'\.\./x'"),
        ([tars.tar(write("ok")), tars.tar(hard("x", "/etc/shadow"))], "'x'"),
        ([tars.tar(write("ok"))[:700]], "truncated"),
        ([b"no tar at all" * 100], "no tar header"),
    ],
)
def test_a_hostile_image_leaves_an_empty_store(tmp_path: Path, layers: list[bytes], why: str) -> None:
    """No blob, no layer, no name, no temporary file: as if the command had never run."""
    store = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    with pytest.raises(PyrunError, match=why):
        store.load(io.BytesIO(tars.docker_archive(layers, ["evil"])))
    assert store.list() == []
    assert set(files_below(tmp_path / "data")) <= {*EMPTY_STORE, "images/garbage"}
    assert os.listdir(tmp_path) == ["data"]


def test_a_tampered_layer_in_an_archive(tmp_path: Path) -> None:
    """The config's diff-ids do not fit: refused, with the layer's digest."""
    store = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    good, bad = tars.tar(write("a")), tars.tar(write("a", b"evil"))
    archive = tars.docker_archive([bad], ["x"], image_config=tars.config([good]))
    with pytest.raises(ArchiveError, match="diff-id"):
        store.load(io.BytesIO(archive))
    oci = tars.Oci()
    oci.name(oci.manifest([good]), "x")
    oci.blobs[tars.sha256(good)] = bad
    with pytest.raises(PyrunError, match="missing"):
        store.load(io.BytesIO(oci.archive()))
    assert store.list() == []


def test_paths_inside_an_image_archive_lead_nowhere(tmp_path: Path) -> None:
    """Config, Layers and symlinks of a docker-archive are looked up among its members, never on the host."""
    store = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    for config, layer in (("/etc/passwd", "l"), ("../../../../etc/passwd", "l"), ("c", "/etc/passwd"), ("c", "s")):
        manifest = f'[{{"Config":"{config}","RepoTags":["x"],"Layers":["{layer}"]}}]'.encode()
        archive = tars.tar(
            tars.member("c", data=tars.config([tars.tar()])), tars.member("l", data=tars.tar()),
            link("s", "/etc/passwd"), tars.member("manifest.json", data=manifest),
        )  # fmt: skip
        with pytest.raises(ArchiveError, match=r"missing|'\.\.'"):
            store.load(io.BytesIO(archive))


FULL_DISK = """
import io, os, sys
sys.path.insert(0, sys.argv[2])
import tars
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
store = ImageStore(Paths(sys.argv[1] + "/data", sys.argv[1] + "/run"))
small = tars.docker_archive([tars.tar(tars.member("a", data=b"x" * 1000))], ["small"])
assert store.load(io.BytesIO(small)) == ["small:latest"]
before = sorted(os.listdir(sys.argv[1] + "/data/layers"))
import gzip, random
data = random.Random(0).randbytes(1 << 20) + bytes(9 << 20)   # 1 MiB packed, 10 MiB unpacked: fits, then does not
more = random.Random(1).randbytes(9 << 20)
big = [tars.tar(tars.member("big", data=data)), tars.tar(tars.member("bigger", data=more))]
for layer in big:
    try:
        store.load(io.BytesIO(tars.docker_archive([layer], ["big"], compressed=True)))
    except PyrunError as error:
        print(error, "|", error.hint)
    else:
        raise SystemExit("the disk was not full")
    assert [image.names for image in store.list()] == [("small:latest",)]
    assert sorted(os.listdir(sys.argv[1] + "/data/layers")) == before, os.listdir(sys.argv[1] + "/data/layers")
assert store.load(io.BytesIO(small)) == ["small:latest"]
assert store.unpacked(store.resolve("small"))
store.remove("small")
assert store.list() == []
"""


def test_a_full_disk_loses_the_new_image_and_no_old_one(tmp_path: Path) -> None:
    """8 MiB of tmpfs in a mount namespace of the test: ENOSPC while unpacking, then while the blob is stored."""
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    mounted = tmp_path / "small-disk"
    mounted.mkdir()
    tests = str(Path(__file__).resolve().parent.parent)
    command = f'mount -t tmpfs -o size=8m tmpfs "{mounted}" && exec "{sys.executable}" "{script}" "{mounted}" "{tests}"'
    found = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", command], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == 2
    assert all("no space left on device" in line and "free some space" in line for line in lines), lines
    assert "'big'" in lines[0]


# Anything at all -----------------------------------------------------------------------------------------------------

PART = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b".wh.a", b".wh..wh..opq", b"\xff"])
PATH = st.lists(PART, min_size=1, max_size=4).map(b"/".join)
TARGET = st.one_of(PATH, st.sampled_from([b"/", b"..", b"../..", b"/outside", b"../../outside", b"/proc/self/root"]))
ENTRY = st.tuples(PATH, st.sampled_from(sorted(tars.KINDS)), TARGET, st.binary(max_size=20))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ENTRY, min_size=1, max_size=12))
def test_no_sequence_of_entries_leaves_the_layer(tmp_path_factory: pytest.TempPathFactory, entries: Any) -> None:
    """Names, links and whiteouts at random, many of them through one another: what is outside stays as it was."""
    base = tmp_path_factory.mktemp("fuzz")
    place = Place(base)
    members = []
    for name, kind, target, data in entries:
        fields = {"linkname": os.fsdecode(target), "devmajor": 1, "devminor": 3} if kind != "file" else {}
        members.append(tars.member(os.fsdecode(name), kind, data if kind == "file" else b"", **fields))
    try:
        place.unpack(*members)
    except ArchiveError:
        pass
    place.check()
    remove_path(str(base))
