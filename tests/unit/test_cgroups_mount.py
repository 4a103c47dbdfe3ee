# SPDX-License-Identifier: Apache-2.0
"""Finding the cgroup2 mount, naming cgroups, and the small parsers; on files of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrun.cgroups import mount
from pyrun.cgroups.cgroupfs import child_groups, flat_keyed, subtree
from pyrun.cgroups.oom import OutOfMemory, human
from pyrun.cgroups.psi import Pressure, Stall, parse
from pyrun.runtime.errors import SpecError, Unsupported

if TYPE_CHECKING:
    from pathlib import Path


def test_the_mount_is_found_wherever_it_is(tmp_path: Path) -> None:
    """The whole and writable hierarchy is chosen, not a read-only bind mount of a part; spaces are decoded."""
    for name, controllers in (("a b", "cpu memory\n"), ("part", "pids\n"), ("ro", "pids\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.controllers").write_text(controllers)
    spaced = str(tmp_path / "a b").replace(" ", "\\040")
    table = tmp_path / "mountinfo"
    table.write_text(
        f"""\
23 1 0:21 / / rw shared:1 - ext4 /dev/sda rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 /x {tmp_path}/part rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / {tmp_path}/ro ro,relatime shared:9 - cgroup2 cgroup2 rw
43 31 0:38 / {spaced} rw,relatime shared:9 master:3 - cgroup2 cgroup2 rw,nsdelegate
44 31 0:38 / {tmp_path}/covered rw,relatime - cgroup2 cgroup2 rw
"""
    )
    found = mount.find(str(table))
    assert found == mount.Mount(str(tmp_path / "a b"), frozenset({"cpu", "memory"}))
    assert found.directory("/") == str(tmp_path / "a b")
    assert found.directory("/pyrun/c") == str(tmp_path / "a b" / "pyrun/c")


def test_no_mount(tmp_path: Path) -> None:
    """The message says how to mount it."""
    table = tmp_path / "mountinfo"
    table.write_text("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    with pytest.raises(Unsupported, match="no cgroup2 mount") as caught:
        mount.find(str(table))
    assert "mount -t cgroup2" in caught.value.hint


@pytest.mark.parametrize(
    ("instance", "parent", "path"),
    [
        ("", "", "/pyrun/c1"),
        ("0a1b2c", "", "/pyrun-0a1b2c/c1"),
        ("", "/web/blue", "/web/blue/c1"),
        ("0a1b2c", "web//./blue/", "/web/blue/c1"),
        ("", "/", "/c1"),
    ],
)
def test_container_path(instance: str, parent: str, path: str) -> None:
    """/pyrun[-instance]/<id> unless --cgroup-parent says otherwise."""
    assert mount.container_path("c1", instance=instance, parent=parent) == path


@pytest.mark.parametrize(
    ("cgroups_path", "path"), [("", "/pyrun-oci/c1"), ("/a/b", "/a/b"), ("a/b", "/pyrun-oci/a/b"), ("/a//./b/", "/a/b")]
)
def test_spec_path(cgroups_path: str, path: str) -> None:
    """linux.cgroupsPath: absolute below the mount, relative below pyrun's own."""
    assert mount.spec_path(cgroups_path, "c1") == path


@pytest.mark.parametrize("path", ["/a/../../etc", "..", "a/..", "/a\nb", "/a\0b"])
def test_paths_that_lead_elsewhere(path: str) -> None:
    """ ".." is refused, not resolved."""
    with pytest.raises(SpecError, match=r"without '\.\.'"):
        mount.spec_path(path, "c1")


def test_flat_keyed() -> None:
    """Lines of another shape are left out."""
    assert flat_keyed("populated 1\nfrozen 0\nmax max\nx\n") == {"populated": 1, "frozen": 0}


def test_subtree_lists_parents_first(tmp_path: Path) -> None:
    """Every directory below, and no files; a path that is gone has none."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_text("")
    assert subtree(str(tmp_path)) == [f"{tmp_path}", f"{tmp_path}/a", f"{tmp_path}/a/b"]
    assert child_groups(f"{tmp_path}/gone") == []


def test_pressure() -> None:
    """Both lines of a pressure file; cpu.pressure of old kernels has one."""
    some = "some avg10=1.50 avg60=0.05 avg300=0.01 total=12345\n"
    full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    assert parse(some + full) == Pressure(Stall(1.5, 0.05, 0.01, 12345), Stall(0.0, 0.0, 0.0, 7))
    assert parse(some).full == Stall()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (32 << 20, "32 MiB"), (3 << 29, "1.5 GiB"), (1 << 30, "1 GiB")],
)
def test_human_sizes(size: int, text: str) -> None:
    """Binary units, as the limits are given in."""
    assert human(size) == text


def test_oom_messages() -> None:
    """The message names the limit and its owner."""
    assert str(OutOfMemory(1, "container", "/pyrun/c", 32 << 20)) == (
        "killed: memory limit 32 MiB of the container reached"
    )
    assert str(OutOfMemory(1, "parent", "/web", 1 << 30)) == (
        "killed: memory limit 1 GiB of cgroup /web, which holds the container, reached"
    )
    assert str(OutOfMemory(1, "host", "", 0)) == "killed: the machine ran out of memory"
