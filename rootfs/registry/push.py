# SPDX-License-Identifier: Apache-2.0
"""`push`: an image from the store into a registry.

    layers, several at a time: looked for, mounted or sent -> config -> manifest, under the tag

Blobs go as they are in the store. Only a layer that is a plain tar there is compressed on the way; then, and only then,
the manifest is another one than the store's, and so is the digest.
"""

from __future__ import annotations

import json

from pyrun.rootfs import media, refs, stream
from pyrun.rootfs.disk import writing
from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

from . import crew, manifests, origins, transport
from .errors import RegistryError
from .manifests import DIGEST_HEADER
from .origins import Packed
from .progress import Progress, key_of
from .pull import SILENT, credentials_of
from .upload import Blobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pyrun.rootfs.image import Image, Layer
    from pyrun.rootfs.layout import Ingest
    from pyrun.rootfs.store import ImageStore

    from .config import Registries
    from .host import Host
    from .sockets import Patience

JOBS = 4
MAX_NEIGHBOURS = 3  # repositories that are asked for one blob: each costs a request
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
LAYER_TYPES = {  # (docker's manifest, compression) -> media type
    (True, "gzip"): f"{DOCKER_LAYER}.gzip",
    (True, "zstd"): f"{DOCKER_LAYER}.zstd",
    (False, "gzip"): media.LAYER_OF["gzip"],
    (False, "zstd"): media.LAYER_OF["zstd"],
}


class Pushed(Record):
    """What the tag stands for in the registry now: the manifest's digest and its size in bytes."""

    digest: str
    size: int


def push(
    store: ImageStore,
    source: str,
    reference: refs.Reference,
    *,
    registries: Registries,
    progress: Progress = SILENT,
    compression: str = "gzip",
    jobs: int = JOBS,
    patience: Patience | None = None,
) -> Pushed:
    """Sends the image `source` (a name or an id) to the registry, under the tag of `reference`.

    compression: of layers that are plain tars in the store, "gzip" or "zstd"; others go as they are. jobs: blobs at a
    time. The store remembers where the image went. Raises NotFound, Unreachable, AccessDenied, RegistryError,
    UsageError, OSError as PyrunError.
    """
    reference = reference.tagged()
    if reference.digest:
        raise UsageError(f"push {reference.familiar}", "a digest cannot be pushed to", hint="name a tag")
    if (True, compression) not in LAYER_TYPES:
        raise UsageError(f"compression '{compression}'", "not one of gzip, zstd")
    image = store.resolve(source)
    endpoint = registries.endpoints(reference.domain, push=True, path=reference.path)[-1]
    known = origins.known_repositories(store, reference.domain)
    neighbours = {
        layer.digest: [endpoint.repository(path) for path in known.get(layer.digest, ()) if path != reference.path][
            :MAX_NEIGHBOURS
        ]
        for layer in image.layers
    }
    scopes = [f"repository:{endpoint.repository(reference.path)}:pull,push"]
    scopes += [f"repository:{path}:pull" for path in sorted({path for found in neighbours.values() for path in found})]
    with (
        writing(f"push {reference.familiar}"),
        store.ingest() as ingest,
        transport.Registry(
            [endpoint], credentials_of(reference), scopes=scopes, patience=patience, connections=jobs
        ) as registry,
    ):
        job = _Push(store, image, reference, registry, progress, compression)
        pushed = job.run(ingest, neighbours, max(1, jobs))
    origins.note(store, image.digest, origins.repo_digest(reference, pushed.digest), job.packed)
    return pushed


