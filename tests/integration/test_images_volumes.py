# SPDX-License-Identifier: Apache-2.0
"""Volumes: names, life, and the image's content in an empty one."""

from __future__ import annotations

import io
import os
import stat
import struct
from pathlib import Path

import pytest

import tars
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.volumes import VolumeStore
from pyrun.runtime.errors import Conflict, NotFound, UsageError
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)


@pytest.fixture
def volumes(tmp_path: Path) -> VolumeStore:
    return VolumeStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))


@pytest.fixture
def image(tmp_path: Path) -> tuple[str, ...]:
    """Two layers, topmost first, with all that a copy could lose at /srv/data."""
    layers = (
        tars.tar(
            tars.member("srv/data", "dir", mode=0o2770, uid=5, gid=6, mtime=1000),
            tars.member("srv/data/keep", data=b"keep", mode=0o4755, uid=7, gid=8, mtime=2000),
            tars.member("srv/data/twin", "hardlink", linkname="srv/data/keep"),
            tars.member("srv/data/gone", data=b"gone"), tars.member("srv/data/sub", "dir", mode=0o1777, mtime=3000),
            tars.member("srv/data/sub/x", data=b"lower"),
            tars.member("srv/data/link", "symlink", linkname="/etc/shadow"),
            tars.member("srv/data/pipe", "fifo"), tars.member("link", "symlink", linkname="srv/data"),
            tars.member("srv/file", data=b"f"),
        ),
        tars.tar(tars.member("srv/data/.wh.gone"), tars.member("srv/data/sub/x", data=b"upper")),
    )  # fmt: skip
    found: list[str] = []
    for number, data in enumerate(layers):
        path = tmp_path / f"layer{number}"
        path.mkdir()
        fd = unpacking.open_root(str(path))
        with Stack(found) as below:
            unpacking.unpack(io.BytesIO(data), fd, metadata_of=below.directory if found else None)
        os.close(fd)
        found.insert(0, str(path))
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(f"{found[1]}/srv/data/keep", "security.capability", capability)
    return tuple(found)


def test_create_list_inspect_remove(volumes: VolumeStore) -> None:
    """A volume is one directory that is there until it is removed; making it twice is no error."""
    assert volumes.list() == []
    volume = volumes.create("data", {"team": "blue"})
    assert volumes.create("data") == volume
    assert (volume.name, dict(volume.labels), volume.anonymous) == ("data", {"team": "blue"}, False)
    assert stat.S_IMODE(os.stat(volume.mountpoint).st_mode) == 0o755
    anonymous = volumes.create()
    assert len(anonymous.name) == 64
    assert anonymous.anonymous
    assert volumes.list() == sorted([volume, anonymous], key=lambda found: found.name)
    shown = volumes.inspect(volume)
    assert (shown["Name"], shown["Mountpoint"], shown["Driver"]) == ("data", volume.mountpoint, "local")
    Path(volume.mountpoint, "file").touch()
    volumes.remove("data")
    assert volumes.list() == [anonymous]
    with pytest.raises(NotFound, match="no such volume 'data'"):
        volumes.get("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)


def test_a_used_volume_is_not_removed(volumes: VolumeStore) -> None:
    """Not even with force; the message names who uses it."""
    volumes.create("data")
    for force in (False, True):
        with pytest.raises(Conflict, match="container web uses it"):
            volumes.remove("data", force=force, in_use=lambda name: ["web"] if name == "data" else [])
    assert [volume.name for volume in volumes.list()] == ["data"]


@pytest.mark.parametrize("name", ["x", "", "../x", "a/b", "-a", ".a", "a b", "é1", "a\n", "x" * 300, "..", "a:"])
def test_names_that_are_no_names(volumes: VolumeStore, name: str) -> None:
    """docker's grammar; nothing that could be a path."""
    if name:
        with pytest.raises(UsageError):
            volumes.create(name)
    with pytest.raises(NotFound):
        volumes.get(name)
    with pytest.raises(NotFound):
        volumes.remove(name)


def test_an_empty_volume_gets_the_images_content(volumes: VolumeStore, image: tuple[str, ...]) -> None:
    """Merged over the layers, with owners, modes, times, links and capabilities; once."""
    volume = volumes.create("data")
    assert volumes.copy_up(volume, image, "/srv/data")
    top = Path(volume.mountpoint)
    assert sorted(os.listdir(top)) == ["keep", "link", "pipe", "sub", "twin"]
    info = top.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o2770, 5, 6, 1000)
    keep = (top / "keep").stat()
    assert (stat.S_IMODE(keep.st_mode), keep.st_uid, keep.st_gid, keep.st_mtime) == (0o4755, 7, 8, 2000)
    assert (top / "twin").stat().st_ino == keep.st_ino
    assert os.getxattr(top / "keep", "security.capability")[0] == 1
    assert (top / "sub" / "x").read_bytes() == b"upper"
    assert stat.S_IMODE((top / "sub").stat().st_mode) == 0o1777
    assert os.readlink(top / "link") == "/etc/shadow"
    assert stat.S_ISFIFO((top / "pipe").stat().st_mode)
    (top / "keep").unlink()
    assert not volumes.copy_up(volume, image, "/srv/data"), "it has content now, which is the user's"
    assert not (top / "keep").exists()


def test_where_the_image_has_no_directory_nothing_is_copied(volumes: VolumeStore, image: tuple[str, ...]) -> None:
    """No such path, a file, a symlink that leads out; a symlink inside is followed."""
    for number, path in enumerate(("/nowhere", "/srv/file", "/srv/data/link", "/srv/file/x")):
        volume = volumes.create(f"none{number}")
        assert not volumes.copy_up(volume, image, path)
        assert os.listdir(volume.mountpoint) == []
    linked = volumes.create("linked")
    assert volumes.copy_up(linked, image, "/link")
    assert "keep" in os.listdir(linked.mountpoint)
