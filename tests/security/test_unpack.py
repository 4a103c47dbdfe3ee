# SPDX-License-Identifier: Apache-2.0
"""Hostile layers: each ends in an error that names the entry, or in the right file inside; nothing outside is touched.

PEERS' rows: CVE-2025-47290, undock#460, nbc#85 and #86 (symlink, then write through it; hard links out), and what tar
archives have been used for elsewhere: "..", absolute names, devices, duplicates, odd names. Whiteouts, sizes and the
store are in test_unpack_*.py, sequences at random in test_unpack_fuzz.py.
"""

from __future__ import annotations

import os
import stat
import tarfile

import pytest

import tars
from requires import requires
from security.layer_place import Place, hard, link, write

pytestmark = requires(root=True)


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
