# SPDX-License-Identifier: Apache-2.0
"""`cp`: docker's rules for where things go; containers that run, that are stopped, and that fight back."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tars
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs.archive import MountedAt, Tree, copy, extract, host_source, host_target, tar
from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.limits import ArchiveError
from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from requires import requires

pytestmark = requires(root=True)

IMAGE = tars.tar(
    tars.member("etc/hosts", data=b"hosts", mode=0o640, uid=9, mtime=1000),
    tars.member("srv", "dir", mode=0o751, uid=3),
    tars.member("srv/a", data=b"a"), tars.member("srv/sub/b", data=b"b"), tars.member("gone/x", data=b"x"),
    tars.member("link", "symlink", linkname="/srv"), tars.member("bin", "symlink", linkname="usr/bin"),
    tars.member("usr/bin/su", data=b"#!", mode=0o4755), tars.member("dev/null", "char", devmajor=1, devminor=3),
    tars.member("pipe", "fifo"), tars.member("hard1", data=b"h"), tars.member("hard2", "hardlink", linkname="hard1"),
)  # fmt: skip


class Container:
    """The same small container as three trees: a directory, layers with an upper, a process's root."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.lower, self.upper = base / "lower", base / "upper"
        for path in (self.lower, self.upper):
            path.mkdir()
        fd = unpacking.open_root(str(self.lower))
        unpacking.unpack(io.BytesIO(IMAGE), fd)
        os.close(fd)
        fd = unpacking.open_root(str(self.upper))
        unpacking.unpack(io.BytesIO(tars.tar(tars.member(".wh.gone"), tars.member("new", data=b"new"))), fd)
        os.close(fd)

    def stopped(self, *mounts: MountedAt) -> Tree:
        return Tree.stopped(str(self.upper), [str(self.lower)], mounts)

    def running(self) -> Tree:
        """Its root as one directory, as a process of it would see it."""
        merged = self.base / "merged"
        if not merged.exists():
            subprocess.run(["cp", "-a", self.lower, merged], check=True)
            subprocess.run(["rm", "-r", merged / "gone"], check=True)
            (merged / "new").write_bytes(b"new")
        root_fd = os.open(merged, os.O_PATH | os.O_DIRECTORY)
        try:
            return Tree.running(root_fd)
        finally:
            os.close(root_fd)

    def read(self, path: str) -> bytes:
        """What the stopped container has at `path`."""
        with Stack([str(self.upper), str(self.lower)]) as stack:
            return stack.read(tuple(os.fsencode(path).split(b"/")), 10_000)


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


KINDS = ("stopped", "running")


def out(tree: Tree, path: str, target: Path | str, **options: Any) -> None:
    directory, below = host_target(str(target))
    with tree, Tree.host(directory) as host:
        copy(tree, path, host, below, owner=None if options.pop("archive", False) else (0, 0), **options)


def into(tree: Tree, source: Path | str, path: str, **options: Any) -> None:
    directory, below, name = host_source(str(source), follow=options.get("follow", False))
    with tree, Tree.host(directory) as host:
        copy(host, below, tree, path, name=name, owner=None if options.pop("archive", False) else (0, 0), **options)


def listing(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


# Out of a container --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        ("/etc/hosts", "", ["hosts"]),
        ("etc/hosts", "named", ["named"]),
        ("/link/a", "", ["a"]),
        ("/srv", "", ["srv", "srv/a", "srv/sub", "srv/sub/b"]),
        ("/srv/", "", ["srv", "srv/a", "srv/sub", "srv/sub/b"]),
        ("/srv/.", "", ["a", "sub", "sub/b"]),
        ("/srv", "other", ["other", "other/a", "other/sub", "other/sub/b"]),
        ("/srv/.", "other", ["other", "other/a", "other/sub", "other/sub/b"]),
        ("/srv/sub/..", "", ["a", "sub", "sub/b"]),
        ("/link", "", ["link"]),
        ("/link/", "", ["link", "link/a", "link/sub", "link/sub/b"]),
        ("/new", "", ["new"]),
    ],
)
def test_where_things_go_on_the_host(
    container: Container, tmp_path: Path, kind: str, source: str, target: str, there: list[str]
) -> None:
    """docker cp's rules: into a directory, to a new name, content with "/."."""
    place = tmp_path / "place"
    place.mkdir()
    out(getattr(container, kind)(), source, f"{place}/{target}" if target else place)
    assert listing(place) == there


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_copied_out(container: Container, tmp_path: Path, kind: str) -> None:
    """Each in its own words, with nothing written."""
    (tmp_path / "file").write_text("mine")
    make = getattr(container, kind)
    for path in ("/nothing", "/gone/x", "/etc/hosts/x"):
        with pytest.raises(NotFound, match=f"no such path '{path}'"):
            out(make(), path, tmp_path / "x")
    with pytest.raises(Conflict, match="not a directory"):
        out(make(), "/etc/hosts/", tmp_path / "x")
    with pytest.raises(Conflict, match="copy a directory to"):
        out(make(), "/srv", tmp_path / "file")
    with pytest.raises(NotFound, match="no directory"):
        out(make(), "/etc/hosts", f"{tmp_path}/new/")
    with pytest.raises(PyrunError, match=r"no directory|no such file"):
        out(make(), "/etc/hosts", tmp_path / "no" / "where")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "x").exists()


