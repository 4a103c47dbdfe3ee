# SPDX-License-Identifier: Apache-2.0
"""--cache-from and --cache-to: cached steps in a registry, in a directory, or in the image itself.

All three are the same thing: an OCI manifest whose config has, under "pyrun.build.cache", the key and the layer of each
step, and whose layers are those layers. A registry and a directory get a manifest of its own; `inline` is the image's.
What is taken from elsewhere is fetched when a step's key is found there, verified, and from then on a step of ours. A
place that cannot be read is a warning: the build goes on without it.
"""

from __future__ import annotations

import json
import os

from pyrun.rootfs import image as images
from pyrun.rootfs import media, refs
from pyrun.rootfs.layout import load_json, parse_index
from pyrun.rootfs.limits import DEFAULT_LIMITS
from pyrun.runtime import files
from pyrun.runtime.errors import NotFound, PyrunError, SpecError, UsageError

from .cache import FORMAT, BuiltLayer, layer_of
from .options import INLINE, LOCAL, REGISTRY
from .output import digest_of, encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from pyrun.rootfs.layout import Ingest

    from .options import CachePlace
    from .output import Built
    from .stage import State
    from .work import Work

FIELD = "pyrun.build.cache"
REF_NAME = "pyrun-build-cache"  # in a directory's index
MAX_STEPS = 10_000


class Package:
    """Steps that somebody shared: their keys and layers, and how to get a layer's blob into an ingest."""

    def __init__(self, work: Work, config: Any, fetch: Callable[[BuiltLayer, Ingest], None]) -> None:
        self.work = work
        self.fetch = fetch
        self.steps: dict[str, tuple[BuiltLayer, str, str]] = {}
        found = images.obj(images.obj(config, "cache").get(FIELD), f"cache: {FIELD}")
        if found.get("format") != FORMAT:
            raise SpecError("cache", "it was written by another version of pyrun")
        for number, item in enumerate(images.array(found.get("steps"), "cache: steps")[:MAX_STEPS]):
            where = f"cache: steps[{number}]"
            step = images.obj(item, where)
            layer = layer_of({"layer": {**step, "chain_id": ""}})
            key = images.string(step.get("key"), f"{where}.key")
            if layer is None or not (refs.is_digest(layer.digest) and refs.is_digest(layer.diff_id)):
                raise SpecError(where, "not a layer")
            if layer.media_type not in media.LAYERS:
                raise SpecError(f"{where}.media_type", f"'{layer.media_type}' is no layer")
            self.steps[key] = (layer, str(step.get("kind", "")), str(step.get("description", "")))

    def find(self, key: str, below: Sequence[BuiltLayer]) -> BuiltLayer | None:
        """The step's layer, fetched, unpacked and written down as ours; None if it is not in here."""
        if key not in self.steps:
            return None
        layer, kind, description = self.steps[key]
        layer = layer.replace(chain_id=images.chain_id(below[-1].chain_id if below else "", layer.diff_id))
        work = self.work
        work.secure(below)
        ingest = work.ingest
        if not ingest.pin(layer.digest):
            self.fetch(layer, ingest)
        ingest.keep_layers([layer.chain_id])
        chain = [images.Layer(b.digest, b.size, b.media_type, b.diff_id, b.chain_id) for b in (*below, layer)]
        work.store.layers.ensure(chain, lambda one: open(ingest.blob(one.digest), "rb"), work.store.limits)
        work.cache.save(ingest, key, below, layer, kind, description)
        return layer


# ── --cache-from ─────────────────────────────────────────────────────────────────────────────────────────────────


def import_all(work: Work) -> None:
    """Opens every --cache-from; one that cannot be read is said and left out."""
    for place in work.options.cache_from:
        vertex = work.progress.vertex(f"importing cache manifest from {place.where}")
        vertex.start()
        try:
            package = _OPEN[place.kind](work, place)
        except (PyrunError, OSError) as error:
            vertex.broken(error)
            work.progress.warn(f"--cache-from {place.where}: {error}")
            continue
        work.cache.elsewhere.append(package.find)
        vertex.status(f"{len(package.steps)} steps")
        vertex.done()


