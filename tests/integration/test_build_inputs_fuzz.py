# SPDX-License-Identifier: Apache-2.0
"""Random trees: COPY of a directory is `cp -a`, and two trees have one content key exactly if they are the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildtrees import show
from pyrun.rootfs.build import copy
from pyrun.rootfs.build.copy import CopyRequest
from pyrun.rootfs.build.source import Tree
from pyrun.rootfs.layered import Stack
from requires import requires

pytestmark = requires(root=True)

# Names that sort before and after one another's children, bytes that are no UTF-8, dots, blanks, wildcards.
NAMES = [b"a", b"ab", b"a.b", b"a-", b"\xff", b" ", b"*", b"[x]", b".d", b"-x", b"\\", b"n\nl"]
ENTRIES = st.tuples(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
    st.sampled_from(["file", "dir", "link", "hard", "fifo"]),
    st.integers(0, 3),
    st.sampled_from([0o644, 0o600, 0o4755, 0o000]),
)
TREES = st.lists(ENTRIES, max_size=12)


def build(root: Path, entries: list[tuple[list[bytes], str, int, int]]) -> None:
    """As much of the tree as fits together."""
    files: list[bytes] = []
    for parts, kind, number, mode in entries:
        path = os.path.join(os.fsencode(root), *parts)
        above = os.path.dirname(path)
        if os.path.realpath(above) != os.path.join(os.path.realpath(os.fsencode(root)), *parts[:-1]):
            continue  # a symlink is on the way: nothing is made outside the root
        try:
            os.makedirs(above, exist_ok=True)
            if kind == "dir":
                os.mkdir(path)
                os.chmod(path, mode | 0o100)
            elif kind == "link":
                os.symlink(b"/".join([b".."] * number) + b"/x", path)
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "hard" and files:
                os.link(files[number % len(files)], path)
            else:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.write(fd, b"x" * number)
                os.fchmod(fd, mode)
                os.close(fd)
                files.append(path)
        except (FileExistsError, NotADirectoryError):
            continue


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    base = tempfile.mkdtemp(prefix="pyrun-fuzz-")
    yield Path(base)
    shutil.rmtree(base)


def shown(root: Path) -> dict[str, str]:
    with Stack([str(root)]) as stack:
        return show(stack)


def key(root: Path) -> str:
    with Tree.directory(str(root)) as tree, Stack([]) as target:
        return copy.plan(tree, CopyRequest((".",), "/"), target).digest()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, TREES)
def test_copy_is_cp_a(
    place: Path, first: list[tuple[list[bytes], str, int, int]], second: list[tuple[list[bytes], str, int, int]]
) -> None:
    """Kinds, modes, contents, links and hard links come out as cp(1) makes them."""
    base = Path(tempfile.mkdtemp(dir=place))
    try:
        trees = [base / "one", base / "two"]
        for root, entries in zip(trees, (first, second), strict=True):
            root.mkdir()
            build(root, entries)
        (base / "fs").mkdir()
        with Tree.directory(str(trees[0])) as tree, Stack([]) as target:
            plan = copy.plan(tree, CopyRequest((".",), "/"), target)
            copy.apply(plan, str(base / "fs"), [])
        (base / "cp").mkdir()
        subprocess.run(["cp", "-a", f"{trees[0]}/.", str(base / "cp")], check=True)
        assert shown(base / "fs") == shown(base / "cp")
        assert key(base / "fs") == key(trees[0])
        assert (key(trees[0]) == key(trees[1])) is (shown(trees[0]) == shown(trees[1]))
    finally:
        shutil.rmtree(base)