def test_owners_modes_and_links(container: Container, tmp_path: Path) -> None:
    """With -a as they are; without, the caller's, and no setuid bit that a container chose."""
    out(container.stopped(), "/etc/hosts", tmp_path / "kept", archive=True)
    out(container.stopped(), "/etc/hosts", tmp_path / "mine", plain=True)
    kept, mine = (tmp_path / "kept").stat(), (tmp_path / "mine").stat()
    assert (kept.st_uid, stat.S_IMODE(kept.st_mode), kept.st_mtime) == (9, 0o640, 1000)
    assert (mine.st_uid, stat.S_IMODE(mine.st_mode), mine.st_mtime) == (0, 0o640, 1000)
    out(container.stopped(), "/usr/bin/su", tmp_path / "su", plain=True)
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o755
    with pytest.raises(ArchiveError, match="device node"):
        out(container.stopped(), "/dev/null", tmp_path / "null", plain=True)
    out(container.stopped(), "/.", tmp_path / "all", archive=True)
    assert (tmp_path / "all/hard1").stat().st_ino == (tmp_path / "all/hard2").stat().st_ino
    assert os.readlink(tmp_path / "all/link") == "/srv"
    assert stat.S_ISFIFO((tmp_path / "all/pipe").stat().st_mode)
    out(container.stopped(), "/link", tmp_path / "followed", follow=True)
    assert (tmp_path / "followed" / "a").read_bytes() == b"a"


def test_a_container_cannot_write_outside_the_target(container: Container, tmp_path: Path) -> None:
    """Symlinks in what it sends are links in the target directory, and an existing one there is not followed out."""
    precious = tmp_path / "precious"
    precious.mkdir()
    place = tmp_path / "place"
    (place / "srv").mkdir(parents=True)
    (place / "srv" / "sub").symlink_to(precious)
    (place / "srv" / "a").symlink_to(precious / "a")
    with pytest.raises(ArchiveError, match="cannot replace a file with a directory"):
        out(container.stopped(), "/srv", place)
    assert os.listdir(precious) == []
    assert not (place / "srv" / "a").is_symlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tar_of_a_path(container: Container, tmp_path: Path, kind: str) -> None:
    """`cp C:/srv -`: GNU tar reads it; names begin with the last component."""
    with getattr(container, kind)() as tree:
        data = b"".join(tar(tree, "/srv"))
        everything = b"".join(tar(tree, "/"))
    (tmp_path / "x.tar").write_bytes(data)
    names = subprocess.run(["tar", "tf", tmp_path / "x.tar"], check=True, capture_output=True, text=True).stdout.split()
    assert names == ["srv/", "srv/a", "srv/sub/", "srv/sub/b"]
    with tarfile.open(fileobj=io.BytesIO(everything)) as archive:
        found = {member.name: member for member in archive}
    assert found["hard2"].islnk()
    assert found["etc/hosts"].uid == 9
    assert found["dev/null"].ischr()
    assert "new" in found
    assert "gone" not in found


