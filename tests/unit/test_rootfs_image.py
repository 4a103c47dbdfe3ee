# SPDX-License-Identifier: Apache-2.0
"""Image configs and manifests that others wrote; names in the index."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tars
from pyrun.rootfs import image as images
from pyrun.rootfs import layout, naming
from pyrun.runtime.errors import PyrunError, SpecError

LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": tars.sha256(b"l"), "size": 1}
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": tars.sha256(b"c"), "size": 1}
MANIFEST = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}
DOCUMENT = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [tars.sha256(b"l")]}}


def parse(document: dict[str, Any], manifest: dict[str, Any] | None = None) -> images.Image:
    return images.parse(tars.sha256(b"m"), manifest or MANIFEST, document)


def test_all_that_a_container_needs_is_read() -> None:
    """Every field of the config object, in its Python form."""
    runtime = {
        "Env": ["A=1"], "Cmd": ["x"], "Entrypoint": ["/e"], "WorkingDir": "/w", "User": "1:2",
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "Labels": {"k": "v"}, "StopSignal": "INT",
        "Healthcheck": {"Test": ["CMD", "true"]}, "Shell": ["/s"], "OnBuild": ["RUN y"],
    }  # fmt: skip
    found = parse({**DOCUMENT, "config": runtime}).config
    assert found == images.ImageConfig(
        ("A=1",), ("x",), ("/e",), "/w", "1:2", ("80/tcp",), ("/v",), {"k": "v"}, "INT",
        {"Test": ["CMD", "true"]}, ("/s",), ("RUN y",),
    )  # fmt: skip


def test_null_and_missing_fields_are_empty() -> None:
    """docker writes null for what is not set; old ones write a bare string for Cmd."""
    runtime = {"Env": None, "Cmd": "run me", "Labels": None, "Volumes": None, "Healthcheck": None}
    assert parse({**DOCUMENT, "config": runtime}).config == images.ImageConfig(cmd=("run me",))
    assert parse({**DOCUMENT, "config": None}).config == images.ImageConfig()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"config": {"Env": ["A=1", 2]}}, "config.Env[1]"),
        ({"config": {"Env": ["A=\0"]}}, "config.Env[0]"),
        ({"config": {"Labels": {"a": 1}}}, "config.Labels.a"),
        ({"config": {"Volumes": ["/v"]}}, "config.Volumes"),
        ({"config": {"User": 0}}, "config.User"),
        ({"config": []}, "config"),
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"diff_ids": ["sha256:short"]}}, "rootfs.diff_ids[0]"),
        ({"rootfs": {"diff_ids": []}}, "rootfs.diff_ids"),
        ({"history": {}}, "history"),
        ({"created": 5}, "created"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(change: dict[str, Any], where: str) -> None:
    """A config is data that somebody else wrote: the error says where it is wrong."""
    with pytest.raises(SpecError) as caught:
        parse({**DOCUMENT, **change})
    assert caught.value.what == f"image config: {where}"


@pytest.mark.parametrize(
    "manifest",
    [
        {**MANIFEST, "mediaType": "application/vnd.oci.image.index.v1+json"},
        {**MANIFEST, "manifests": []},
        {**MANIFEST, "fsLayers": []},
        {**MANIFEST, "config": {**CONFIG, "mediaType": "application/vnd.oci.empty.v1+json"}},
        {**MANIFEST, "config": {**CONFIG, "digest": "sha256:../../../etc/passwd"}},
        {**MANIFEST, "layers": [{**LAYER, "mediaType": "text/plain"}]},
        {**MANIFEST, "layers": [{**LAYER, "size": -1}]},
        {**MANIFEST, "layers": [{**LAYER, "size": True}]},
        [],
    ],
)
def test_what_is_no_image_manifest_is_refused(manifest: Any) -> None:
    """CVE-2021-41190: an index or artifact must not be read as a manifest; a digest must not be a path."""
    with pytest.raises(SpecError):
        images.parse(tars.sha256(b"m"), manifest, DOCUMENT)


def test_chain_ids() -> None:
    """OCI image spec: the first is the diff-id itself, then sha256("chain diff")."""
    first, second = tars.sha256(b"1"), tars.sha256(b"2")
    assert images.chain_ids((first, second)) == (first, tars.sha256(f"{first} {second}".encode()))


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": NaN}', b"[" * 100_000, b"\xff"])
def test_damaged_json_is_an_error_for_people(text: bytes) -> None:
    """Nesting that exhausts Python's stack included."""
    with pytest.raises(PyrunError):
        layout.parse_json(text, "test")


def names(descriptors: list[dict[str, Any]]) -> list[tuple[str, str]]:
    key = "org.opencontainers.image.ref.name"
    return [(item["digest"], (item.get("annotations") or {}).get(key, "")) for item in descriptors]


def test_a_name_moves_and_the_old_image_stays_without_one() -> None:
    """docker's <none>: an image that loses its last name to another is still there."""
    one = {"mediaType": "m", "digest": "1", "size": 1}
    two = {"mediaType": "m", "digest": "2", "size": 1}
    index = naming.renamed([], "a", one)
    index = naming.renamed(index, "b", one)
    assert names(index) == [("1", "a"), ("1", "b")]
    index = naming.renamed(index, "a", two)
    assert names(index) == [("1", "b"), ("2", "a")]
    index = naming.renamed(index, "b", two)
    assert names(index) == [("2", "a"), ("1", ""), ("2", "b")]
    index = naming.renamed(index, "c", one)
    assert names(index) == [("2", "a"), ("2", "b"), ("1", "c")]
    assert json.loads(json.dumps(index)) == index
