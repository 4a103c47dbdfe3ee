# SPDX-License-Identifier: Apache-2.0
"""Layers read without a mount: compared with the kernel's overlayfs, and attacked."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tars
from pyrun.rootfs import unpack as unpacking
from pyrun.rootfs import users
from pyrun.rootfs.inroot import read_file as read_in_root
from pyrun.rootfs.inroot import remove_path, remove_tree
from pyrun.rootfs.layered import Stack, read_file
from pyrun.runtime.errors import SpecError
from requires import requires

pytestmark = requires(root=True)


def layer(path: Path, *members: Any) -> str:
    path.mkdir(parents=True)
    fd = unpacking.open_root(str(path))
    try:
        unpacking.unpack(io.BytesIO(tars.tar(*members)), fd)
    finally:
        os.close(fd)
    return str(path)


def parts(path: str) -> tuple[bytes, ...]:
    return tuple(os.fsencode(path).split(b"/"))


# Against the kernel --------------------------------------------------------------------------------------------------

DUMP = """
import json, os, subprocess, sys
for case in json.load(sys.stdin):
    options = "lowerdir=%s,upperdir=%s,workdir=%s" % (":".join(case["lowers"]), case["upper"], case["work"])
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, case["merged"]], check=True)
    seen = {}
    for top, directories, files in os.walk(case["merged"]):
        for path in [top] + [os.path.join(top, name) for name in files + directories]:
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue  # overlayfs lists a whiteout in a directory that it did not have to merge
            link = os.readlink(path) if os.path.islink(path) else ""
            data = open(path).read() if os.path.isfile(path) and not link else ""
            seen[os.path.relpath(path, case["merged"])] = [info.st_mode, info.st_uid, link, data]
    subprocess.run(["umount", case["merged"]], check=True)
    print(json.dumps(seen))
"""


def random_layer(choose: random.Random, bottom: bool) -> list[Any]:
    """Files, directories, links and whiteouts with few names, so that layers meet."""
    names = ["a", "b", "c"]
    members = []
    for _ in range(choose.randrange(3, 12)):
        path = "/".join(choose.choice(names) for _ in range(choose.randrange(1, 4)))
        kind = choose.choice(["file", "file", "dir", "dir", "symlink", "whiteout", "opaque"])
        if kind == "whiteout" and not bottom:
            head, slash, tail = path.rpartition("/")
            members.append(tars.member(f"{head}{slash}.wh.{tail}"))
        elif kind == "opaque" and not bottom:
            members.append(tars.member(f"{path}/.wh..wh..opq"))
        elif kind == "symlink":
            target = choose.choice(["", "/", "../", "../../"]) + "/".join(choose.choice(names) for _ in range(2))
            members.append(tars.member(path, "symlink", linkname=target))
        elif kind in ("file", "dir"):
            data = str(choose.randrange(1000)).encode() if kind == "file" else b""
            members.append(tars.member(path, kind, data, uid=choose.randrange(5), mode=choose.choice([0o755, 0o700])))
    return members


def unpack_leniently(path: Path, members: list[Any]) -> str:
    """Entries that do not fit the ones before are left out."""
    good: list[Any] = []
    for member in members:
        try:
            layer(path, *good, member)
            good.append(member)
        except Exception:
            pass
        remove_path(str(path))
    return layer(path, *good)


def test_the_merged_tree_is_what_the_kernel_shows(tmp_path: Path) -> None:
    """Sixty random stacks of three layers, mounted by overlayfs in a namespace of their own and read by Stack."""
    choose = random.Random(7)
    cases = []
    for number in range(60):
        base = tmp_path / str(number)
        kinds = ("bottom", "middle", "upper")
        directories = [unpack_leniently(base / kind, random_layer(choose, kind == "bottom")) for kind in kinds]
        for name in ("work", "merged"):
            (base / name).mkdir()
        cases.append(
            {"lowers": [directories[1], directories[0]], "upper": directories[2], "work": str(base / "work"),
             "merged": str(base / "merged")}
        )  # fmt: skip
    found = subprocess.run(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-c", DUMP],
        input=json.dumps(cases), capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    entries = 0
    for case, line in zip(cases, found.stdout.splitlines(), strict=True):
        kernel = json.loads(line)
        with Stack([str(case["upper"]), *case["lowers"]]) as stack:
            ours = {}
            for entry, own in stack.walk(()):
                data = b"".join(stack.data(own)).decode() if entry.kind == "file" else ""
                kind = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK}[entry.kind]
                ours[os.fsdecode(entry.path) or "."] = [kind | entry.mode, entry.uid, os.fsdecode(entry.link), data]
        assert ours == kernel, case
        entries += len(ours)
    assert entries > 300, "the trees were too small to show anything"


# Reading one file ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stacked(tmp_path: Path) -> tuple[str, ...]:
    bottom = layer(
        tmp_path / "bottom",
        tars.member("etc/passwd", data=b"bottom"), tars.member("etc/group", data=b"g"),
        tars.member("etc/gone", data=b"x"), tars.member("old/file", data=b"x"),
        tars.member("usr/bin/tool", data=b"t"), tars.member("bin", "symlink", linkname="usr/bin"),
        tars.member("abs", "symlink", linkname="/etc/passwd"),
        tars.member("up", "symlink", linkname="../../../../etc/passwd"),
        tars.member("loop", "symlink", linkname="loop"),
    )  # fmt: skip
    top = layer(
        tmp_path / "top",
        tars.member("etc/passwd", data=b"top"), tars.member("etc/.wh.gone"), tars.member("old/.wh..wh..opq"),
        tars.member("old/new", data=b"n"), tars.member("pipe", "fifo"),
        tars.member("null", "char", devmajor=1, devminor=3),
    )  # fmt: skip
    return top, bottom


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/etc/passwd", b"top"), ("etc/group", b"g"), ("/bin/tool", b"t"), ("/abs", b"top"), ("/up", b"top"),
        ("/../../etc/./passwd", b"top"), ("/bin/../../etc/group", b"g"), ("/old/new", b"n"),
    ],
)  # fmt: skip
def test_files_are_found_as_in_the_container(stacked: tuple[str, ...], path: str, content: bytes) -> None:
    """The topmost, through symlinks, never above the root."""
    assert read_file(stacked, path, 100) == content


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/etc/gone", errno.ENOENT), ("/old/file", errno.ENOENT),
        ("/no", errno.ENOENT),
        ("/etc/passwd/x", errno.ENOTDIR), ("/loop", errno.ELOOP), ("/etc", errno.EINVAL),
        ("/pipe", errno.EINVAL), ("/null", errno.EINVAL),
    ],
)  # fmt: skip
def test_what_is_hidden_or_no_file_is_an_error(stacked: tuple[str, ...], path: str, error: int) -> None:
    """A FIFO would hang the reader, a device may do anything: neither is opened (CVE-2024-9676, CVE-2026-47262)."""
    with pytest.raises(OSError) as caught:
        read_file(stacked, path, 100)
    assert caught.value.errno == error


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A terabyte of hole as /etc/passwd."""
    with open(tmp_path / "passwd", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError) as caught:
        read_file((str(tmp_path),), "/passwd", 1 << 20)
    assert caught.value.errno == errno.EFBIG


