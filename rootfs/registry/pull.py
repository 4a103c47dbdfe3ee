# SPDX-License-Identifier: Apache-2.0
"""`pull`: an image from a registry into the store.

    manifest (or index, then the manifest for this platform) -> config -> layers, several at a time, each unpacked as
    soon as it is down -> ImageStore.add() shows all of it at once

Every byte is verified against the digest that names it before anything becomes visible; what was downloaded by a pull
that failed stays in images/partial/ for the next one.
"""

from __future__ import annotations

import os

from pyrun.rootfs import image as images
from pyrun.rootfs import refs
from pyrun.rootfs.disk import writing
from pyrun.rootfs.layout import load_json
from pyrun.runtime import events
from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.record import Record

from . import crew, manifests, origins, partial, transport
from .blobs import Wanted, download
from .progress import Progress, key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.rootfs.image import Image, Layer
    from pyrun.rootfs.layout import Ingest
    from pyrun.rootfs.store import ImageStore
    from pyrun.rootfs.unpacker import Unpacker

    from .config import Endpoint, Registries
    from .credentials import Credentials
    from .host import Host
    from .manifests import Document, Platform
    from .sockets import Patience
    from .transport import Registry

SILENT = Progress()
JOBS = 3  # layers at a time, docker's default


class Pulled(Record):
    """What a pull gave. digest: what the name stands for in the registry, an index's perhaps. changed: the name stood
    for something else here, or for nothing."""

    image: Image
    digest: str
    changed: bool


def pull(
    store: ImageStore,
    reference: refs.Reference,
    *,
    registries: Registries,
    platform: str = "",
    progress: Progress = SILENT,
    jobs: int = JOBS,
    patience: Patience | None = None,
) -> Pulled:
    """Brings the image `reference` (a tag or a digest; without one "latest") into the store.

    platform: os/architecture[/variant], "" is this machine's. jobs: layers at a time. Raises NotFound, Unreachable,
    AccessDenied, RegistryError, Unsupported, ArchiveError, SpecError, UsageError, PyrunError for a full disk; the store
    is unchanged then.
    """
    reference = reference.tagged()
    wanted = manifests.parse_platform(platform)
    endpoints = registries.endpoints(reference.domain, path=reference.path, by_digest=bool(reference.digest))
    scopes = [f"repository:{endpoints[-1].repository(reference.path)}:pull"]
    lookup = credentials_of(reference)
    with (
        writing(f"pull {reference.familiar}"),
        transport.Registry(endpoints, lookup, scopes=scopes, patience=patience, connections=jobs) as registry,
    ):
        return _Pull(store, reference, registry, wanted, bool(platform), progress, jobs).run()


def tags(reference: refs.Reference, registries: Registries, *, patience: Patience | None = None) -> list[str]:
    """All tags of a repository, in the registry's order. Raises as pull()."""
    endpoint = registries.endpoints(reference.domain, path=reference.path)[-1]
    name = endpoint.repository(reference.path)
    what = f"tags of {reference.familiar_name}"
    scopes = [f"repository:{name}:pull"]
    found: list[str] = []
    with transport.Registry([endpoint], credentials_of(reference), scopes=scopes, patience=patience) as registry:
        for page in transport.pages(registry.hosts[0], f"/v2/{name}/tags/list", 8 << 20, what):
            listed = images.strings(images.obj(page, what).get("tags"), f"{what}: tags")
            found += [tag for tag in listed if refs.is_tag(tag)]
    return found


def credentials_of(reference: refs.Reference) -> Callable[[Endpoint], Credentials | None]:
    """What a host's challenge is answered with: a mirror's own credentials, never the registry's."""

    def lookup(endpoint: Endpoint) -> Credentials | None:
        from . import credentials

        return credentials.lookup(endpoint.host, path=endpoint.repository(reference.path))

    return lookup