def _from_directory(work: Work, place: CachePlace) -> Package:
    root = place.where

    def blob(digest: str) -> bytes:
        path = f"{root}/blobs/sha256/{digest[7:]}"
        with open(path, "rb") as file:
            return file.read(DEFAULT_LIMITS.max_json + 1)

    def fetch(layer: BuiltLayer, ingest: Ingest) -> None:
        with open(f"{root}/blobs/sha256/{layer.digest[7:]}", "rb") as file:
            ingest.add(iter(lambda: file.read(1 << 18), b""), digest=layer.digest)

    try:
        with open(f"{root}/index.json", "rb") as file:
            index = parse_index(file.read(), f"{root}/index.json")
    except FileNotFoundError:
        raise NotFound(f"build cache {root}", "no such directory, or nothing in it") from None
    for descriptor in index:
        manifest = load_json(blob(descriptor["digest"]), descriptor["digest"])
        config = images.manifest_blobs(manifest)[0][0]
        document = load_json(blob(config), config)
        if FIELD in document:
            return Package(work, document, fetch)
    raise NotFound(f"build cache {root}", "no build cache is in it")


def _from_registry(work: Work, place: CachePlace) -> Package:
    from pyrun.rootfs.registry import manifests, transport
    from pyrun.rootfs.registry.blobs import Wanted, download
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.progress import Progress
    from pyrun.rootfs.registry.pull import credentials_of

    registries = Registries.load()
    reference = refs.normalise(registries.short_name(place.where))
    endpoints = registries.endpoints(reference.domain, path=reference.path)
    scopes = [f"repository:{endpoints[-1].repository(reference.path)}:pull"]
    registry = transport.Registry(endpoints, credentials_of(reference), scopes=scopes)
    work.closing(registry.close)
    platform = manifests.host_platform()
    target = reference.digest or reference.tag
    _, document = registry.first(
        lambda host: manifests.resolve(
            host, reference.path, target, reference.familiar, platform, DEFAULT_LIMITS.max_json, exact=False
        )
    )

    def take(digest: str, size: int, ingest: Ingest) -> None:
        download(registry, reference.path, Wanted(digest, size), ingest, Progress())

    (config, size, _), _ = images.manifest_blobs(document.value)
    if size > DEFAULT_LIMITS.max_json:
        raise SpecError(f"build cache {place.where}", "its config is too large")
    ingest = work.ingest
    if not ingest.pin(config):
        take(config, size, ingest)
    value = load_json(ingest.read(config), config)
    if FIELD not in value:
        raise NotFound(f"build cache {reference.familiar}", "the image was built without --cache-to type=inline")
    return Package(work, value, lambda layer, into: take(layer.digest, layer.size, into))


_OPEN: dict[str, Callable[[Work, CachePlace], Package]] = {LOCAL: _from_directory, REGISTRY: _from_registry}


# ── --cache-to ───────────────────────────────────────────────────────────────────────────────────────────────────


def inline_records(work: Work, state: State) -> dict[str, Any]:
    """What `type=inline` adds to an image's config: the steps whose layers the image has."""
    return _field(_steps(work, state.layers, everything=False))


