# SPDX-License-Identifier: Apache-2.0
"""Image archives whose JSON says anything at all: an image, or an error of one line and the store as it was.

Bounded by default; PYRUN_FUZZ=50 runs fifty times as many examples.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tars
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.paths import Paths
from requires import requires

pytestmark = requires(root=True)

TIMES = int(os.environ.get("PYRUN_FUZZ", "1"))
BASE = tars.tar(tars.member("etc/passwd", data=b"root"))
APP = tars.tar(tars.member("app", data=b"app"))

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from([
        [], {}, [[]], [None], {"a": 1}, "", "sha256:", "sha256:" + "0" * 64, "sha512:" + "0" * 128, "../../etc/passwd",
        "/etc/passwd", "sha256:../../../etc/passwd", "a" * 5000, "x\u0000y", "\ud800", "ü", -1, 0, 2**63, 1e999,
        "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v1+json",
    ]),
)  # fmt: skip


class Changed:
    """Replaces, removes or repeats what is at a few random places of a JSON document."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __call__(self, value: Any) -> Any:
        if self.draw(st.integers(0, 11)) == 0:
            return self.draw(ODD)
        if isinstance(value, dict):
            return {k: self(v) for k, v in value.items() if self.draw(st.integers(0, 24))}
        if isinstance(value, list):
            items = [self(item) for item in value]
            return items * self.draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
        return value


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def docker_archives(draw: Any) -> bytes:
    """manifest.json and config of `docker save`, changed."""
    changed = Changed(draw)
    config = dumped(changed(json.loads(tars.config([BASE, APP], Cmd=["x"], Env=["A=b"]))))
    manifest = [{"Config": "config.json", "RepoTags": ["fuzzed"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    return tars.tar(
        tars.member("0/layer.tar", data=BASE), tars.member("1/layer.tar", data=APP),
        tars.member("config.json", data=config), tars.member("manifest.json", data=dumped(changed(manifest))),
    )  # fmt: skip


@st.composite
def oci_archives(draw: Any) -> bytes:
    """Index, manifest and config of an OCI layout, changed; digests are made right again half of the time."""
    changed = Changed(draw)
    oci = tars.Oci()
    right = draw(st.booleans())
    config = dumped(changed(json.loads(tars.config([BASE, APP], Cmd=["x"]))))
    descriptor = oci.manifest([BASE, APP], config if right else None, gz=draw(st.booleans()))
    manifest = dumped(changed(json.loads(oci.blobs[descriptor["digest"]])))
    if right:
        descriptor = oci.blob(manifest, descriptor["mediaType"])
    else:
        oci.blobs[descriptor["digest"]] = manifest
    oci.name(descriptor, "fuzzed")
    files = oci.files()
    files["index.json"] = dumped(changed(json.loads(files["index.json"])))
    return tars.tar(*(tars.member(path, data=data) for path, data in files.items()))


@pytest.fixture(scope="module")
def stores() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="pyrun-test-", dir="/dev/shm")
    yield path
    shutil.rmtree(path)


def check(directory: str, archive: bytes) -> None:
    """Loads it into a store that has an image, and looks at what is there then."""
    base = tempfile.mkdtemp(dir=directory)
    try:
        store = ImageStore(Paths(f"{base}/data", f"{base}/run"))
        store.load(io.BytesIO(tars.docker_archive([BASE], ["there"])))
        there = store.resolve("there")
        try:
            loaded = store.load(io.BytesIO(archive))
        except PyrunError as error:
            text = str(error)
            assert "\n" not in text
        else:
            assert all(store.unpacked(store.resolve(name)) is not None for name in loaded)
        assert store.resolve("there") == there
        assert sorted(os.listdir(base)) == ["data"]
        for image in store.list():
            assert len(store.unpacked(image)) == len(image.layers)
        store.prune(all=True)
        assert store.list() == []
        assert os.listdir(f"{store.layout.path}/blobs/sha256") == []
        assert set(os.listdir(store.layers.path)) <= {"lock"}
    finally:
        shutil.rmtree(base)


@settings(max_examples=120 * TIMES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(archive=docker_archives())
def test_docker_archives_that_say_anything(stores: str, archive: bytes) -> None:
    """Wrong types, missing and repeated parts, paths that lead out."""
    check(stores, archive)


@settings(max_examples=120 * TIMES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(archive=oci_archives())
def test_oci_archives_that_say_anything(stores: str, archive: bytes) -> None:
    """The same for index, manifest and config, with right and wrong digests."""
    check(stores, archive)
