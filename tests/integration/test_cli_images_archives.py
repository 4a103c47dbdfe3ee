# SPDX-License-Identifier: Apache-2.0
"""save, load and import: every form, from files, directories, pipes and URLs; and what is said when it fails."""

from __future__ import annotations

import bz2
import functools
import gzip
import http.server
import json
import lzma
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli import Pyrun

pytestmark = requires(root=True)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zstd": zstandard.compress,
}  # fmt: skip
FORMS = ("docker-archive", "oci-archive", "oci-dir", "docker-dir")


@pytest.fixture
def two(pyrun: Pyrun, base_image: str) -> Iterator[tuple[str, str]]:
    """The ids of two:1 and two:2, which share a layer."""
    ids = []
    for number in (1, 2):
        script = f"echo {number} >/number"
        pyrun.ok("run", "--name", "maker", "--network", "none", base_image, "sh", "-c", script)
        ids.append(pyrun.ok("commit", "-c", 'CMD ["cat", "/number"]', "maker", f"two:{number}"))
        pyrun.ok("rm", "maker")
    yield ids[0], ids[1]
    pyrun.ok("rmi", "-f", "two:1", "two:2")
    pyrun.ok("image", "prune", "-f")


def run(pyrun: Pyrun, image: str) -> str:
    return pyrun.ok("run", "--rm", "--network", "none", image)


def forget(pyrun: Pyrun) -> None:
    pyrun.ok("rmi", "-f", "two:1", "two:2")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_comes_back_as_the_same_image(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path, form: str) -> None:
    """Saved, removed, loaded: the same id; a name where the form can hold one."""
    pyrun.ok("save", "--format", form, "-o", str(tmp_path / "image"), "two:1")
    forget(pyrun)
    loaded = pyrun.ok("load", "-i", str(tmp_path / "image"))
    assert loaded == (f"Loaded image ID: {two[0]}" if form == "docker-dir" else "Loaded image: two:1")
    assert run(pyrun, two[0]) == "1"
    if form == "docker-dir":
        pyrun.ok("tag", two[0], "two:1")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_several_images_are_saved_together(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path, form: str) -> None:
    """What they share is in it once."""
    path = tmp_path / "image"
    pyrun.ok("save", "--format", form, "-o", str(path), "two:1", "two:2", two[0][7:19])
    if path.is_dir():
        names = [f"{top}/{name}" for top, _, files in os.walk(path) for name in files]
    else:
        with tarfile.open(path) as archive:
            names = archive.getnames()
    assert sum("blobs/sha256/" in name for name in names) == 2 + 2 + 3  # manifests, configs, layers
    forget(pyrun)
    assert pyrun.ok("load", "-i", str(path)).splitlines() == ["Loaded image: two:1", "Loaded image: two:2"]
    assert [run(pyrun, name) for name in ("two:1", "two:2")] == ["1", "2"]


def test_an_archive_tells_first_what_is_in_it(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path) -> None:
    """So that a reader of a pipe knows where each layer belongs when it comes."""
    pyrun.ok("save", "-o", str(tmp_path / "image"), "two:1")
    with tarfile.open(tmp_path / "image") as archive:
        names = archive.getnames()
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    layers = json.loads(pyrun.ok("image", "inspect", "two:1"))[0]["RootFS"]["Layers"]
    assert len(names) == 3 + 2 + 2 + len(layers)


def test_save_to_a_pipe_and_load_from_it(pyrun: Pyrun, two: tuple[str, str]) -> None:
    """-o - and no -o are standard output."""
    for words in (("save", "two:2"), ("save", "-o", "-", "two:2")):
        archive = subprocess.run([pyrun.command, *words], env=pyrun.environ, capture_output=True, check=True).stdout
        pyrun.ok("rmi", "two:2")
        done = subprocess.run(
            [pyrun.command, "load"], env=pyrun.environ, input=archive, capture_output=True, check=True
        )
        assert done.stdout == b"Loaded image: two:2\n"
    assert run(pyrun, "two:2") == "2"