def test_a_running_containers_root_is_read_by_fd(stacked: tuple[str, ...]) -> None:
    """The same care with the directory fd of a root: `exec -u`."""
    root_fd = os.open(stacked[1], os.O_PATH | os.O_DIRECTORY)
    try:
        assert read_in_root(root_fd, "/up", 100) == b"bottom"
        assert read_in_root(root_fd, "/bin/tool", 100) == b"t"
        for path in ("/loop", "/etc", "/nothing"):
            with pytest.raises(OSError):
                read_in_root(root_fd, path, 100)
        assert users.of_root(root_fd, "5:6") == users.User(5, 6)
    finally:
        os.close(root_fd)


def test_users_of_a_broken_image(tmp_path: Path) -> None:
    """A FIFO as /etc/passwd: said so, at once, even where only a number was asked for."""
    top = layer(tmp_path / "x", tars.member("etc/passwd", "fifo"))
    for user in ("app", "1000"):
        with pytest.raises(SpecError, match="/etc/passwd of the container: not a regular file"):
            users.of_layers((top,), user)
    assert users.of_layers((layer(tmp_path / "y"),), "1000") == users.User(1000, 0)


# Removing ------------------------------------------------------------------------------------------------------------


def test_trees_deeper_than_fds_and_stack_are_removed(tmp_path: Path) -> None:
    """A container can nest 5000 directories: no recursion, no fd for each."""
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_PATH)
    for _ in range(5000):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_path(str(top))
    assert os.listdir(tmp_path) == []


def test_removing_does_not_follow_symlinks(tmp_path: Path) -> None:
    """What they point to stays, as a directory's entry and as the tree itself."""
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "keep")
    (tmp_path / "toplink").symlink_to(tmp_path / "keep")
    fd = os.open(tmp_path, os.O_PATH)
    try:
        for name in (b"tree", b"toplink", b"missing"):
            remove_tree(fd, name)
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == ["keep"]
    assert os.listdir(tmp_path / "keep") == ["file"]
