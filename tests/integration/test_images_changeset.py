# SPDX-License-Identifier: Apache-2.0
"""Change sets against the kernel: what overlayfs wrote, packed as a layer and unpacked again, is the same tree."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyrun.rootfs import changeset, upper
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.limits import ArchiveError
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import UsageError
from pyrun.runtime.paths import Paths
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = requires(root=True)

# In a mount namespace of its own: mounts overlays, runs a script in each, and dumps what is to be seen afterwards.
INSIDE = """
import hashlib, json, os, subprocess, sys
for case in json.load(sys.stdin):
    options = "lowerdir=%s" % ":".join(reversed(case["lowers"]))
    if case["upper"]:
        options += ",upperdir=%s,workdir=%s,redirect_dir=nofollow,metacopy=off" % (case["upper"], case["work"])
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, case["merged"]], check=True)
    subprocess.run(["sh", "-c", case["script"]], cwd=case["merged"], stderr=subprocess.DEVNULL)
    seen, inodes = {}, {}
    for top, directories, files in os.walk(case["merged"]):
        for path in [top] + [os.path.join(top, name) for name in files + directories]:
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue  # overlayfs lists a whiteout in a directory that it did not have to merge
            name = os.path.relpath(path, case["merged"])
            data = link = ""
            if os.path.islink(path):
                link = os.readlink(path)
            elif os.path.isfile(path):
                data = hashlib.sha256(open(path, "rb").read()).hexdigest()
            names = [] if os.path.islink(path) else sorted(os.listxattr(path))
            extra = {key: os.getxattr(path, key).hex() for key in names if not key.startswith("trusted.overlay.")}
            first = inodes.setdefault(info.st_ino, name) if not os.path.isdir(path) and info.st_nlink > 1 else ""
            seen[name] = [info.st_mode, info.st_uid, info.st_gid, int(info.st_mtime), info.st_rdev, link, data, extra]
            seen[name].append(first)
    subprocess.run(["umount", case["merged"]], check=True)
    print(json.dumps(seen))
"""


class Overlay:
    """Directories for an overlay: lowers (lowest first), upper, work, merged."""

    def __init__(self, top: Path, lowers: int = 2) -> None:
        self.top = top
        self.lowers = [str(top / f"lower{n}") for n in range(lowers)]
        self.upper, self.work, self.merged = (str(top / name) for name in ("upper", "work", "merged"))
        for path in (*self.lowers, self.upper, self.work, self.merged):
            os.makedirs(path)

    def case(self, script: str) -> dict[str, Any]:
        return {"lowers": self.lowers, "upper": self.upper, "work": self.work, "merged": self.merged, "script": script}

    def again(self, packed: str) -> dict[str, Any]:
        """The same lowers with the unpacked layer on top, looked at only."""
        return {"lowers": [*self.lowers, packed], "upper": "", "work": "", "merged": self.merged, "script": "true"}


def in_overlays(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs the cases' scripts in their mounted overlays; what each tree is afterwards."""
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-c", INSIDE],
        input=json.dumps(cases), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(data=str(tmp_path / "data"), run=str(tmp_path / "run")))


def packed(store: ImageStore, directory: str, lowers: Sequence[str] = (), **options: Any) -> tuple[bytes, Any]:
    """The blob and what pack() says about it, which must be true."""
    with store.ingest() as ingest:
        layer = changeset.pack(directory, lowers, ingest, **options)
        blob = Path(ingest.blob(layer.digest)).read_bytes()
    assert layer.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert layer.size == len(blob)
    return blob, layer


def unpacked(blob: bytes, target: Path, lowers: Sequence[str] = ()) -> str:
    """The layer as the store would unpack it over these lowers."""
    target.mkdir()
    fd = unpacking.open_root(str(target))
    try:
        with Stack(list(reversed(lowers))) as stack:
            unpacking.unpack(io.BytesIO(blob), fd, require_end=True, metadata_of=stack.directory if lowers else None)
    finally:
        os.close(fd)
    return str(target)


