# SPDX-License-Identifier: Apache-2.0
"""manifest create, annotate, inspect, push, rm: against docker-registry, and docker beside us."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from registries import DockerRegistry
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True, tools=("docker-registry",))

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of a plain docker-registry."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as started:
        yield started.host


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where lists in the making are kept: docker's directory."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def call(method: str, url: str, data: bytes = b"", **headers: str) -> Any:
    request = urllib.request.Request(url, data or None, headers, method=method)
    return urllib.request.urlopen(request)


def upload(host: str, repository: str, data: bytes) -> dict[str, Any]:
    """A blob, as the distribution spec has it; its digest and size."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    location = call("POST", f"http://{host}/v2/{repository}/blobs/uploads/").headers["Location"]
    kind = {"Content-Type": "application/octet-stream"}
    call("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", data, **kind)
    return {"digest": digest, "size": len(data)}


def push_image(host: str, name: str, **config: str) -> str:
    """An image with one empty layer, made by hand: its config says what it is for, or nothing. Gives its name."""
    repository, _, tag = name.partition(":")
    layer = bytes(10240)
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    made = json.dumps({**config, "config": {"Labels": {"name": name}}, "rootfs": rootfs}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **upload(host, repository, made)},
        "layers": [{"mediaType": LAYER, **upload(host, repository, layer)}],
    }
    url = f"http://{host}/v2/{repository}/manifests/{tag}"
    call("PUT", url, json.dumps(manifest).encode(), **{"Content-Type": MANIFEST})
    return f"{host}/{name}"


@pytest.fixture
def images(registry: str) -> list[str]:
    """The names of two images, in repositories of their own."""
    return [
        push_image(registry, "amd/app:1", os="linux", architecture="amd64"),
        push_image(registry, "arm/app:1", os="linux", architecture="arm64"),
    ]


@pytest.fixture
def target(registry: str, pyrun: Pyrun) -> Iterator[str]:
    """The name of a list; what was pulled under it goes at the end."""
    name = f"{registry}/list:{os.urandom(4).hex()}"
    yield name
    pyrun("rmi", "-f", name)


def test_one_name_for_two_platforms(pyrun: Pyrun, images: list[str], target: str, home: Path) -> None:
    """Made, pushed with its images into a repository that had none of them, and pulled for either platform."""
    assert pyrun.ok("manifest", "create", target, *images) == f"Created manifest list {target}"
    index = json.loads(pyrun.ok("manifest", "inspect", target))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [item["platform"]["architecture"] for item in index["manifests"]] == ["amd64", "arm64"]
    lines = pyrun.ok("manifest", "push", "--purge", target).splitlines()
    for line, item in zip(lines, index["manifests"], strict=False):
        digest = item["digest"]
        assert line == f"Pushed ref {target.rpartition(':')[0]}@{digest} with digest: {digest}"
    assert not list((home / "manifests").iterdir())
    assert json.loads(pyrun.ok("manifest", "inspect", target)) == index  # now the registry's
    for platform in ("linux/amd64", "linux/arm64"):
        out = pyrun.ok("pull", "--platform", platform, target)
        assert f"Digest: {lines[-1]}" in out
        assert pyrun.ok("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", target) == platform


def test_annotate(pyrun: Pyrun, registry: str, images: list[str], target: str) -> None:
    """What an image does not say of itself has to be said, before the list can be pushed."""
    silent = push_image(registry, "silent:1")
    pyrun.ok("manifest", "create", target, images[0], silent)
    refused = pyrun("manifest", "push", target)
    assert refused.err.splitlines()[0] == f"pyrun: image {silent}: its platform is not known"
    pyrun.ok(
        "manifest", "annotate", "--os", "linux", "--arch", "arm", "--variant", "v7", "--os-features", "a,b",
        "--os-version", "6.1", target, silent,
    )  # fmt: skip
    pyrun.ok("manifest", "push", target)
    found = json.loads(pyrun.ok("manifest", "inspect", target))["manifests"]
    expected = {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["a", "b"], "os.version": "6.1"}
    assert expected in [item["platform"] for item in found]


def test_amend(pyrun: Pyrun, images: list[str], target: str) -> None:
    """A list that is there is not touched, unless --amend says so; then the same image is in it once."""
    pyrun.ok("manifest", "create", target, images[0])
    again = pyrun("manifest", "create", target, images[1])
    assert (again.rc, again.err.splitlines()[0]) == (1, f"pyrun: manifest list '{target}': there is one")
    pyrun.ok("manifest", "create", "--amend", target, *images)
    assert len(json.loads(pyrun.ok("manifest", "inspect", target))["manifests"]) == 2


def test_rm(pyrun: Pyrun, images: list[str], target: str) -> None:
    """The list in the making goes, the images in the registry stay."""
    pyrun.ok("manifest", "create", target, *images)
    pyrun.ok("manifest", "rm", target)
    gone = pyrun("manifest", "rm", target)
    assert (gone.rc, gone.err.splitlines()[0]) == (1, f"pyrun: no such manifest list '{target}'")
    assert json.loads(pyrun.ok("manifest", "inspect", images[0]))["layers"]


@pytest.mark.parametrize("verb", ["push", "annotate"])
def test_list_that_is_not_there(pyrun: Pyrun, images: list[str], target: str, verb: str) -> None:
    """The hint says how one is made."""
    done = pyrun("manifest", verb, target, *(images[:1] if verb == "annotate" else ()))
    assert (done.rc, done.err.splitlines()) == (
        1, [f"pyrun: no such manifest list '{target}'", "hint: pyrun manifest create makes one"],
    )  # fmt: skip


def test_what_cannot_be_in_a_list(pyrun: Pyrun, registry: str, images: list[str], target: str, home: Path) -> None:
    """Another list, an image that is not there, a registry that is not: nothing is written then."""
    pyrun.ok("manifest", "create", target, *images)
    pyrun.ok("manifest", "push", "-p", target)
    for wrong, words in (
        (target, f"'{target}' is a manifest list itself"),
        (f"{registry}/none:1", f"no such image '{registry}/none:1'"),
        ("localhost:9/x", "connection refused"),
    ):
        done = pyrun("manifest", "create", f"{registry}/other", images[0], wrong)
        assert done.rc in (1, 125)
        assert words in done.err.splitlines()[0]
        assert not list((home / "manifests").iterdir())


def test_damaged_list(pyrun: Pyrun, images: list[str], target: str, home: Path) -> None:
    """The file is named; a manifest that was changed by hand is not pushed under its old digest."""
    pyrun.ok("manifest", "create", target, images[0])
    (file,) = (home / "manifests").glob("*/*")
    value = json.loads(file.read_text())
    value["Raw"] = "e30="
    for content, words in (("{", "it is no JSON"), ("{}", "it is no entry"), (json.dumps(value), "another digest")):
        file.write_text(content)
        done = pyrun("manifest", "push", target)
        assert done.rc == 1
        assert str(file) in done.err
        assert words in done.err


@requires(tools=("docker",))
def test_login_is_shared_with_docker(pyrun: Pyrun, home: Path, registry: str) -> None:
    """What `pyrun login` keeps is what docker's own client reads, and logout takes it away from both."""
    pyrun.ok("login", "-u", "me", "--password-stdin", registry, stdin="secret\n")
    env = {**os.environ, "DOCKER_CONFIG": str(home)}
    shown = subprocess.run(["docker", "logout", registry], capture_output=True, text=True, env=env)
    assert shown.stdout == f"Removing login credentials for {registry}\n"
    assert pyrun.ok("logout", registry) == f"Not logged in to {registry}"