def export_all(work: Work, state: State, built: Built) -> None:
    """Writes every --cache-to but the inline one, which is in the image. Raises OSError, a registry's errors."""
    for place in work.options.cache_to:
        if place.kind == INLINE:
            continue
        vertex = work.progress.vertex(f"exporting cache to {place.kind} {place.where}")
        vertex.start()
        try:
            steps = _steps(work, state.layers, everything=place.everything)
            layers = list({step["digest"]: step for step in steps}.values())
            config = encoded(
                {
                    "architecture": built.document["architecture"],
                    "os": built.document["os"],
                    "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]},
                    FIELD: _field(steps),
                }
            )
            manifest = encoded(
                {
                    "schemaVersion": 2,
                    "mediaType": media.OCI_MANIFEST,
                    "config": {"mediaType": media.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
                    "layers": [
                        {"mediaType": layer["media_type"], "digest": layer["digest"], "size": layer["size"]}
                        for layer in layers
                    ],
                }
            )
            _WRITE[place.kind](work, place, config, manifest, [str(layer["digest"]) for layer in layers])
        except BaseException as error:
            vertex.broken(error)
            raise
        vertex.status(f"{len(steps)} steps, {len(layers)} layers")
        vertex.done()


def _field(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"format": FORMAT, "steps": steps}


def _steps(work: Work, layers: Sequence[BuiltLayer], *, everything: bool) -> list[dict[str, Any]]:
    """The steps that this build took or made; without `everything` those whose layers the result consists of."""
    chains = {layer.chain_id for layer in layers}
    found = []
    for key, (chain, kind, description) in sorted(work.cache.used.items()):
        layer = chain[-1]
        if everything or layer.chain_id in chains:
            fields = {name: value for name, value in layer.asdict().items() if name != "chain_id"}
            found.append({"key": key, "kind": kind, "description": description, **fields})
    return found


def _to_directory(work: Work, place: CachePlace, config: bytes, manifest: bytes, layers: Iterable[str]) -> None:
    root = place.where
    blobs = f"{root}/blobs/sha256"
    os.makedirs(blobs, exist_ok=True)
    ingest = work.ingest
    for digest in layers:
        target = f"{blobs}/{digest[7:]}"
        if not os.path.exists(target):
            if not ingest.pin(digest):
                raise PyrunError("export cache", f"blob {digest} is gone")
            _copy(ingest.blob(digest), target)
    for data in (config, manifest):
        files.write_atomic(f"{blobs}/{digest_of(data)[7:]}", data, mode=0o644, sync=False)
    files.write_atomic(f"{root}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}', mode=0o644, sync=False)
    descriptor = {
        "mediaType": media.OCI_MANIFEST,
        "digest": digest_of(manifest),
        "size": len(manifest),
        "annotations": {media.REF_NAME: REF_NAME},
    }
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [descriptor]}
    files.write_atomic(f"{root}/index.json", json.dumps(index).encode(), mode=0o644)
    wanted = {digest[7:] for digest in (*layers, digest_of(config), digest_of(manifest))}
    for name in os.listdir(blobs):  # of an earlier export to the same place
        if name not in wanted and len(name) == 64:
            os.unlink(f"{blobs}/{name}")


def _copy(source: str, target: str) -> None:
    temporary = f"{target}.{os.getpid()}.tmp"
    with open(source, "rb") as read, open(temporary, "wb") as write:
        for chunk in _chunks(read):
            write.write(chunk)
    os.rename(temporary, target)


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(1 << 18):
        yield chunk


def _to_registry(work: Work, place: CachePlace, config: bytes, manifest: bytes, layers: Iterable[str]) -> None:
    from pyrun.rootfs.registry import manifests, transport
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.progress import Progress
    from pyrun.rootfs.registry.pull import credentials_of
    from pyrun.rootfs.registry.upload import Blobs

    registries = Registries.load()
    reference = refs.normalise(registries.short_name(place.where))
    if reference.digest:
        raise UsageError(f"--cache-to {place.where}", "a digest cannot be pushed to", hint="name a tag")
    endpoint = registries.endpoints(reference.domain, push=True, path=reference.path)[-1]
    scopes = [f"repository:{endpoint.repository(reference.path)}:pull,push"]
    ingest = work.ingest
    config_digest = ingest.add([config])
    with transport.Registry([endpoint], credentials_of(reference), scopes=scopes) as registry:
        host = registry.hosts[0]
        blobs = Blobs(host, reference.path, Progress())
        for digest in (*layers, config_digest):
            if not ingest.pin(digest):
                raise PyrunError("export cache", f"blob {digest} is gone")
            blobs.send(digest, ingest.blob(digest), ingest.sizes[digest])
        path = manifests.path_of(host, reference.path, "manifests", reference.tag)
        with host.put(path, manifest, headers={"Content-Type": media.OCI_MANIFEST}) as reply:
            if reply.status not in (200, 201, 202):
                raise reply.refusal(f"export cache to {reference.familiar}")


_WRITE: dict[str, Callable[[Work, CachePlace, bytes, bytes, Sequence[str]], None]] = {
    LOCAL: _to_directory,
    REGISTRY: _to_registry,
}
