# SPDX-License-Identifier: Apache-2.0
"""Work: what all stages of one build share: images, named contexts, the ingest, the cache, who is told of progress.

Every method may be called from several threads.
"""

from __future__ import annotations

import io
import os
from threading import Event, RLock, Semaphore

from pyrun.rootfs.build.source import Tree
from pyrun.rootfs.store import ImageStore
from pyrun.runtime import files
from pyrun.runtime.errors import NotFound, PyrunError, UsageError

from .cache import Cache
from .failure import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pyrun.rootfs.build.context import Context
    from pyrun.rootfs.image import Image
    from pyrun.rootfs.layout import Ingest
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

    from .cache import BuiltLayer
    from .options import Agent, BuildOptions
    from .progress import Progress, Vertex

DOCKER_IMAGE, OCI_LAYOUT = "docker-image://", "oci-layout://"


class Source:
    """Files that a step takes: of the context, a stage, an image. `chain_id` is "" for what is no stack of layers."""

    def __init__(self, tree: Tree, name: str, dirs: tuple[str, ...] = (), chain_id: str = "") -> None:
        self.tree = tree
        self.name = name
        self.dirs = dirs  # of layers, lowest first
        self.chain_id = chain_id


class Work:
    """One build, while it runs; a `with` block closes what it opened."""

    def __init__(self, paths: Paths, options: BuildOptions, progress: Progress, link: WorkerLink | None = None) -> None:
        self.paths = paths
        self.options = options
        self.progress = progress
        self.link = link
        self.context: Context
        self.store = ImageStore(paths)
        self.cache = Cache(self.store, read=not options.no_cache)
        self.cancel = Event()
        self.limit = Semaphore(max(2, os.cpu_count() or 1))  # steps at a time, however many stages wait for each other
        self.epoch = options.epoch
        self.compression = next((out.compression for out in options.outputs if out.compression), "gzip")
        self.compression = "" if self.compression == "uncompressed" else self.compression
        self.probing = False  # only what takes no work is done: see solve.py
        self.lock = RLock()
        self._ingest: Ingest | None = None
        self._images: dict[tuple[str, str], Image] = {}
        self._sources: dict[str, Source] = {}
        self._closing: list[Callable[[], Any]] = []
        self._pinned: set[str] = set()
        self._agents: dict[str, str] = {}

    def __enter__(self) -> Work:
        return self

    def __exit__(self, kind: Any, cause: BaseException | None, tb: Any) -> None:
        for close in reversed(self._closing):
            close()
        if self._ingest is not None:
            self._ingest.__exit__(kind, cause, tb)

    def closing(self, close: Callable[[], Any]) -> None:
        """Calls `close` at the end of the build."""
        with self.lock:
            self._closing.append(close)

    def check(self) -> None:
        """Raises Cancelled once the build has failed elsewhere."""
        if self.cancel.is_set():
            raise Cancelled("build", "cancelled", code=130)

    @property
    def ingest(self) -> Ingest:
        """Where new blobs go; also what keeps the layers that this build stands on. Made when it is first needed."""
        with self.lock:
            if self._ingest is None:
                ingest = self.store.ingest()
                ingest.__enter__()
                self._ingest = ingest
                for image in self._images.values():
                    ingest.keep_layers(image.chain_ids)
            return self._ingest

    def secure(self, layers: Sequence[BuiltLayer]) -> None:
        """Sees to it that no removal takes these layers away before the build is done. Raises PyrunError if one did."""
        new = [layer for layer in layers if layer.chain_id not in self._pinned]
        if not new:
            return
        ingest = self.ingest
        with self.store.hold():
            ingest.keep_layers([layer.chain_id for layer in new])
            for layer in new:
                if not (self.store.layers.has(layer.chain_id) and ingest.pin(layer.digest)):
                    raise PyrunError("build", f"layer {layer.chain_id} was removed meanwhile", hint="build again")
        self._pinned.update(layer.chain_id for layer in new)

    # Images -------------------------------------------------------------------------------------------------------

    def image(self, text: str, platform: str, vertex: Vertex | None = None) -> Image | None:
        """The image `text`, pulled if need be and unpacked; None while probing when that would take more than a look.

        Raises NotFound and what a registry's client raises.
        """
        with self.lock:
            found = self._images.get((text, platform))
        if found is None:
            found = self._local(text, platform)
            if found is None and not self.probing:
                found = self._pulled(text, platform, vertex)
            if found is None:
                return None
            with self.lock:
                self._images[text, platform] = found
                if self._ingest is not None:
                    self._ingest.keep_layers(found.chain_ids)
        return found

    def _local(self, text: str, platform: str) -> Image | None:
        """The image if it is in the store, fits and need not be looked up in a registry."""
        if self.options.pull:
            return None
        with self.store.hold():
            try:
                found = self.store.resolve(text)
            except NotFound:
                return None
            if not _fits(found, platform):
                return None
            if self.probing and not all(self.store.layers.has(chain_id) for chain_id in found.chain_ids):
                return None
            self.store.unpacked(found)
        return found

    def _pulled(self, text: str, platform: str, vertex: Vertex | None) -> Image:
        from pyrun.runtime.engine import pulling

        from .pullview import PullView

        self.check()
        policy: Any = "always" if self.options.pull else "missing"
        try:
            image = pulling.ensure(self.paths, text, policy=policy, platform=platform, progress=PullView(vertex))
        except NotFound as error:
            if not platform:
                raise
            raise NotFound(f"no image '{text}' for {platform}", error.why or error.what, hint=error.hint) from error
        ingest = self.ingest
        with self.store.hold():
            ingest.keep_layers(image.chain_ids)
            self.store.unpacked(image)
        return image

    def dirs(self, chain_ids: Any) -> tuple[str, ...]:
        """The directories of layers, in the order given."""
        return tuple(self.store.layers.fs(chain_id) for chain_id in chain_ids)

    # Sources ------------------------------------------------------------------------------------------------------

    def context_source(self) -> Source:
        """The build context."""
        return Source(self.context.tree, "the build context")

    def layered(self, name: str, chain_ids: tuple[str, ...]) -> Source:
        """A stage or an image as files to take from."""
        with self.lock:
            key = f"{name}\0{chain_ids[-1] if chain_ids else ''}"
            if key not in self._sources:
                # FROM scratch and nothing more: an empty directory
                dirs = self.dirs(chain_ids) or (files.private_dir(f"{self.scratch()}/empty"),)
                tree = Tree.layers(dirs, name)
                self._closing.append(tree.close)
                self._sources[key] = Source(tree, name, dirs, chain_ids[-1] if chain_ids else "")
            return self._sources[key]

    def named_context(self, name: str) -> str | None:
        """What --build-context says `name` is."""
        wanted = name.lower()
        return next((value for key, value in reversed(self.options.build_contexts) if key == wanted), None)

    def context_image(self, where: str) -> str:
        """The reference of a docker-image:// or oci-layout:// context; of the latter, after its image was loaded."""
        if where.startswith(DOCKER_IMAGE):
            return where.removeprefix(DOCKER_IMAGE)
        from .layoutimage import load

        return load(self.store, where.removeprefix(OCI_LAYOUT))

    def files_of(self, name: str, where: str) -> Source:
        """A --build-context that is a directory, or the URL of a tar or a repository."""
        from pyrun.rootfs.build.context import open_context

        with self.lock:
            if where not in self._sources:
                if where == "-":
                    raise UsageError(f"--build-context {name}", "standard input is for the context itself")
                scratch = "" if os.path.isdir(where) else self.scratch()
                context = open_context(where, stdin=io.BytesIO(), scratch=scratch, hashes=self.hashes())
                self._closing.append(context.close)
                context.tree.name = f"build context '{name}'"
                self._sources[where] = Source(context.tree, context.tree.name)
            return self._sources[where]

    def agent(self, given: Agent) -> str:
        """The socket of an --ssh: the caller's agent, or one that is started for keys. Raises NotFound."""
        from . import agents

        with self.lock:
            if given.id not in self._agents:
                self._agents[given.id] = agents.socket_of(given, self.closing)
            return self._agents[given.id]

    def hashes(self) -> str:
        """The directory that remembers digests of the contexts' files."""
        return f"{files.private_dir(f'{self.paths.data}/build')}/hashes"

    def scratch(self) -> str:
        """A directory on the disk of the layers, for this build alone; removed at its end, or after a crash."""
        scratch = self.store.layers.scratch()
        scratch.__enter__()
        self._closing.append(lambda: scratch.__exit__(None, None, None))
        return scratch.path


def _fits(image: Image, platform: str) -> bool:
    """Whether the image is for `platform` (os/architecture[/variant]); "" fits all."""
    if not platform:
        return True
    from pyrun.runtime.engine.pulling import fits

    return fits(image, platform)
