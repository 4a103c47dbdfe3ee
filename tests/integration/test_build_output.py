# SPDX-License-Identifier: Apache-2.0
"""What comes out of a build: names, files, archives that others load, the same bytes twice, caches to share."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import podman
import registries
from builds import Builds
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli import Pyrun

pytestmark = requires(root=True)
SMALL = "FROM busybox\nCOPY f /d/f\nRUN echo run > /ran; chmod 4755 /ran; mkfifo /fifo\nCMD cat /ran\n"


@pytest.fixture
def build(pyrun: Pyrun, base_image: str, tmp_path: Path) -> Builds:
    """Builds on the session's roots, where busybox:latest is."""
    made = Builds(pyrun, tmp_path)
    made.write({"f": "content"})
    return made


def test_names_ids_and_metadata(build: Builds, tmp_path: Path) -> None:
    """Several -t name one image; -q prints its id; --iidfile and --metadata-file say what was made."""
    metadata = tmp_path / "meta.json"
    made = build(SMALL, "-t", "named:1", "-t", "localhost:5000/other:x", "--metadata-file", str(metadata))
    listed = build.pyrun.ok("image", "inspect", "named:1", "--format", "{{.Id}} {{json .RepoTags}}")
    assert listed == f'{made.id} ["localhost:5000/other:x","named:1"]'
    found = json.loads(metadata.read_text())
    assert found["containerimage.config.digest"] == made.id
    assert found["containerimage.digest"] == build.manifest(made.id)
    assert found["image.name"] == "docker.io/library/named:1,localhost:5000/other:x"
    quiet = build.pyrun("build", "-q", str(build.context))
    assert (quiet.out, quiet.err) == (f"{made.id}\n", "")


def test_output_to_a_directory_and_a_tar(build: Builds, tmp_path: Path) -> None:
    """-o DIR writes files of the caller's, without setuid bits; type=tar everything, as it is."""
    out, tar = tmp_path / "out", tmp_path / "out.tar"
    out.mkdir()
    (out / "mine").write_text("stays")
    assert build.run(SMALL, "-o", str(out), "-o", f"type=tar,dest={tar}").rc == 0
    assert (out / "d/f").read_text() == "content"
    assert (out / "mine").read_text() == "stays"
    assert stat.S_IMODE((out / "ran").stat().st_mode) == 0o755
    assert not (out / "fifo").exists()
    with tarfile.open(tar) as archive:
        assert archive.getmember("ran").mode == 0o4755
        assert archive.getmember("fifo").isfifo()
    binary = subprocess.run(
        [build.pyrun.command, "build", "-o", "-", str(build.context)],
        env=build.pyrun.environ, capture_output=True, check=True,
    )  # fmt: skip
    assert binary.stdout == tar.read_bytes()
    assert b"#1 [internal]" in binary.stderr


