# SPDX-License-Identifier: Apache-2.0
"""Pushing to the real docker-registry: what arrives, under which digest, what is not sent twice."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tars
from pyrun.rootfs import media, refs
from pyrun.rootfs.registry.progress import Progress
from pyrun.rootfs.registry.pull import pull
from pyrun.rootfs.registry.push import Pushed, push
from pyrun.rootfs.registry.sockets import Patience
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.paths import Paths
from registries import TOOLS, DockerRegistry, configured, skopeo
from requires import requires

pytestmark = requires(root=True, tools=TOOLS)

BASE = tars.tar(tars.member("etc", "dir"), tars.member("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n"))
APP = tars.tar(tars.member("app/main.py", data=b"print()" * 1000))
QUICK = Patience(attempts=3, first_delay_s=0.05, read_s=5.0, connect_s=5.0)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path / "store")


def new_store(path: Path) -> ImageStore:
    return ImageStore(Paths(str(path / "data"), str(path / "run")))


def load(store: ImageStore, name: str, layers: list[bytes], *, gz: bool = True) -> None:
    """An image in the store: gzip layers, or plain ones as an old docker archive has them."""
    if not gz:
        store.load(io.BytesIO(tars.docker_archive(layers, [name])))
        return
    oci = tars.Oci()
    oci.name(oci.manifest(layers, gz=True), str(refs.normalise(name)))
    store.load(io.BytesIO(oci.archive()))


def send(store: ImageStore, source: str, registry: DockerRegistry, name: str, **options: Any) -> Pushed:
    options.setdefault("registries", configured(registry.host))
    options.setdefault("patience", QUICK)
    return push(store, source, refs.parse(f"{registry.host}/{name}"), **options)


def raw(registry: DockerRegistry, name: str) -> bytes:
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{name}").encode()


class Told(Progress):
    """Remembers what each blob ended with."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def done(self, key: str, text: str) -> None:
        self.ends.append(text)


def test_manifest_and_blobs_arrive_as_they_are(store: ImageStore, registry: DockerRegistry) -> None:
    """The manifest is kept byte for byte, so its digest is the store's; the store remembers where it went."""
    load(store, "mine:1", [BASE, APP])
    image = store.resolve("mine:1")
    pushed = send(store, "mine:1", registry, "mine:1")
    assert pushed.digest == image.digest == tars.sha256(raw(registry, "mine:1"))
    assert pushed.size == len(raw(registry, "mine:1"))
    for layer in image.layers:
        assert registry.blob(layer.digest).read_bytes() == Path(store.layout.blob(layer.digest)).read_bytes()
    after = store.resolve("mine:1")
    assert after.repo_digests == (f"{registry.host}/mine@{pushed.digest}",)
    assert store.resolve(f"{registry.host}/mine@{pushed.digest}").id == image.id
    assert os.listdir(f"{store.layout.path}/ingest") == []


