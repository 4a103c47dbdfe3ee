# SPDX-License-Identifier: Apache-2.0
"""VOLUMEs of an image by which its author would cover what the kernel says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)


def built(pyrun: Pyrun, base_image: str, tmp_path: Path, *lines: str) -> str:
    """The id of an image of the base image and these instructions."""
    (tmp_path / "Dockerfile").write_text("\n".join([f"FROM {base_image}", *lines, ""]))
    return pyrun.ok("build", "-q", str(tmp_path)).strip()


@pytest.mark.parametrize(
    ("volume", "place"),
    [
        ("/proc", "/proc"),
        ("/proc/sys", "/proc/sys"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/dev", "/dev"),
        ("/", "/"),
        ("..", "/"),
        ("../../proc", "/proc"),
        ("//proc/.", "/proc"),
    ],
)
def test_a_volume_of_the_image_does_not_cover_procfs(
    pyrun: Pyrun, base_image: str, tmp_path: Path, volume: str, place: str
) -> None:
    """create and run refuse it in one line that names image and path; nothing is left of the container."""
    image = built(pyrun, base_image, tmp_path, f'VOLUME ["{volume}"]')
    before = pyrun.ok("ps", "-aq"), pyrun.ok("volume", "ls", "-q")
    for command in (("create",), ("run", "--rm")):
        refused = pyrun(*command, image, "true")
        assert refused.rc == (125 if command[0] == "run" else 1)
        assert f"image '{image}'" in refused.err.splitlines()[0]
        assert f"would cover {place}" in refused.err.splitlines()[0]
    assert (pyrun.ok("ps", "-aq"), pyrun.ok("volume", "ls", "-q")) == before


def test_a_volume_that_is_a_link_to_proc_is_refused(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """Where the image's links lead is what counts."""
    image = built(pyrun, base_image, tmp_path, "RUN ln -s b /a && ln -s ../proc/1 /b", "VOLUME /a/fd")
    refused = pyrun("run", "--rm", image, "true")
    assert refused.rc == 125
    assert "/a/fd (which is /proc/1/fd) would cover /proc/1/fd" in refused.err


def test_a_volume_below_a_loop_of_links_is_refused(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """An error with a reason, not one of the kernel's in the middle of a start."""
    image = built(pyrun, base_image, tmp_path, "RUN ln -s b /a && ln -s a /b", "VOLUME /a")
    refused = pyrun("create", image, "true")
    assert refused.rc == 1
    assert "its volume /a: too many levels of symbolic links" in refused.err


def test_a_volume_with_dots_is_where_they_lead(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """`VOLUME ../../x` is /x, and two names of one directory are one volume."""
    image = built(pyrun, base_image, tmp_path, 'VOLUME ["../../x", "/x/", "data"]')
    container = pyrun.ok("create", image, "true").strip()
    try:
        mounts = json.loads(pyrun.ok("inspect", container))[0]["Mounts"]
        assert sorted(mount["Destination"] for mount in mounts) == ["/data", "/x"]
    finally:
        pyrun.ok("rm", "-v", container)


def test_the_users_own_mount_there_is_the_users_affair(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """-v onto the image's VOLUME takes its place, on /dev/x as anywhere else."""
    image = built(pyrun, base_image, tmp_path, "VOLUME /dev/x")
    (tmp_path / "f").write_text("mine")
    assert pyrun.ok("run", "--rm", "-v", f"{tmp_path}:/dev/x", image, "cat", "/dev/x/f") == "mine"