class _Push:
    """One push."""

    def __init__(
        self, store: ImageStore, image: Image, reference: refs.Reference, registry: transport.Registry,
        progress: Progress, compression: str,
    ) -> None:  # fmt: skip
        self.store = store
        self.image = image
        self.reference = reference
        self.registry = registry
        self.host: Host = registry.hosts[0]
        self.progress = progress
        self.compression = compression
        self._before: dict[str, Packed] = {}
        self.blobs = Blobs(self.host, reference.path, progress)
        self.packed: dict[str, Packed] = {}  # digest in the store -> what it is in the registry

    def run(self, ingest: Ingest, neighbours: dict[str, list[str]], jobs: int) -> Pushed:
        """Blobs first: a registry refuses a manifest whose blobs it does not have."""
        data = self._pinned(ingest, self.image.digest)
        for digest in (self.image.id, *(layer.digest for layer in self.image.layers)):
            if not ingest.pin(digest):
                manifests.missing(digest)
        self.blobs.has(self.image.id)  # a registry that is not there, or wants a login, says so before anything begins
        layers = {layer.digest: layer for layer in self.image.layers if not _is_foreign(layer, self.image.raw_manifest)}
        for layer in layers.values():
            self.progress.begin(key_of(layer.digest), "Preparing", layer.size)
        tasks = [self._task(ingest, layer, neighbours.get(layer.digest, [])) for layer in layers.values()]
        self._before = origins.packed_before(self.store, self.image.digest, self.compression)
        crew.run(tasks, jobs, self.registry.cancel)
        self.blobs.send(self.image.id, ingest.blob(self.image.id), ingest.sizes[self.image.id])
        return self._put_manifest(self._repacked() if self.packed else data)

    def _pinned(self, ingest: Ingest, digest: str) -> bytes:
        if not ingest.pin(digest):
            manifests.missing(digest)
        return ingest.read(digest, self.store.limits)

    def _task(self, ingest: Ingest, layer: Layer, neighbours: list[str]) -> Callable[[], None]:
        key = key_of(layer.digest)
        path = ingest.blob(layer.digest)

        def send() -> None:
            self.progress.begin(key, "Pushing", layer.size)
            self.progress.done(key, self.blobs.send(layer.digest, path, layer.size, neighbours))

        def pack() -> None:
            from pyrun.rootfs.changeset import COMPRESSORS

            self.progress.begin(key, "Pushing", None)
            before = self._before.get(layer.digest)
            if before is not None and (found := self.blobs.find(before.digest, neighbours)):
                self.packed[layer.digest] = before
                self.progress.done(key, found)
                return

            def chunks() -> Iterator[bytes]:
                with open(path, "rb", buffering=0) as file:
                    yield from stream.read_ahead(COMPRESSORS[self.compression](stream.chunks_of(file)))

            digest, size = self.blobs.stream(key, chunks)
            self.packed[layer.digest] = Packed(self.compression, digest, size)
            self.progress.done(key, "Pushed")

        return send if media.LAYERS[layer.media_type] else pack

    def _repacked(self) -> bytes:
        """The manifest with the layers that were compressed on the way."""
        manifest = dict(self.image.raw_manifest)
        docker = manifest.get("mediaType") == media.DOCKER_MANIFEST
        kind = LAYER_TYPES[docker, self.compression]
        layers = []
        for item in manifest["layers"]:
            made = self.packed.get(item["digest"])
            layers.append({**item, "mediaType": kind, "digest": made.digest, "size": made.size} if made else item)
        manifest["layers"] = layers
        return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()

    def _put_manifest(self, data: bytes) -> Pushed:
        digest = manifests.sha256(data)
        kind = str(self.image.raw_manifest.get("mediaType") or media.OCI_MANIFEST)
        path = manifests.path_of(self.host, self.reference.path, "manifests", self.reference.tag)
        with self.host.put(path, data, headers={"Content-Type": kind}) as reply:
            if reply.status not in (200, 201, 202):
                raise reply.refusal(f"push {self.reference.familiar}")
            claimed = reply.headers.get(DIGEST_HEADER, digest)
        if claimed != digest and claimed.startswith("sha256:"):
            raise RegistryError(
                f"push {self.reference.familiar}", f"the registry took it for {claimed[:71]} and not for {digest}"
            )
        return Pushed(digest, len(data))


def _is_foreign(layer: Layer, manifest: Any) -> bool:
    """A layer that must be fetched from its own place (docker's foreign, OCI's nondistributable layers): not sent."""
    return any(item["digest"] == layer.digest and item.get("urls") for item in manifest["layers"])