def test_a_docker_manifest_stays_one(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """What came as docker's schema 2 goes as that, under the same digest."""
    load(store, "first:1", [BASE, APP])
    send(store, "first:1", registry, "first:1")
    source, target = f"docker://{registry.host}/first:1", f"docker://{registry.host}/docker:1"
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2", source, target)
    assert json.loads(raw(registry, "docker:1"))["mediaType"] == media.DOCKER_MANIFEST
    other = new_store(tmp_path / "other")
    reference = refs.parse(f"{registry.host}/docker:1")
    pulled = pull(other, reference, registries=configured(registry.host), patience=QUICK)
    pushed = send(other, pulled.image.id, registry, "docker:2")
    assert pushed.digest == pulled.digest
    assert raw(registry, "docker:2") == raw(registry, "docker:1")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_plain_layers_are_compressed_on_the_way(
    store: ImageStore, registry: DockerRegistry, tmp_path: Path, compression: str
) -> None:
    """The registry gets compressed layers under another digest; the image that comes back has the same id and files."""
    load(store, "plain:1", [BASE, APP], gz=False)
    name = f"plain-{compression}:1"
    pushed = send(store, "plain:1", registry, name, compression=compression)
    manifest = json.loads(raw(registry, name))
    assert tars.sha256(raw(registry, name)) == pushed.digest
    assert [layer["mediaType"] for layer in manifest["layers"]] == [media.LAYER_OF[compression]] * 2
    assert all(layer["size"] == registry.blob(layer["digest"]).stat().st_size for layer in manifest["layers"])
    image = store.resolve("plain:1")
    assert image.repo_digests == (f"{registry.host}/{name.partition(':')[0]}@{pushed.digest}",)
    other = new_store(tmp_path / "other")
    reference = refs.parse(f"{registry.host}/{name}")
    pulled = pull(other, reference, registries=configured(registry.host), patience=QUICK)
    assert (pulled.image.id, pulled.digest) == (image.id, pushed.digest)
    assert pulled.image.diff_ids == image.diff_ids


def test_nothing_is_sent_twice(store: ImageStore, registry: DockerRegistry) -> None:
    """A second push finds everything there; one into another repository mounts the layers from the first."""
    load(store, "twice:1", [BASE, APP, tars.tar(tars.member("twice"))])
    first = Told()
    send(store, "twice:1", registry, "twice/a:1", progress=first)
    assert sorted(first.ends) == ["Pushed"] * 3
    again = Told()
    send(store, "twice:1", registry, "twice/a:2", progress=again)
    assert again.ends == ["Layer already exists"] * 3
    mounted = Told()
    send(store, "twice:1", registry, "twice/b:1", progress=mounted)
    assert mounted.ends == ["Mounted from twice/a"] * 3
    assert len(registry.requests("PUT", "/twice/b/blobs/uploads/")) == 1  # the config
    assert raw(registry, "twice/b:1") == raw(registry, "twice/a:1")


def test_plain_layers_are_not_sent_twice_either(store: ImageStore, registry: DockerRegistry) -> None:
    """What they became is remembered, under every name of the image: found or mounted, and the digest is the same."""
    load(store, "heavy:1", [BASE, APP, tars.tar(tars.member("heavy"))], gz=False)
    first = send(store, "heavy:1", registry, "heavy/a:1")
    store.tag("heavy:1", "heavy:2")
    again = Told()
    assert send(store, "heavy:2", registry, "heavy/a:2", progress=again) == first
    assert again.ends == ["Layer already exists"] * 3
    mounted = Told()
    assert send(store, "heavy:2", registry, "heavy/b:1", progress=mounted) == first
    assert mounted.ends == ["Mounted from heavy/a"] * 3
    other = Told()
    send(store, "heavy:2", registry, "heavy/a:3", progress=other, compression="zstd")
    assert other.ends == ["Pushed"] * 3


def test_large_layers(store: ImageStore, registry: DockerRegistry) -> None:
    """Many megabytes in one request, progress told on the way."""
    data = random.Random(2).randbytes(20 << 20)
    load(store, "large:1", [tars.tar(tars.member("big", data=data))])
    seen: list[int] = []

    class Watching(Progress):
        def advance(self, key: str, current: int) -> None:
            if layer.digest[7:].startswith(key):
                seen.append(current)

    layer = store.resolve("large:1").layers[0]
    send(store, "large:1", registry, "large:1", progress=Watching())
    assert seen == sorted(seen)
    assert seen[-1] == layer.size
    assert registry.blob(layer.digest).stat().st_size == layer.size


def test_a_registry_that_restarts_during_a_push(store: ImageStore, tmp_path: Path) -> None:
    """The upload is taken up again, and what arrives is whole."""
    data = random.Random(3).randbytes(24 << 20)
    load(store, "restart:1", [tars.tar(tars.member("big", data=data))])
    registry = DockerRegistry(tmp_path / "registry")
    with registry:

        class Killing(Progress):
            count = 0

            def advance(self, key: str, current: int) -> None:
                self.count += 1
                if self.count == 8:
                    registry.__exit__(None, None, None)
                    registry.__enter__()

        patience = QUICK.replace(attempts=5)
        pushed = send(store, "restart:1", registry, "restart:1", progress=Killing(), patience=patience)
        assert tars.sha256(raw(registry, "restart:1")) == pushed.digest
        layer = store.resolve("restart:1").layers[0]
        assert tars.sha256(registry.blob(layer.digest).read_bytes()) == layer.digest


def test_podman_pulls_what_was_pushed(store: ImageStore, registry: DockerRegistry) -> None:
    """podman gets the image, with the same id, and reads a file of it."""
    load(store, "forpodman:1", [BASE, APP])
    send(store, "forpodman:1", registry, "forpodman:1")
    short = tempfile.mkdtemp(prefix="pyrun-")  # podman wants a short one
    podman = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
    full = f"{registry.host}/forpodman:1"
    try:
        got = subprocess.run(
            [*podman, "pull", "--quiet", "--tls-verify=false", full], capture_output=True, text=True, timeout=120
        )
        assert got.returncode == 0, got.stderr
        assert f"sha256:{got.stdout.strip()}" == store.resolve("forpodman:1").id
    finally:
        shutil.rmtree(short, ignore_errors=True)


def test_what_cannot_be_pushed(store: ImageStore, registry: DockerRegistry) -> None:
    """No such image, a digest as target, an unknown compression, a registry that is read-only: each its words."""
    load(store, "there:1", [BASE])
    with pytest.raises(NotFound, match="no such image 'absent'"):
        send(store, "absent", registry, "x:1")
    with pytest.raises(UsageError, match="a digest cannot be pushed to"):
        send(store, "there:1", registry, f"x@sha256:{'0' * 64}")
    with pytest.raises(UsageError, match="compression 'xz': not one of gzip, zstd"):
        send(store, "there:1", registry, "x:1", compression="xz")
    with pytest.raises(PyrunError, match="registry localhost:1: connection refused"):
        push(store, "there:1", refs.parse("localhost:1/x"), registries=configured("localhost:1"), patience=QUICK)
    assert store.resolve("there:1").repo_digests == ()


def test_a_read_only_registry(store: ImageStore, registry: DockerRegistry, tmp_path: Path) -> None:
    """A pull-through cache takes no pushes, and the message says so."""
    load(store, "there:1", [BASE])
    with (
        DockerRegistry(tmp_path / "cache", mirror_of=f"http://{registry.host}") as mirror,
        pytest.raises(PyrunError, match=r"it does not allow that \(405\)"),
    ):
        send(store, "there:1", mirror, "x:1")