def members(blob: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        return {info.name: info for info in archive}


def round_trip(store: ImageStore, overlays: list[tuple[Overlay, str, str]]) -> list[list[str]]:
    """Each (overlay, script for the lowers, script): the tree that the kernel made equals the one of the packed layer.

    Gives the names in each layer.
    """
    for overlay, below, _ in overlays:
        for number, lower in enumerate(overlay.lowers):
            subprocess.run(["sh", "-c", below], cwd=lower, env={**os.environ, "N": str(number)}, check=True)
    made = in_overlays([overlay.case(script) for overlay, _, script in overlays])
    names, again = [], []
    for overlay, _, _ in overlays:
        blob, layer = packed(store, overlay.upper, overlay.lowers)
        found = members(blob)
        assert layer.entries == len(found)
        names.append(list(found))
        again.append(overlay.again(unpacked(blob, overlay.top / "unpacked", overlay.lowers)))
    for want, got in zip(made, in_overlays(again), strict=True):
        root, other = want.pop("."), got.pop(".")
        assert root[:3] == other[:3]  # not its time, which begins with the upper directory
        assert got == want
    return names


TREE = "mkdir -p a/b/c d e/f; echo $N >a/one; echo $N >a/b/two; echo x >d/three; ln -s one a/link; echo y >e/f/four"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo new >a/b/new", ["a", "a/b", "a/b/new"]),
        ("rm a/one", ["a", "a/.wh.one"]),
        ("rm -r a", [".wh.a"]),
        ("rm -r a && mkdir a && echo n >a/n", ["a", "a/.wh..wh..opq", "a/n"]),
        ("mkdir g && echo 1 >g/h", ["g", "g/h"]),  # overlayfs marks g opaque, though nothing is below it
        ("echo 1 >k && rm k", []),
        ("rm -r d && echo file >d", ["d"]),
        ("rm a/one && mkdir a/one && echo 1 >a/one/in", ["a", "a/one", "a/one/in"]),
        ("chmod 700 d", ["d"]),
        ("chown 12:34 a/one", ["a", "a/one"]),
        ("chmod 4755 a/one", ["a", "a/one"]),
        ("mv a/one a/moved", ["a", "a/moved", "a/.wh.one"]),
        ("cp -r a z && rm -r a", [".wh.a", "z", "z/b", "z/b/c", "z/b/two", "z/link", "z/one"]),
        ("ln -sfn elsewhere a/link", ["a", "a/link"]),
        ("echo 1 >p && ln p q && ln p a/r", ["a", "a/r", "p", "q"]),
        ("mknod fifo p; mknod null c 1 3; mknod disk b 7 0; chmod 600 null", ["disk", "fifo", "null"]),
        ("truncate -s 3M hole && echo end >>hole", ["hole"]),
        ("chmod 711 .", ["."]),
        ("true", []),
    ],
)
def test_each_kind_of_change_becomes_the_least_that_says_it(
    store: ImageStore, tmp_path: Path, script: str, expected: list[str]
) -> None:
    """The layer has the entries that the change needs and no others, and gives the same tree."""
    (names,) = round_trip(store, [(Overlay(tmp_path / "o"), TREE, script)])
    assert names == expected


def test_attributes_survive_the_way_into_a_layer_and_out_of_it(store: ImageStore, tmp_path: Path) -> None:
    """File capabilities, user attributes with any bytes, ACLs; on files and directories."""
    acl = "02000000 01000700 ffffffff 02000700 21000000 04000500 ffffffff 10000700 ffffffff 20000500 ffffffff"
    capability = "01000002 00200000 00000000 00000000 00000000"  # cap_net_raw+ep, revision 2 of vfs_cap_data
    script = f"""
echo 1 >ping; mkdir dir; {sys.executable} -c '
from os import setxattr
setxattr("ping", "security.capability", bytes.fromhex("{capability}"))
setxattr("ping", "user.x", bytes.fromhex("00ff3d0a0a"))
setxattr("dir", "user.y", b"a=b")
setxattr("ping", "system.posix_acl_access", bytes.fromhex("{acl}"))
setxattr("dir", "system.posix_acl_default", bytes.fromhex("{acl}"))
'"""
    overlay = Overlay(tmp_path / "o")
    round_trip(store, [(overlay, TREE, script)])
    with Stack([str(overlay.top / "unpacked")]) as stack:
        attributes = stack.entry((b"ping",)).xattrs or {}
    assert attributes[b"user.x"] == b"\x00\xff=\n\n"
    assert set(attributes) == {b"security.capability", b"user.x", b"system.posix_acl_access"}


