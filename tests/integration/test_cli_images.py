# SPDX-License-Identifier: Apache-2.0
"""images, import, load, save, tag, rmi, history, image inspect and prune from the command line."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)


def rootfs(path: Path, content: str = "x") -> str:
    """A tar with one file in it; gives its path."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content.encode()))
    return str(path)


@pytest.fixture
def small(pyrun: Pyrun, tmp_path: Path) -> Iterator[str]:
    """The id of an image small:1 of one file, gone after the test."""
    tar = rootfs(tmp_path / "small.tar")
    changes = ("-c", 'CMD ["/bin/x"]', "-c", "LABEL team=a", "-c", "EXPOSE 80", "-m", "made by a test")
    yield pyrun.ok("import", *changes, tar, "small:1")
    left = pyrun.ok("images", "-q", "--no-trunc").split()
    for image in left:
        if pyrun.ok("image", "inspect", "-f", '{{index .Config.Labels "team"}}', image) == "a":
            pyrun.ok("rmi", "-f", image)


def test_images(pyrun: Pyrun, small: str) -> None:
    """docker's table, filters and formats."""
    head, *lines = pyrun.ok("images").splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    short = small.removeprefix("sha256:")[:12]
    assert any(line.split()[:3] == ["small", "1", short] for line in lines)
    assert pyrun.ok("images", "-q", "small") == short
    assert pyrun.ok("images", "-q", "--no-trunc", "small:1") == small
    assert pyrun.ok("images", "-q", "small:2") == ""
    assert pyrun.ok("image", "ls", "-f", "reference=sm*", "--format", "{{.Repository}}:{{.Tag}}") == "small:1"
    assert pyrun.ok("images", "-f", "label=team=a", "--format", "{{.Size}}") == "1B"
    assert json.loads(pyrun.ok("images", "small", "--format", "json"))["Repository"] == "small"
    assert pyrun("images", "-f", "lable=x").rc == 125


def test_tag_and_rmi(pyrun: Pyrun, small: str) -> None:
    """A name is taken off; the image goes with the last one; one that is used stays."""
    pyrun.ok("tag", "small:1", "other/name:v2")
    assert pyrun.ok("images", "-q", "--no-trunc", "other/name") == small
    assert pyrun.ok("rmi", "other/name:v2") == "Untagged: other/name:v2"
    pyrun.ok("create", "--name", "web", "small:1")
    refused = pyrun("rmi", "small:1")
    assert refused.rc == 1
    assert "web" in refused.err
    pyrun.ok("rm", "web")
    gone = pyrun.ok("rmi", "small:1").splitlines()
    assert gone[:2] == ["Untagged: small:1", f"Deleted: {small}"]
    done = pyrun("rmi", "small:1")
    assert done.rc == 1
    assert "pyrun: no such image 'small:1'" in done.err
    assert pyrun("rmi", "-f", "small:1").rc == 0


def test_history_and_inspect(pyrun: Pyrun, small: str) -> None:
    """What import said is there, in docker's fields."""
    assert "made by a test" in pyrun.ok("history", "small:1")
    assert pyrun.ok("history", "-q", "--no-trunc", "small:1").splitlines()[0] == small
    found = json.loads(pyrun.ok("image", "inspect", "small:1"))[0]
    assert found["Id"] == small
    assert found["RepoTags"] == ["small:1"]
    assert found["Config"]["Cmd"] == ["/bin/x"]
    assert pyrun.ok("inspect", "-f", "{{.Config.Labels.team}} {{.Config.Labels.none}}", "small:1") == "a <no value>"
    assert pyrun.ok("inspect", "-f", "{{json .Config.ExposedPorts}}", "small:1") == '{"80/tcp":{}}'


def test_save_and_load(pyrun: Pyrun, small: str, tmp_path: Path) -> None:
    """An archive brings back the same image, from a file and from stdin; a damaged one is refused and adds nothing."""
    file = tmp_path / "saved.tar"
    pyrun.ok("save", "-o", str(file), "small:1")
    pyrun.ok("rmi", "small:1")
    assert pyrun.ok("load", "-i", str(file)) == "Loaded image: small:1"
    assert pyrun.ok("images", "-q", "--no-trunc", "small:1") == small
    pyrun.ok("rmi", "small:1")
    with open(file, "rb") as stream:
        process = pyrun.popen("load")
        out, _ = process.communicate(stream.read(), timeout=60)
    assert out == b"Loaded image: small:1\n"
    pyrun.ok("rmi", "small:1")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    done = pyrun("load", "-i", str(file))
    assert done.rc == 1
    assert done.err.startswith("pyrun: ")
    assert pyrun.ok("images", "-q", "small") == ""
    assert pyrun("load", "-i", str(tmp_path / "missing")).rc == 1
    assert pyrun("save", "-o", str(tmp_path / "nosuch.tar"), "nosuch").rc == 1
    assert not (tmp_path / "nosuch.tar").exists()


def test_prune(pyrun: Pyrun, small: str, tmp_path: Path) -> None:
    """Images without a name go; named ones only with -a, and then only those without a container."""
    other = pyrun.ok("import", "-c", "LABEL team=a", rootfs(tmp_path / "other.tar", "y"), "small:1")
    assert pyrun.ok("images", "-q", "--no-trunc", "-f", "dangling=true") == small
    assert small in pyrun.ok("image", "prune", "-f")
    assert pyrun.ok("images", "-q", "-f", "dangling=true") == ""
    assert pyrun.ok("images", "-q", "--no-trunc", "small:1") == other