# Into a container ----------------------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    top = tmp_path / "given"
    (top / "dir" / "deep").mkdir(parents=True)
    (top / "dir" / "deep" / "f").write_bytes(b"f")
    (top / "file").write_bytes(b"file")
    (top / "abs").symlink_to(top / "file")
    os.chown(top / "file", 1234, 1234)
    return top


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        ("file", "/srv", {"/srv/file": b"file", "/srv/a": b"a"}),
        ("file", "/srv/", {"/srv/file": b"file"}),
        ("file", "/link", {"/srv/file": b"file"}),
        ("file", "/bin", {"/usr/bin/file": b"file", "/bin/su": b"#!"}),
        ("file", "/srv/a", {"/srv/a": b"file"}),
        ("file", "/srv/fresh", {"/srv/fresh": b"file"}),
        ("file", "relative", {"/relative": b"file"}),
        ("dir", "/srv", {"/srv/dir/deep/f": b"f"}),
        ("dir/.", "/srv", {"/srv/deep/f": b"f", "/srv/a": b"a"}),
        ("dir", "/fresh", {"/fresh/deep/f": b"f"}),
        ("dir/.", "/fresh", {"/fresh/deep/f": b"f"}),
        ("dir", "/gone", {"/gone/deep/f": b"f"}),
    ],
)
def test_where_things_go_in_the_container(
    container: Container, given: Path, kind: str, source: str, target: str, there: dict[str, bytes]
) -> None:
    """The same rules the other way; symlinks lead inside; what was there beside it stays."""
    into(getattr(container, kind)(), f"{given}/{source}", target)
    with getattr(container, kind)() as tree:
        for path, content in there.items():
            assert tree.stack.read(tuple(path.encode().split(b"/")), 100) == content, path
        if target == "/gone":
            assert tree.find((b"gone", b"x"), follow=False) is None, "what was deleted must not come back"
    assert container.lower.joinpath("srv/a").read_bytes() == b"a", "layers are never written to"
    assert not (container.lower / "relative").exists()


def test_directories_above_are_copied_up_as_they_are(container: Container, given: Path) -> None:
    """What overlayfs would have done: srv in the upper has the mode and owner of the layer's."""
    into(container.stopped(), given / "file", "/srv/sub/file")
    info = (container.upper / "srv").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o751, 3)
    assert listing(container.upper) == ["gone", "new", "srv", "srv/sub", "srv/sub/file"]
    assert (container.upper / "srv/sub/file").stat().st_uid == 0
    into(container.stopped(), given / "file", "/srv/kept", archive=True)
    assert (container.upper / "srv/kept").stat().st_uid == 1234


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_copied_in(container: Container, given: Path, kind: str) -> None:
    """Kinds are never exchanged, parents never made up."""
    make = getattr(container, kind)
    with pytest.raises(Conflict, match="copy a directory to"):
        into(make(), given / "dir", "/srv/a")
    with pytest.raises(NotFound, match="no directory '/no'"):
        into(make(), given / "file", "/no/where")
    with pytest.raises(NotFound, match="no directory '/no/'"):
        into(make(), given / "file", "/no/")
    with pytest.raises(NotFound, match="no such path"):
        into(make(), given / "nothing", "/srv")
    (given / "sub").write_text("a file")
    with pytest.raises(ArchiveError, match="cannot replace a directory"):
        into(make(), given / "sub", "/srv")


def test_symlinks_of_the_host(container: Container, given: Path) -> None:
    """Copied as a link, or followed with -L under the link's name."""
    into(container.stopped(), given / "abs", "/srv")
    assert os.readlink(container.upper / "srv" / "abs") == str(given / "file")
    into(container.stopped(), given / "abs", "/etc", follow=True)
    assert container.read("/etc/abs") == b"file"


@pytest.mark.parametrize("kind", KINDS)
def test_a_tar_into_a_directory(container: Container, kind: str) -> None:
    """`cp - C:/srv`: below the directory, whose own metadata stays; compressed ones too."""
    archive = tars.tar(
        tars.member("./", "dir", mode=0o700), tars.member("x/y", data=b"y"),
        tars.member("x/z", "hardlink", linkname="x/y"),
        tars.member("l", "symlink", linkname="/etc"),
    )  # fmt: skip
    for data in (archive, gzip.compress(archive)):
        with getattr(container, kind)() as tree:
            extract(io.BytesIO(data), tree, "/link")
    with getattr(container, kind)() as tree:
        assert tree.stack.read((b"srv", b"x", b"z"), 100) == b"y"
        assert tree.stack.entry((b"srv",)).mode == 0o751
        for path, error in (("/nothing", NotFound), ("/srv/a", Conflict)):
            with pytest.raises(error):
                extract(io.BytesIO(archive), tree, path)
        for bad in (tars.tar(tars.member("../../up")), tars.tar(tars.member("h", "hardlink", linkname="/etc/hosts"))):
            with pytest.raises(ArchiveError):
                extract(io.BytesIO(bad), tree, "/srv")