def test_output_stays_inside_the_directory(build: Builds, tmp_path: Path) -> None:
    """A link in the destination that leads out is not followed: the files are made below the destination."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "d").symlink_to("/../../.." + str(outside))
    build.run("FROM scratch\nCOPY f /d/f\n", "-o", str(out))
    assert list(outside.iterdir()) == []


@requires(tools=("skopeo", "podman"))
def test_archives_that_others_load(build: Builds, tmp_path: Path) -> None:
    """type=oci and type=docker give archives that skopeo reads and podman loads and runs; the store gets no image."""
    build.pyrun.ok("image", "prune", "-f")
    before = build.pyrun.ok("images", "-aq")
    salted = f"FROM busybox\nCOPY f /f\nRUN echo {os.urandom(4).hex()} > /ran\nCMD cat /f\n"
    for kind in ("oci", "docker"):
        path = tmp_path / f"{kind}.tar"
        assert build.run(salted, "-t", "elsewhere:1", "-o", f"type={kind},dest={path}").rc == 0
        inspected = json.loads(registries.skopeo("inspect", "--config", f"{kind}-archive:{path}"))
        assert inspected["config"]["Cmd"] == ["/bin/sh", "-c", "cat /f"]
    assert build.pyrun.ok("images", "-aq") == before
    with podman.ready() as other:
        other.ok("load", "-i", str(tmp_path / "docker.tar"))
        assert other.ok("run", "--rm", "elsewhere:1") == "content"


def test_source_date_epoch_gives_the_same_image_everywhere(
    other_pyrun: Callable[[], Pyrun], busybox_tar: str, tmp_path: Path
) -> None:
    """Two roots, nothing shared, one SOURCE_DATE_EPOCH: the same manifest; layers on the disk have those times too."""
    digests, tops = [], []
    text = (
        "FROM scratch\nADD base.tar /\nRUN echo a > /a; mkdir /d; ln -s a /l\nWORKDIR /w\nCOPY f /f\nADD n.tar.gz /n\n"
        "COPY <<x /y\nheredoc\nx\nLABEL a=b\n"
    )
    for number in range(2):
        pyrun = other_pyrun()
        directory = tmp_path / str(number)
        directory.mkdir()
        build = Builds(pyrun, directory)
        build.write({"f": "content", "base.tar": Path(busybox_tar).read_bytes()})
        with tarfile.open(build.context / "n.tar.gz", "w:gz") as archive:
            archive.add(build.context / "f", "inside")
        said = ("--build-arg", "SOURCE_DATE_EPOCH=1234567890") if number else ()
        made = build(text, *said, env={} if number else {"SOURCE_DATE_EPOCH": "1234567890"})
        digests.append(build.manifest(made.id))
        assert made.document["created"] == "2009-02-13T23:31:30.000000000Z"
        assert {item["created"] for item in made.document["history"]} == {made.document["created"]}
        assert build(text, env={"SOURCE_DATE_EPOCH": "1234567890"}).ran == ()
        tops.append(build.sh(made.id, "stat -c %Y /a /w /f /n/inside"))
    assert digests[0] == digests[1]
    assert tops[0].split() == ["1234567890"] * 4


def test_cache_in_a_directory(other_pyrun: Callable[[], Pyrun], busybox_tar: str, tmp_path: Path) -> None:
    """--cache-to type=local, then --cache-from on a machine that has built nothing: every step is taken from there."""
    first = other_pyrun()
    first.ok("import", busybox_tar, "busybox:latest")
    build = Builds(first, tmp_path)
    text = "FROM busybox AS a\nRUN echo a > /a\nFROM busybox\nCOPY --from=a /a /a\nCOPY f /f\nRUN echo b > /b\n"
    made = build(text, "--cache-to", f"type=local,dest={tmp_path / 'cache'},mode=max", files={"f": "f"})
    first.ok("save", "-o", str(tmp_path / "base.tar"), "busybox:latest")
    other = other_pyrun()
    other.ok("load", "-i", str(tmp_path / "base.tar"))
    again = Builds(other, tmp_path)(text, "--cache-from", f"type=local,src={tmp_path / 'cache'}")
    assert again.ran == ()
    assert again.id == made.id
    assert again.config == made.config
    assert Builds(other, tmp_path).sh(again.id, "cat /a /b") == "a\nb"
    assert Builds(other, tmp_path)(text).ran == ()


def test_damaged_cache_is_left_out_or_refused(build: Builds, tmp_path: Path) -> None:
    """A place without a cache is a warning; a blob of it that was changed ends the build."""
    salt = os.urandom(4).hex()
    text = f"FROM busybox\nRUN echo {salt} > /x\n"
    cache = tmp_path / "cache"
    build(text, "--cache-to", f"type=local,dest={cache}")
    assert "no such directory" in build(text, "--cache-from", f"type=local,src={tmp_path / 'nothing'}").err
    build.pyrun.ok("builder", "prune", "-af")
    build.pyrun.ok("image", "prune", "-f")
    index = json.loads((cache / "index.json").read_text())
    manifest = json.loads((cache / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    layer = cache / "blobs/sha256" / manifest["layers"][-1]["digest"][7:]
    layer.write_bytes(layer.read_bytes()[:-1] + b"!")
    result = build.run(text, "--cache-from", f"type=local,src={cache}")
    assert result.rc == 1
    assert "its content is" in result.err
    assert build(text).ran == (f"RUN echo {salt} > /x",)


@requires(tools=registries.TOOLS)
def test_cache_in_a_registry_and_inline(other_pyrun: Callable[[], Pyrun], busybox_tar: str, tmp_path: Path) -> None:
    """The same through a real registry: a cache of its own, and one inside a pushed image; --push sends the image."""
    first = other_pyrun()
    first.ok("import", busybox_tar, "busybox:latest")
    first.ok("save", "-o", str(tmp_path / "base.tar"), "busybox:latest")
    text = "FROM busybox\nCOPY f /f\nRUN echo b > /b\n"
    with registries.DockerRegistry(tmp_path / "registry") as registry:
        build = Builds(first, tmp_path)
        made = build(
            text, "--cache-to", f"type=registry,ref={registry.host}/app:cache", "--cache-to", "type=inline",
            "-t", f"{registry.host}/app:1", "--push", files={"f": "f"},
        )  # fmt: skip
        for place in ("app:cache", "app:1"):
            other = other_pyrun()
            other.ok("load", "-i", str(tmp_path / "base.tar"))
            again = Builds(other, tmp_path)(text, "--cache-from", f"type=registry,ref={registry.host}/{place}")
            assert again.ran == (), place
            assert again.document["rootfs"] == made.document["rootfs"]
        third = other_pyrun()
        third.ok("pull", "-q", f"{registry.host}/app:1")
        assert third.ok("run", "--rm", "--network", "none", f"{registry.host}/app:1", "cat", "/b") == "b"


@requires(tools=registries.TOOLS)
def test_base_image_is_pulled_when_it_is_missing(
    other_pyrun: Callable[[], Pyrun], busybox_tar: str, tmp_path: Path
) -> None:
    """FROM and COPY --from of a registry's images; --pull takes a newer one; without it the one that is here stays."""
    first = other_pyrun()
    first.ok("import", busybox_tar, "busybox:latest")
    with registries.DockerRegistry(tmp_path / "registry") as registry:
        name = f"{registry.host}/base:1"
        source = Builds(first, tmp_path)
        source("FROM busybox\nRUN echo 1 > /version\n", "-t", name, "--push")
        other = Builds(other_pyrun(), tmp_path)
        text = f"FROM {name}\nRUN cat /version > /seen\n"
        assert other.sh(other(text).id, "cat /seen") == "1"
        source("FROM busybox\nRUN echo 2 > /version\n", "-t", name, "--push")
        assert other.sh(other(text).id, "cat /seen") == "1"
        assert other.sh(other(text, "--pull").id, "cat /seen") == "2"


def test_digest_helpers_agree() -> None:
    """The manifest that is looked for before it is made is the one that the store would write."""
    from pyrun.runtime.engine.build.output import digest_of, encoded

    value = {"b": [1, "ü"], "a": {"z": None}}
    assert encoded(value) == '{"a":{"z":null},"b":[1,"ü"]}'.encode()
    assert digest_of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
