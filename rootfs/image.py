# SPDX-License-Identifier: Apache-2.0
"""Image: what the store knows of one image. Parsed once, from a manifest and a config that somebody else wrote.

Errors carry the JSON path: `image config: config.Env[2]: not a string`.
"""

from __future__ import annotations

import hashlib

from pyrun.runtime.errors import SpecError
from pyrun.runtime.record import Record

from . import media, refs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CONFIG = "image config"
MANIFEST = "image manifest"


class ImageConfig(Record):
    """The part of an image's config that a container starts from; "" and () where the image says nothing.

    healthcheck is docker's object with Test, Interval, Timeout, StartPeriod, StartInterval (nanoseconds) and Retries.
    """

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}  # never changed, as no field of a Record is
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()


class History(Record):
    """One instruction that made the image; an empty layer changed only the config."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


class Layer(Record):
    """One layer's blob as the manifest names it, with its diff-id and the chain id it is unpacked under."""

    digest: str
    size: int
    media_type: str
    diff_id: str
    chain_id: str


class Image(Record):
    """One image. `id` is the digest of its config, `digest` that of its manifest; both "sha256:…".

    names are familiar references (flask-app:latest), sorted; none for a dangling image. `size` counts the unpacked file
    bytes of all layers, or the blobs' where a layer is not unpacked. `created` is RFC 3339, "" if unknown.
    """

    id: str
    digest: str
    names: tuple[str, ...]
    repo_digests: tuple[str, ...]
    created: str
    architecture: str
    os: str
    variant: str
    author: str
    size: int
    config: ImageConfig
    layers: tuple[Layer, ...]
    history: tuple[History, ...]
    raw_config: Mapping[str, Any]
    raw_manifest: Mapping[str, Any]

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The chain ids of the layers, lowest first (OCI image spec, config.md, "Layer ChainID")."""
        return tuple(layer.chain_id for layer in self.layers)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the uncompressed layers, lowest first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def platform(self) -> str:
        """linux/amd64, linux/arm64/v8"""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def chain_id(parent: str, diff_id: str) -> str:
    """ChainID(L0) = DiffID(L0), for "" as the parent; ChainID(Ln) = sha256(ChainID(Ln-1) + " " + DiffID(Ln))."""
    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest() if parent else diff_id


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The chain id of each layer, lowest first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else "", diff_id))
    return tuple(chain)


def parse(digest: str, manifest: Any, config: Any) -> Image:
    """The Image of a manifest and its config; names, repo_digests and size are for the store to fill in.

    Raises SpecError with the JSON path of what is wrong.
    """
    config_blob, blobs = manifest_blobs(manifest)
    top = obj(config, CONFIG)
    rootfs = obj(top.get("rootfs"), f"{CONFIG}: rootfs")
    diff_ids = strings(rootfs.get("diff_ids"), f"{CONFIG}: rootfs.diff_ids")
    for position, diff_id in enumerate(diff_ids):
        if not refs.is_digest(diff_id) or not diff_id.startswith("sha256:"):
            raise SpecError(f"{CONFIG}: rootfs.diff_ids[{position}]", f"not a sha256 digest: '{diff_id}'")
    if len(diff_ids) != len(blobs):
        raise SpecError(
            f"{CONFIG}: rootfs.diff_ids", f"{len(diff_ids)} entries, but the manifest has {len(blobs)} layers"
        )
    chain = chain_ids(diff_ids)
    return Image(
        id=config_blob[0],
        digest=digest,
        names=(),
        repo_digests=(),
        created=string(top.get("created"), f"{CONFIG}: created"),
        architecture=string(top.get("architecture"), f"{CONFIG}: architecture"),
        os=string(top.get("os"), f"{CONFIG}: os") or "linux",
        variant=string(top.get("variant"), f"{CONFIG}: variant"),
        author=string(top.get("author"), f"{CONFIG}: author"),
        size=sum(blob[1] for blob in blobs),
        config=parse_config(top.get("config"), f"{CONFIG}: config"),
        layers=tuple(
            Layer(*blob, diff_id, chain_id) for blob, diff_id, chain_id in zip(blobs, diff_ids, chain, strict=True)
        ),
        history=tuple(
            _history(item, f"{CONFIG}: history[{n}]")
            for n, item in enumerate(array(top.get("history"), f"{CONFIG}: history"))
        ),
        raw_config=top,
        raw_manifest=manifest,
    )


def manifest_blobs(manifest: Any) -> tuple[tuple[str, int, str], list[tuple[str, int, str]]]:
    """(digest, size, media type) of the config, and of each layer, lowest first. Raises SpecError.

    The media type must be an image's: an index or an artifact read as a manifest is how CVE-2021-41190 confused
    clients.
    """
    top = obj(manifest, MANIFEST)
    if top.get("mediaType") not in (None, "", *media.MANIFESTS) or "manifests" in top or "fsLayers" in top:
        raise SpecError(f"{MANIFEST}: mediaType", f"'{top.get('mediaType', '')}' is not an image manifest")
    config = _descriptor(top.get("config"), f"{MANIFEST}: config", media.CONFIGS)
    layers = array(top.get("layers"), f"{MANIFEST}: layers")
    return config, [_descriptor(item, f"{MANIFEST}: layers[{n}]", tuple(media.LAYERS)) for n, item in enumerate(layers)]


def _descriptor(value: Any, where: str, types: tuple[str, ...]) -> tuple[str, int, str]:
    found = obj(value, where)
    digest, size = string(found.get("digest"), f"{where}.digest"), found.get("size")
    kind = string(found.get("mediaType"), f"{where}.mediaType")
    if not refs.is_digest(digest) or not digest.startswith("sha256:"):
        raise SpecError(f"{where}.digest", f"not a sha256 digest: '{digest}'")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise SpecError(f"{where}.size", "not a size in bytes")
    if kind not in types:
        raise SpecError(
            f"{where}.mediaType", f"'{kind}' cannot be used here", hint="is this an artifact and not an image?"
        )
    return digest, size, kind


def parse_config(value: Any, where: str) -> ImageConfig:
    """The `config` object of an image config; null and missing are empty. Raises SpecError."""
    found = obj(value, where) if value is not None else {}

    def listed(name: str) -> tuple[str, ...]:
        # docker's own type for Cmd and Entrypoint takes a bare string too
        item = found.get(name)
        return (item,) if isinstance(item, str) else strings(item, f"{where}.{name}")

    healthcheck = found.get("Healthcheck")
    return ImageConfig(
        env=strings(found.get("Env"), f"{where}.Env"),
        cmd=listed("Cmd"),
        entrypoint=listed("Entrypoint"),
        working_dir=string(found.get("WorkingDir"), f"{where}.WorkingDir"),
        user=string(found.get("User"), f"{where}.User"),
        exposed_ports=tuple(sorted(obj(found.get("ExposedPorts") or {}, f"{where}.ExposedPorts"))),
        volumes=tuple(sorted(obj(found.get("Volumes") or {}, f"{where}.Volumes"))),
        labels={
            k: string(v, f"{where}.Labels.{k}") for k, v in obj(found.get("Labels") or {}, f"{where}.Labels").items()
        },
        stop_signal=string(found.get("StopSignal"), f"{where}.StopSignal"),
        healthcheck=obj(healthcheck, f"{where}.Healthcheck") if healthcheck else None,
        shell=strings(found.get("Shell"), f"{where}.Shell"),
        on_build=strings(found.get("OnBuild"), f"{where}.OnBuild"),
    )


def _history(value: Any, where: str) -> History:
    found = obj(value, where)
    return History(
        created=string(found.get("created"), f"{where}.created"),
        created_by=string(found.get("created_by"), f"{where}.created_by"),
        comment=string(found.get("comment"), f"{where}.comment"),
        author=string(found.get("author"), f"{where}.author"),
        empty_layer=found.get("empty_layer") is True,
    )


def obj(value: Any, where: str) -> dict[str, Any]:
    """`value` if it is a JSON object. Raises SpecError."""
    if not isinstance(value, dict):
        raise SpecError(where, "missing" if value is None else "not an object")
    return value


def array(value: Any, where: str) -> list[Any]:
    """`value` if it is a JSON array; [] for null or nothing. Raises SpecError."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError(where, "not an array")
    return value


def string(value: Any, where: str) -> str:
    """`value` if it is a string without NUL; "" for null or nothing. Raises SpecError."""
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise SpecError(where, "not a string" if not isinstance(value, str) else "holds a NUL")
    return value


def strings(value: Any, where: str) -> tuple[str, ...]:
    """`value` if it is an array of strings; () for null or nothing. Raises SpecError."""
    found = array(value, where)
    for position, item in enumerate(found):
        if not isinstance(item, str):
            raise SpecError(f"{where}[{position}]", "not a string")
        string(item, f"{where}[{position}]")
    return tuple(found)