def test_volumes_of_a_stopped_container(container: Container, given: Path, tmp_path: Path) -> None:
    """Its mounts are where they would be: read and written in the volume, unless it is read-only."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "inside").write_bytes(b"v")
    (tmp_path / "hosts").write_bytes(b"bound")
    mounts = (MountedAt("/srv/sub", str(volume)), MountedAt("/etc/hosts", str(tmp_path / "hosts")))
    out(container.stopped(*mounts), "/srv/sub/inside", tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"v"
    out(container.stopped(*mounts), "/etc/hosts", tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"bound"
    into(container.stopped(*mounts), given / "dir", "/link/sub")
    assert (volume / "dir/deep/f").read_bytes() == b"f"
    assert listing(container.upper) == ["gone", "new"]
    with pytest.raises(Conflict, match="mounted read-only"):
        into(container.stopped(MountedAt("/srv/sub", str(volume), readonly=True)), given / "file", "/srv/sub")
    with pytest.raises(Conflict, match="file is mounted there"):
        into(container.stopped(*mounts), given / "file", "/etc/hosts")


# A container that fights back ----------------------------------------------------------------------------------------


@pytest.fixture
def swapped(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A directory of the container's root that is exchanged with a symlink to the host's, as fast as it goes."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    root.mkdir()
    stop = threading.Event()

    def begin() -> None:
        for name in ("d", "real", "evil"):
            remove_path(str(root / name))
        (root / "d").mkdir()
        (root / "d" / "f").write_bytes(b"inside")
        (root / "evil").symlink_to(outside)

    def swap() -> None:
        fresh = True
        while not stop.is_set():
            try:
                if not fresh:
                    begin()
                fresh = True
                os.rename(root / "d", root / "real")
                os.rename(root / "evil", root / "d")
                os.rename(root / "d", root / "evil")
                os.rename(root / "real", root / "d")
            except OSError:  # the copy has made the directory that was not there for a moment
                fresh = False

    begin()
    thread = threading.Thread(target=swap)
    thread.start()
    yield lambda: root
    stop.set()
    thread.join()
    assert sorted(os.listdir(outside)) == ["f"]
    assert (outside / "f").read_bytes() == b"secret"


def test_a_component_swapped_while_it_is_copied(swapped: Callable[[], Path], tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2026-41568: both ways, for two seconds; the host's file neither leaks nor changes."""
    root_fd = os.open(swapped(), os.O_PATH | os.O_DIRECTORY)
    (tmp_path / "f").write_bytes(b"mine")
    reads = writes = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            out(Tree.running(root_fd), "/d/f", tmp_path / "got")
            assert (tmp_path / "got").read_bytes() in (b"inside", b"mine", b"")  # b"": just being made
            reads += 1
        except (PyrunError, OSError):
            pass
        try:
            into(Tree.running(root_fd), tmp_path / "f", "/d/f")
            writes += 1
        except (PyrunError, OSError):
            pass
    os.close(root_fd)
    assert reads > 10
    assert writes > 10


@requires(tools=("unshare",))
def test_a_process_with_mounts_of_its_own(container: Container, given: Path, tmp_path: Path) -> None:
    """/proc/<pid>/root of a process in its own mount namespace: its tmpfs is seen and written, its /proc left out."""
    container.running().stack.close()
    merged = container.base / "merged"
    for name in ("proc", "tmp"):
        (merged / name).mkdir()
    script = (
        'mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/tmp" && '
        'echo t > "$0/tmp/t" && cd "$0" && pivot_root . . && echo ready && read x'
    )
    shell = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(merged)]
    process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        root_fd = os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_DIRECTORY)
        mountinfo = Path(f"/proc/{process.pid}/mountinfo").read_text()
        into(Tree.running(root_fd, mountinfo), given / "file", "/tmp")
        out(Tree.running(root_fd, mountinfo), "/", tmp_path / "all", archive=True)
        os.close(root_fd)
    finally:
        process.communicate(b"\n")
    assert sorted(os.listdir(tmp_path / "all/tmp")) == ["file", "t"]
    assert os.listdir(tmp_path / "all/proc") == []
    assert os.listdir(merged / "tmp") == [], "it went into the process's tmpfs, not below it"
