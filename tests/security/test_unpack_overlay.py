# SPDX-License-Identifier: Apache-2.0
"""Hostile layers: whiteouts and attributes, which are how a layer steers the overlay that it becomes part of."""

from __future__ import annotations

import os
import stat
import struct

import pytest

import tars
from pyrun.rootfs.limits import ArchiveError
from requires import requires
from security.layer_place import Member, Place, link, write

pytestmark = requires(root=True)


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