def random_script(choose: random.Random) -> str:
    """Commands with few names, so that they meet; many fail, which is fine."""
    names = ["a", "b", "c"]

    def path() -> str:
        return "/".join(choose.choice(names) for _ in range(choose.randrange(1, 4)))

    commands = [
        lambda: f"echo {choose.randrange(99)} >{path()}",
        lambda: f"mkdir -p {path()}",
        lambda: f"rm -rf {path()}",
        lambda: f"rm -rf {path()}",
        lambda: f"mv -T {path()} {path()}",
        lambda: f"ln {path()} {path()}",
        lambda: f"ln -s {path()} {path()}",
        lambda: f"chmod {choose.choice(['700', '755', '1777'])} {path()}",
        lambda: f"chown -h {choose.randrange(5)}:{choose.randrange(5)} {path()}",
        lambda: f"P={path()}; rm -rf $P; mkdir $P; echo {choose.randrange(99)} >$P/{choose.choice(names)}",
    ]
    return "; ".join(choose.choice(commands)() for _ in range(choose.randrange(8, 40)))


def test_random_changes_come_out_as_they_went_in(store: ImageStore, tmp_path: Path) -> None:
    """Sixty overlays of two random lowers each, changed at random by the kernel's overlayfs."""
    choose = random.Random(11)
    overlays = []
    for number in range(60):
        below = f"{{ {random_script(choose)}; }} 2>/dev/null; true"
        overlays.append((Overlay(tmp_path / str(number)), below, random_script(choose)))
    names = round_trip(store, overlays)
    assert sum(map(len, names)) > 300, "the changes were too small to show anything"
    whiteouts = [name for layer in names for name in layer if ".wh." in name]
    assert len(whiteouts) > 20


def test_two_lowers_that_differ_are_one_merged_tree(store: ImageStore, tmp_path: Path) -> None:
    """What only an upper lower hides is not deleted once more; what only the lowest has is."""
    overlay = Overlay(tmp_path / "o")
    below = 'mkdir d; if [ "$N" = 0 ]; then echo >d/low; echo >d/gone; else mknod d/gone c 0 0; echo >d/high; fi'
    (names,) = round_trip(store, [(overlay, below, "rm d/low; touch d/gone; rm d/gone")])
    assert names == ["d", "d/.wh.low"]


# The layer's bytes ---------------------------------------------------------------------------------------------------


def some_tree(path: Path) -> str:
    (path / "dir").mkdir(parents=True)
    (path / "dir" / "file").write_bytes(b"content\n" * 1000)
    (path / ("long-" * 30)).write_text("long")
    (path / "ünïcode").write_text("u")
    os.close(os.open(os.fsencode(path) + b"/bytes-\xff\xfe", os.O_CREAT | os.O_WRONLY, 0o644))
    os.symlink("x" * 300, path / "far")
    os.mkfifo(path / "pipe")
    os.chown(path / "dir" / "file", 4_000_000_000, 3_000_000)
    os.utime(path / "far", ns=(0, -5 * 10**9 - 1), follow_symlinks=False)
    for name in os.listdir(os.fsencode(path)):
        if name != b"far":
            os.utime(os.fsencode(path) + b"/" + name, ns=(0, 1_700_000_000_999_999_999))
    return str(path)


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_the_same_files_give_the_same_bytes(store: ImageStore, tmp_path: Path, compression: str) -> None:
    """Two directories made in another order, read at other times: one digest. Nothing of the host is in the layer."""
    first = some_tree(tmp_path / "one")
    subprocess.run(["cp", "-a", first, str(tmp_path / "two")], check=True)
    (tmp_path / "one" / "dir" / "file").read_bytes()
    one, layer = packed(store, first, compression=compression)
    two, other = packed(store, str(tmp_path / "two"), compression=compression)
    assert one == two
    assert layer == other
    assert layer.media_type.rpartition(".")[2] == "tar" + (f"+{compression}" if compression else "")
    assert b"root" not in gzip.decompress(one) if compression == "gzip" else True