def test_saving_twice_gives_the_same_bytes(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path) -> None:
    """No time and no owner is in it."""
    for name in ("a", "b"):
        pyrun.ok("save", "-o", str(tmp_path / name), "two:1", "two:2")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_save_that_fails_leaves_nothing(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path) -> None:
    """No file, no directory; what was there is untouched."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "precious").write_text("x")
    cases = (
        (("-o", "new", "two:1", "nosuch"), "no such image 'nosuch'"),
        (("--format", "oci-dir", "-o", "there", "two:1"), "there is something already"),
        (("--format", "docker-dir", "-o", "new", "two:1", "two:2"), "it holds one image, not 2"),
        (("--format", "oci-dir", "two:1"), "a directory must have a name"),
        (("--format", "rar", "-o", "new", "two:1"), "it must be one of docker-archive"),
        (("-o", "no/such/place", "two:1"), "no such file or directory"),
        (("--platform", "linux/s390x", "-o", "new", "two:1"), "the image is for linux/"),
        (("--format", "oci-dir", "-o", "no/such/place", "two:1"), "no such file or directory"),
    )
    for words, why in cases:
        done = pyrun("save", *words, cwd=str(tmp_path))
        assert done.rc in (1, 125)
        assert why in done.err
        assert len(done.err.splitlines()) <= 2
    assert sorted(os.listdir(tmp_path)) == ["there"]
    assert os.listdir(tmp_path / "there") == ["precious"]


def test_save_for_the_platform_it_has(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path) -> None:
    """--platform is a check: there is one platform of an image here."""
    platform = pyrun.ok("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "two:1")
    pyrun.ok("save", "--platform", platform, "-o", str(tmp_path / "image"), "two:1")
    assert (tmp_path / "image").stat().st_size > 10000


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_archives_load(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path, compression: str) -> None:
    """As `docker save | gzip` makes them."""
    pyrun.ok("save", "-o", str(tmp_path / "image"), "two:1")
    (tmp_path / "packed").write_bytes(COMPRESS[compression]((tmp_path / "image").read_bytes()))
    pyrun.ok("rmi", "two:1")
    assert pyrun.ok("load", "-i", str(tmp_path / "packed")) == "Loaded image: two:1"
    assert run(pyrun, "two:1") == "1"


def test_what_is_wrong_with_an_archive_names_it(pyrun: Pyrun, two: tuple[str, str], tmp_path: Path) -> None:
    """Cut, no archive, nothing in it, something else, missing: one line with the file's name; nothing is added."""
    pyrun.ok("save", "-o", str(tmp_path / "image"), "two:1")
    whole = (tmp_path / "image").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("no archive\n" * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    with tarfile.open(tmp_path / "other", "w") as archive:
        archive.add(__file__, "file")
    before = pyrun.ok("images", "-q")
    for name, why in (
        ("cut", "truncated"),
        ("text", "no tar header"),
        ("empty", "it is empty"),
        ("directory", "neither a manifest.json nor an index.json"),
        ("other", "neither a manifest.json nor an index.json"),
    ):
        done = pyrun("load", "-i", str(tmp_path / name))
        assert (done.rc, done.out) == (1, "")
        assert done.err.startswith(f"pyrun: load {tmp_path}/{name}: ")
        assert why in done.err
    assert pyrun("load", "-i", str(tmp_path / "none")).err == f"pyrun: no such file '{tmp_path}/none'\n"
    piped = pyrun("load", stdin="x")
    assert piped.err.startswith("pyrun: load from stdin: ")
    assert pyrun.ok("images", "-q") == before
    assert os.listdir(f"{pyrun.paths.data}/images/ingest") == []


# import --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def root_tar(tmp_path: Path) -> str:
    (tmp_path / "hello").write_text("hello")
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(tmp_path / "hello", "hello")
    return str(tmp_path / "root.tar")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of tmp_path."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_import_from_a_url(pyrun: Pyrun, server: str, root_tar: str) -> None:
    """The history says where it came from, but not the password; a missing one is an error, and leaves nothing."""
    url = server.replace("//", "//user:secret@") + "/root.tar"
    identity = pyrun.ok("import", "-c", "ENV A=b", url, "imported:1")
    assert pyrun.ok("image", "inspect", "-f", "{{.Id}}", "imported:1") == identity
    assert pyrun.ok("history", "--format", "{{.Comment}}", "imported:1") == f"Imported from {server}/root.tar"
    missing = pyrun("import", f"{server}/nosuch.tar", "imported:2")
    assert missing.rc == 1
    assert "not found (404)" in missing.err
    assert pyrun("image", "inspect", "imported:2").rc == 1
    assert os.listdir(f"{pyrun.paths.data}/images/ingest") == []
    pyrun.ok("rmi", "imported:1")


def test_import_with_a_message_and_for_a_platform(pyrun: Pyrun, root_tar: str) -> None:
    """Both are in the image."""
    pyrun.ok("import", "-m", "why not", "--platform", "linux/arm/v7", root_tar, "imported:1")
    found = json.loads(pyrun.ok("image", "inspect", "imported:1"))[0]
    assert (found["Comment"], found["Architecture"], found["Variant"]) == ("why not", "arm", "v7")
    pyrun.ok("rmi", "imported:1")


def test_import_of_what_is_no_tar_names_it(pyrun: Pyrun, tmp_path: Path) -> None:
    """A directory, a text, nothing."""
    (tmp_path / "text").write_text("x" * 600)
    directory = pyrun("import", str(tmp_path), "imported:1")
    assert directory.err == (
        f"pyrun: import {tmp_path}: it is a directory\nhint: tar -C {tmp_path} -c . | pyrun import -\n"
    )
    assert pyrun("import", str(tmp_path / "text")).err.startswith(f"pyrun: import {tmp_path}/text: tar archive: ")
    assert pyrun("import", "-", stdin="x").err.startswith("pyrun: import from stdin: ")
    assert pyrun("import", str(tmp_path / "none")).err == f"pyrun: no such file '{tmp_path}/none'\n"
    bad = pyrun("import", "--platform", "no where", str(tmp_path / "text"))
    assert bad.rc == 125
