# SPDX-License-Identifier: Apache-2.0
"""Images go from pyrun to docker and back: they run there, and every file is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import images
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli import Pyrun
    from dockerd import Dockerd

pytestmark = requires(root=True, tools=("dockerd",))


@pytest.fixture
def made(pyrun: Pyrun, base_image: str) -> str:
    """The id of the image with everything in it, called ours:1."""
    return images.make(pyrun, base_image, "ours:1")


@pytest.fixture(autouse=True)
def no_container_stays(docker: Dockerd) -> Iterator[None]:
    """A test that fails leaves its containers: not to the next one."""
    yield
    for name in docker.ok("ps", "-aq").split():
        docker("rm", "-f", name)


def exported(tool: Any, image: str, path: Path) -> dict[str, tuple[object, ...]]:
    """The files of a container that was only created."""
    name = tool.ok("create", "--name", "looked-at", image, "true").splitlines()[-1]
    tool.ok("export", "-o", str(path), name)
    tool.ok("rm", name)
    return images.tree(path.read_bytes())


def test_docker_loads_and_runs_what_pyrun_saves(pyrun: Pyrun, docker: Dockerd, made: str, tmp_path: Path) -> None:
    """The same id, config and files; it prints the same."""
    pyrun.ok("save", "-o", str(tmp_path / "image.tar"), "ours:1")
    assert docker.ok("load", "-i", str(tmp_path / "image.tar")) == "Loaded image: ours:1"
    assert docker.ok("run", "--rm", "ours:1") == images.SAYS
    assert docker.ok("image", "inspect", "-f", "{{.Id}}", "ours:1") == made
    theirs, ours = (json.loads(tool.ok("image", "inspect", "ours:1"))[0] for tool in (docker, pyrun))
    for key in images.CONFIG_KEYS:
        assert theirs["Config"][key] == ours["Config"][key], key
    assert theirs["Author"] == ours["Author"] == "somebody"
    assert theirs["RootFS"] == ours["RootFS"]
    assert exported(docker, "ours:1", tmp_path / "theirs") == exported(pyrun, "ours:1", tmp_path / "ours")
    docker.ok("rmi", "ours:1")


def test_pyrun_loads_and_runs_what_docker_saves(pyrun: Pyrun, docker: Dockerd, base_image: str, tmp_path: Path) -> None:
    """docker makes two layers with whiteouts and an opaque directory; here they are the same files, and run."""
    pyrun.ok("save", "-o", str(tmp_path / "base.tar"), base_image)
    docker.ok("load", "-i", str(tmp_path / "base.tar"))
    docker.ok("run", "--name", "maker", base_image, "sh", "-c", images.MAKE)
    docker.ok("commit", "maker", "theirs-base:1")
    docker.ok("run", "--name", "changer", "theirs-base:1", "sh", "-c", images.CHANGE)
    flags = [word for change in images.PORTABLE for word in ("-c", change)]
    docker.ok("commit", *flags, "-m", "what for", "changer", "theirs:1")
    docker.ok("tag", "theirs:1", "example.org/also/theirs:2")
    names = ("theirs:1", "example.org/also/theirs:2", "theirs-base:1")
    docker.ok("save", "-o", str(tmp_path / "image.tar"), *names)
    loaded = pyrun.ok("load", "-i", str(tmp_path / "image.tar")).splitlines()
    assert sorted(loaded) == sorted(f"Loaded image: {name}" for name in names)
    assert pyrun.ok("run", "--rm", "--network", "none", "theirs:1") == images.SAYS
    identity = docker.ok("image", "inspect", "-f", "{{.Id}}", "theirs:1")
    assert pyrun.ok("image", "inspect", "-f", "{{.Id}}", "example.org/also/theirs:2") == identity
    assert exported(docker, "theirs:1", tmp_path / "theirs") == exported(pyrun, "theirs:1", tmp_path / "ours")
    docker.ok("rm", "maker", "changer")
    docker.ok("rmi", *names)
    pyrun.ok("rmi", *names)


def test_export_and_import_go_both_ways(pyrun: Pyrun, docker: Dockerd, made: str, tmp_path: Path) -> None:
    """A container's files become an image there and here."""
    pyrun.ok("create", "--name", "ours", "ours:1")
    pyrun.ok("export", "-o", str(tmp_path / "ours.tar"), "ours")
    docker.ok("import", "-c", 'CMD ["cat", "/data/one"]', str(tmp_path / "ours.tar"), "imported:1")
    assert docker.ok("run", "--rm", "imported:1") == "one\nmore"
    docker.ok("create", "--name", "theirs", "imported:1")
    docker.ok("export", "-o", str(tmp_path / "theirs.tar"), "theirs")
    pyrun.ok("import", "-c", 'CMD ["cat", "/data/one"]', str(tmp_path / "theirs.tar"), "imported:1")
    assert pyrun.ok("run", "--rm", "--network", "none", "imported:1") == "one\nmore"
    assert images.tree((tmp_path / "ours.tar").read_bytes()) == images.tree((tmp_path / "theirs.tar").read_bytes())
    docker.ok("rm", "theirs")
    docker.ok("rmi", "imported:1")
    pyrun.ok("rm", "ours")
    pyrun.ok("rmi", "imported:1")


def test_diff_says_what_docker_says(pyrun: Pyrun, docker: Dockerd, made: str, tmp_path: Path) -> None:
    """The same lines for the same commands, but where docker cannot tell that a directory was replaced."""
    pyrun.ok("save", "-o", str(tmp_path / "image.tar"), "ours:1-base")
    docker.ok("load", "-i", str(tmp_path / "image.tar"))
    script = (
        "rm /data/sub/two; echo n >/data/new; echo m >>/data/one; mkdir -p /a/b; rm -r /data/sub/deep; chmod 0 /keep"
    )
    found = []
    for tool in (pyrun, docker):
        tool.ok("run", "--name", "differs", "--network", "none", "ours:1-base", "sh", "-c", script)
        found.append(tool.ok("diff", "differs").splitlines())
        tool.ok("rm", "differs")
    assert sorted(found[0]) == sorted(found[1])
    docker.ok("rmi", "ours:1-base")