def test_odd_names_owners_and_times_survive(store: ImageStore, tmp_path: Path) -> None:
    """Long and non-UTF-8 names, long link targets, ids beyond 21 bits, a time before 1970: the same to the second."""
    source = some_tree(tmp_path / "one")
    blob, layer = packed(store, source)
    target = unpacked(blob, tmp_path / "two")
    assert sorted(os.listdir(os.fsencode(target))) == sorted(os.listdir(os.fsencode(source)))
    info = os.stat(f"{target}/dir/file")
    assert (info.st_uid, info.st_gid) == (4_000_000_000, 3_000_000)
    assert os.readlink(f"{target}/far") == "x" * 300
    assert os.lstat(f"{target}/far").st_mtime == -6
    assert os.lstat(f"{target}/pipe").st_mtime_ns == 1_700_000_000 * 10**9
    assert layer.content_size == 8000 + 4 + 1


def test_no_time_is_later_than_the_epoch(store: ImageStore, tmp_path: Path) -> None:
    """SOURCE_DATE_EPOCH: later times become it, earlier ones stay; a tree touched again gives the same bytes."""
    source = some_tree(tmp_path / "one")
    first, _ = packed(store, source, epoch=1_000_000_000)
    times = {name: info.mtime for name, info in members(first).items()}
    assert max(times.values()) == 1_000_000_000
    assert times["far"] == -6
    os.utime(f"{source}/dir/file")
    os.utime(f"{source}/dir")
    assert packed(store, source, epoch=1_000_000_000)[0] == first


def test_sockets_and_what_overlayfs_needs_stay_out(store: ImageStore, tmp_path: Path) -> None:
    """A socket is no content; trusted.overlay.* must never come back in through an image."""
    source = tmp_path / "one"
    source.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "sock"))
        (source / "dir").mkdir()
        os.setxattr(source / "dir", "trusted.overlay.origin", b"x")
        os.setxattr(source / "dir", "user.kept", b"y")
        blob, layer = packed(store, str(source))
    (info,) = members(blob).values()
    assert info.name == "dir"
    assert info.pax_headers == {"SCHILY.xattr.user.kept": "y"}
    assert layer.entries == 1


def test_what_is_to_be_left_out_leaves_no_trace(store: ImageStore, tmp_path: Path) -> None:
    """Mount points made for a container: neither they, nor directories made or touched for them alone, are in it."""
    overlay = Overlay(tmp_path / "o")
    script = "mkdir -p new/made/here a/b/mnt; touch a/resolv.conf; mkdir own; echo 1 >own/kept; touch own/stub"
    subprocess.run(["sh", "-c", TREE], cwd=overlay.lowers[0], env={**os.environ, "N": "0"}, check=True)
    in_overlays([overlay.case(script)])
    stubs = {(b"new", b"made", b"here"), (b"a", b"b", b"mnt"), (b"a", b"resolv.conf"), (b"own", b"stub")}
    blob, _ = packed(store, overlay.upper, overlay.lowers, ignore=stubs)
    assert list(members(blob)) == ["own", "own/kept"]
    found = [(change.kind, change.path) for change in changeset.changes(overlay.upper, overlay.lowers, ignore=stubs)]
    assert found == [("A", b"own"), ("A", b"own/kept")]


def test_a_file_named_like_a_whiteout_is_refused(store: ImageStore, tmp_path: Path) -> None:
    """In a layer `.wh.x` would delete x: the error names the file, and nothing is left in the store."""
    source = tmp_path / "one"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / ".wh.hosts").write_text("")
    with store.ingest() as ingest, pytest.raises(ArchiveError, match=r"'sub/\.wh\.hosts': in a layer, a name"):
        changeset.pack(str(source), [], ingest)
    assert not os.listdir(f"{store.layout.path}/ingest")


