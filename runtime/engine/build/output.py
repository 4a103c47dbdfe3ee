# SPDX-License-Identifier: Apache-2.0
"""What becomes of the target: an image of the store under its tags, files, archives, a push; and the files that say so.

An image that is there already is only named: a rebuild in which everything was cached writes the index at most.
"""

from __future__ import annotations

import hashlib
import json
import os

from pyrun.rootfs import media, refs
from pyrun.runtime import files
from pyrun.runtime.engine.humanize import SECOND, rfc3339
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.record import Record

from .cache import readable
from .options import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.rootfs.image import Image

    from .progress import Vertex
    from .stage import State
    from .work import Work

STORED = ("image", "docker")  # outputs that put the image into the store (docker: without a dest)


class Built(Record):
    """What a build made. `image` is None when only files were asked for; `names` are its full references."""

    image: Image | None
    names: tuple[str, ...]
    document: Any  # the image's config
    digest: str  # of the manifest
    image_id: str
    warnings: tuple[str, ...] = ()  # about the Dockerfile


class Packed(Record):
    """The result as an image's documents, whose layers are in the store."""

    config: bytes
    manifest: bytes
    document: Any
    names: tuple[str, ...]
    digest: str
    image_id: str
    blobs: tuple[tuple[str, int], ...]

    def layers(self, *, every: bool = False) -> list[tuple[str, int]]:
        """(digest, size) of the layers, lowest first; each digest once unless `every`."""
        return list(self.blobs) if every else list(dict(self.blobs).items())


def finish(work: Work, state: State) -> Built:
    """Makes of the target's state what the options ask for. Raises UsageError, OSError, a registry's errors."""
    outputs = work.options.outputs or (Output("docker"),)
    packed = _pack(work, state, outputs)
    stored = any(_is_stored(output) for output in outputs)
    vertex = work.progress.vertex("exporting to image" if stored else "exporting")
    vertex.start()
    try:
        image = _add(work, state, packed, vertex) if stored else None
        built = Built(image, packed.names, packed.document, packed.digest, packed.image_id)
        for output in outputs:
            if not _is_stored(output):
                _export(work, state, packed, output, vertex)
            elif output.push:
                _push(work, built, vertex)
        _notes(work, built, packed)
    except BaseException as error:
        vertex.broken(error)
        raise
    vertex.done()
    return built


def _pack(work: Work, state: State, outputs: Sequence[Output]) -> Packed:
    options = work.options
    names = tuple(dict.fromkeys(str(tag_of(tag)) for tag in (*options.tags, *(n for o in outputs for n in o.names))))
    epoch = "" if work.epoch is None else rfc3339(work.epoch * SECOND)
    document = state.image(dict(options.labels), epoch)
    if any(place.kind == "inline" for place in options.cache_to):
        from .sharing import FIELD, inline_records

        document[FIELD] = inline_records(work, state)
    config = encoded(document)
    manifest = encoded(_manifest(work, state, config))
    blobs = tuple((layer.digest, layer.size) for layer in state.layers)
    return Packed(config, manifest, document, names, digest_of(manifest), digest_of(config), blobs)


def tag_of(text: str) -> refs.Reference:
    """A -t as a reference. Raises UsageError."""
    from pyrun.runtime.errors import UsageError

    name = refs.normalise(text)
    if name.digest:
        raise UsageError(f"cannot tag as '{text}'", "a tag has no digest")
    return name


def _is_stored(output: Output) -> bool:
    return output.kind in STORED and not output.dest


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────────────


def _add(work: Work, state: State, packed: Packed, vertex: Vertex) -> Image:
    """The image in the store, new or found, with its names."""
    store = work.store
    image: Image | None
    try:
        image = store.resolve(packed.image_id)
    except PyrunError:  # not there, or damaged: then adding it repairs it
        image = None
    if image is None or image.digest != packed.digest:
        ingest = work.ingest
        work.secure(state.layers)
        ingest.add([packed.config])
        ingest.add([packed.manifest])
        image = store.add(ingest, packed.digest, packed.names)
    else:
        for name in packed.names:
            if refs.familiar(name) not in image.names:
                store.tag(packed.image_id, name)
    vertex.status(f"image {packed.image_id}")
    for name in packed.names:
        vertex.status(f"named {name}")
    return image


def _manifest(work: Work, state: State, config: bytes) -> dict[str, Any]:
    notes = dict(work.options.annotations) | {k: v for out in work.options.outputs for k, v in out.annotations}
    return {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in state.layers
        ],
        **({"annotations": notes} if notes else {}),
    }


def encoded(value: Any) -> bytes:
    """Compact JSON, the same for equal values: what Ingest.add_json() writes."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return readable(text).encode()


def digest_of(data: bytes) -> str:
    """ "sha256:…" """
    return "sha256:" + hashlib.sha256(data).hexdigest()


# ── other outputs ────────────────────────────────────────────────────────────────────────────────────────────────


def _export(work: Work, state: State, packed: Packed, output: Output, vertex: Vertex) -> None:
    from . import exporting

    vertex.status(f"exporting {output.kind} to {output.dest}")
    exporting.EXPORTERS[output.kind](work, state, packed, output)


def _push(work: Work, built: Built, vertex: Vertex) -> None:
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.push import push

    from .pullview import PullView

    if not built.names:
        from pyrun.runtime.errors import UsageError

        raise UsageError("--push", "the image has no name to push it under", hint="add -t REGISTRY/NAME")
    registries = Registries.load()
    for name in built.names:
        push(work.store, built.image_id, refs.parse(name), registries=registries, progress=PullView(vertex))
        vertex.status(f"pushing {refs.familiar(name)} done")


def _notes(work: Work, built: Built, packed: Packed) -> None:
    """--iidfile and --metadata-file."""
    options = work.options
    if options.iidfile:
        files.write_atomic(os.path.abspath(options.iidfile), built.image_id.encode(), mode=0o644)
    if options.metadata_file:
        platform = {name: built.document[name] for name in ("architecture", "os", "variant") if name in built.document}
        value = {
            "containerimage.config.digest": built.image_id,
            "containerimage.descriptor": {
                "mediaType": media.OCI_MANIFEST,
                "digest": built.digest,
                "size": len(packed.manifest),
                "platform": platform,
            },
            "containerimage.digest": built.digest,
            **({"image.name": ",".join(built.names)} if built.names else {}),
        }
        files.write_json(os.path.abspath(options.metadata_file), value, mode=0o644)