class _Pull:
    """One pull, its parts in order."""

    def __init__(
        self, store: ImageStore, reference: refs.Reference, registry: Registry, platform: Platform, exact: bool,
        progress: Progress, jobs: int,
    ) -> None:  # fmt: skip
        self.store = store
        self.reference = reference
        self.registry = registry
        self.platform = platform
        self.exact = exact
        self.progress = progress
        self.jobs = max(1, jobs)
        self.what = reference.familiar
        self._fetched: list[str] = []

    def run(self) -> Pulled:
        """The pull."""
        target = self.reference.digest or self.reference.tag
        self.progress.line(f"{target}: Pulling from {self.reference.path}")
        here = self._here()
        if here is not None and (digest := self._is_current(here)):
            return Pulled(here, digest, False)
        top, document = self.registry.first(lambda host: self._resolve(host, target))
        with self.store.ingest() as ingest:
            image = self._fetch(ingest, document)
            self._warn(image)
            pulled = self._add(ingest, image, document, top.digest)
        for digest in self._fetched:
            partial.forget(self.store.layout, digest)
        return Pulled(pulled, top.digest, here is None or here.id != pulled.id)

    # What is here -------------------------------------------------------------------------------------------------

    def _here(self) -> Image | None:
        """The image that has the name now, if all of it is here."""
        try:
            image = self.store.resolve(str(self.reference.replace(tag="") if self.reference.digest else self.reference))
        except PyrunError:
            return None
        for layer in image.layers:
            path = self.store.find_blob(layer.digest)
            if path is None or os.stat(path).st_size != layer.size:
                return None
        return image

    def _is_current(self, here: Image) -> str:
        """The digest that the name still stands for, "" if it has to be pulled.

        A HEAD tells, which registries with rates count less than a GET.
        """
        fits = self.platform.rank(manifests.Platform(here.os, here.architecture, here.variant)) is not None
        if self.exact and not fits:
            return ""
        if self.reference.digest:
            return self.reference.digest
        own = f"{self.reference.repository}@"
        known = {text.removeprefix(own) for text in here.repo_digests if text.startswith(own)}
        if not known or not fits:
            return ""
        try:
            digest = self.registry.first(self._head)
        except PyrunError:
            return ""  # the GET that follows tells why
        return digest if digest in known else ""

    def _head(self, host: Host) -> str:
        path = manifests.path_of(host, self.reference.path, "manifests", self.reference.tag)
        with host.head(path, headers={"Accept": manifests.ACCEPT}) as reply:
            if reply.status != 200:
                raise reply.refusal(self.what)
            return reply.headers.get(manifests.DIGEST_HEADER, "")

    # What is there ------------------------------------------------------------------------------------------------

    def _resolve(self, host: Host, target: str) -> tuple[Document, Document]:
        return manifests.resolve(
            host, self.reference.path, target, self.what, self.platform, self.store.limits.max_json, exact=self.exact
        )

    def _fetch(self, ingest: Ingest, document: Document) -> Image:
        """Manifest and config, in the ingest."""
        ingest.add([document.data], digest=document.digest)
        (digest, size, _), _ = images.manifest_blobs(document.value)
        if size > self.store.limits.max_json:
            raise PyrunError(f"config of {self.what}", f"{size} bytes, more than {self.store.limits.max_json}")
        if not (ingest.pin(digest) and ingest.sizes[digest] == size):
            data = self.registry.first(lambda host: manifests.fetch_config(host, self.reference.path, digest, size))
            ingest.add([data], digest=digest)
        config = load_json(ingest.read(digest, self.store.limits), digest, self.store.limits)
        return images.parse(document.digest, document.value, config)

    def _warn(self, image: Image) -> None:
        """docker's rule for an image that stands alone: another platform is an error if one was asked for."""
        found = manifests.Platform(image.os, image.architecture, image.variant)
        if image.architecture and self.platform.rank(found) is None:
            if self.exact:
                raise NotFound(f"no image '{self.what}' for {self.platform}", f"there is one for: {image.platform}")
            events.warn(f"{self.what} is for {image.platform}, and this machine is {self.platform}")

    def _add(self, ingest: Ingest, image: Image, document: Document, digest: str) -> Image:
        """Layers, unpacked while they come, and the image in the store."""
        layers: dict[str, Layer] = {layer.digest: layer for layer in image.layers}
        urls = {
            str(item.get("digest")): tuple(map(str, images.array(item.get("urls"), "layers: urls")))
            for item in document.value.get("layers") or []
        }
        with self.store.unpacker(image.layers) as unpacker:
            tasks: list[tuple[int, Callable[[], None]]] = []
            for layer in layers.values():
                task = self._task(ingest, image, layer, urls.get(layer.digest, ()), unpacker)
                if task is not None:
                    tasks.append((layer.size, task))
            tasks.sort(key=lambda item: -item[0])  # the largest takes longest to unpack, so it should be down early
            crew.run([task for _, task in tasks], self.jobs, self.registry.cancel)
            named = [] if self.reference.digest else [str(self.reference)]
            text = origins.repo_digest(self.reference, digest)
            added = self.store.add(ingest, document.digest, named, repo_digests=[text], unpacker=unpacker)
        if text not in added.repo_digests:
            origins.note(self.store, document.digest, text)
            added = added.replace(repo_digests=tuple(sorted({*added.repo_digests, text})))
        for layer in layers.values():
            if layer.digest in self._fetched:
                self.progress.done(key_of(layer.digest), "Pull complete")
        return added

    def _task(
        self, ingest: Ingest, image: Image, layer: Layer, urls: tuple[str, ...], unpacker: Unpacker
    ) -> Callable[[], None] | None:
        """What is left to do for a layer: None if its blob is here."""
        same = [other for other in image.layers if other.digest == layer.digest]  # a layer may stand there twice
        key = key_of(layer.digest)
        if ingest.pin(layer.digest) and ingest.sizes[layer.digest] == layer.size:
            self.progress.done(key, "Already exists")
            for one in same:
                unpacker.start(one, ingest.blob(layer.digest), verified=False)
            return None
        self.progress.begin(key, "Pulling fs layer", layer.size)

        def fetch() -> None:
            self.progress.begin(key, "Downloading", layer.size)
            wanted = Wanted(layer.digest, layer.size, urls)
            download(self.registry, self.reference.path, wanted, ingest, self.progress)
            self._fetched.append(layer.digest)
            self.progress.done(key, "Download complete")
            for one in same:
                unpacker.start(one, ingest.blob(layer.digest))

        return fetch