def test_a_renamed_directory_of_redirect_dir_is_refused(store: ImageStore, tmp_path: Path) -> None:
    """Its content is somewhere else: a layer of it would be empty without a word."""
    overlay = Overlay(tmp_path / "o")
    os.mkdir(f"{overlay.upper}/moved")
    os.setxattr(f"{overlay.upper}/moved", "trusted.overlay.redirect", b"a")
    with store.ingest() as ingest, pytest.raises(ArchiveError, match="'moved': overlayfs renamed it"):
        changeset.pack(overlay.upper, overlay.lowers, ingest)


def test_another_compression_is_refused(store: ImageStore, tmp_path: Path) -> None:
    """Before anything is read."""
    with store.ingest() as ingest, pytest.raises(UsageError, match="compression 'lz4': not one of gzip, zstd"):
        changeset.pack(str(tmp_path), [], ingest, compression="lz4")


# diff ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo new >a/b/new; rm d/three", ["C a", "C a/b", "A a/b/new", "C d", "D d/three"]),
        ("rm -r a", ["D a"]),
        ("rm -r e && mkdir -p e/f && echo 1 >e/f/five", ["C e", "C e/f", "A e/f/five", "D e/f/four"]),
        ("rm -r e && mkdir e && echo 1 >e/new", ["C e", "D e/f", "A e/new"]),
        ("echo z >>a/one", ["C a", "C a/one"]),
        ("mkdir -p g/h; ln -s a g/l", ["A g", "A g/h", "A g/l"]),
        ("echo 1 >k && rm k", []),
    ],
)
def test_diff_tells_added_changed_and_deleted(tmp_path: Path, script: str, expected: list[str]) -> None:
    """As `docker diff`, also in a directory that replaces another one."""
    overlay = Overlay(tmp_path / "o")
    for number, lower in enumerate(overlay.lowers):
        subprocess.run(["sh", "-c", TREE], cwd=lower, env={**os.environ, "N": str(number)}, check=True)
    in_overlays([overlay.case(script)])
    found = changeset.changes(overlay.upper, overlay.lowers)
    assert [f"{change.kind} {os.fsdecode(change.path)}" for change in found] == expected


# Attacks -------------------------------------------------------------------------------------------------------------


def test_links_in_the_directory_lead_nowhere(store: ImageStore, tmp_path: Path) -> None:
    """A symlink to a directory or a file of the host is packed as the link it is."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("s3cret")
    source = tmp_path / "one"
    source.mkdir()
    os.symlink(secret, source / "dir")
    os.symlink(secret / "key", source / "file")
    blob, layer = packed(store, str(source), compression="")
    assert b"s3cret" not in blob
    assert layer.content_size == 0
    assert {info.type for info in members(blob).values()} == {tarfile.SYMTYPE}


def test_a_tree_deeper_than_any_layer_may_be_is_refused(store: ImageStore, tmp_path: Path) -> None:
    """No exhaustion of descriptors or stack: an error that names the path."""
    source = tmp_path / "one"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=fd)
        inside = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inside
    os.close(fd)
    with store.ingest() as ingest, pytest.raises(ArchiveError, match="more than 256 directories deep"):
        changeset.pack(str(source), [], ingest)


def test_walking_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    """Also when it is left in the middle."""
    source = some_tree(tmp_path / "one")
    before = len(os.listdir("/proc/self/fd"))
    walk = upper.walk(source, [])
    next(walk)
    walk.close()
    list(upper.walk(source, [source]))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_changes_while_it_is_packed_keeps_the_archive_whole(tmp_path: Path) -> None:
    """One that grows is cut, one that shrinks is filled up with zeros: the next entry is where it should be."""
    source = tmp_path / "one"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_bytes(b"x" * 5000)
    packer = changeset._Packer(str(source), [], (), None)
    chunks: list[bytes] = []
    for item in packer._walk:
        with open(source / os.fsdecode(item.parts[-1]), "r+b") as file:
            file.truncate(100 if item.parts == (b"a",) else 9000)
        chunks += packer._object(item)
    blob = b"".join([*chunks, bytes(1024)])
    sizes = {name: info.size for name, info in members(blob).items()}
    assert sizes == {"a": 5000, "b": 5000, "c": 5000}
