# SPDX-License-Identifier: Apache-2.0
"""`import`: an image of one layer, made from the tar of a root file system."""

from __future__ import annotations

import time

from pyrun.runtime.errors import NotFound, UsageError

from . import changes as instructions
from . import media, refs, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .image import Image
    from .layout import Ingest
    from .store import ImageStore


def import_rootfs(
    store: ImageStore,
    source: str | stream.Readable,
    reference: str = "",
    changes: Sequence[str] = (),
    message: str = "",
) -> Image:
    """Adds a root file system to the store as an image and returns it.

    Args:
        source: a tar, plain or compressed (gzip, zstd, xz, bzip2): a path or an open stream.
        reference: its name; "" for none.
        changes: Dockerfile instructions for its config, such as 'CMD ["python3"]' (see changes.py).
        message: the comment in its history.

    Raises UsageError before anything is read, ArchiveError, NotFound, OSError.
    """
    name = refs.normalise(reference) if reference else None
    if name is not None and name.digest:
        raise UsageError(f"cannot import as '{reference}'", "a new image has no digest yet")
    config = instructions.apply({}, changes)
    origin = source if isinstance(source, str) else "-"
    with store.ingest() as ingest:
        if isinstance(source, str):
            try:
                with open(source, "rb") as file:
                    digest = _store_layer(store, ingest, file)
            except FileNotFoundError:
                raise NotFound(f"no such file '{source}'") from None
        else:
            digest = _store_layer(store, ingest, source)
        with open(ingest.blob(digest), "rb") as blob:
            kind, _ = stream.sniffed(stream.chunks_of(blob))
            blob.seek(0)
            # The diff-id, and so the chain id, is known only afterwards; hold() keeps a collector away from the new
            # layer
            with store.hold():
                unpacked = store.layers.adopt(blob, store.limits)
                ingest.keep_layers([unpacked.diff_id])
        created = rfc3339(time.time())
        system, architecture, variant = media.host_platform()
        document = {
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": system,
            "created": created,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [unpacked.diff_id]},
            "history": [{"created": created, "comment": message or f"Imported from {origin}"}],
        }
        config_digest = ingest.add_json(document)
        layer = {"mediaType": media.LAYER_OF[kind], "digest": digest, "size": ingest.sizes[digest]}
        manifest = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": {"mediaType": media.OCI_CONFIG, "digest": config_digest, "size": ingest.sizes[config_digest]},
            "layers": [layer],
        }
        return store.add(ingest, ingest.add_json(manifest), [str(name)] if name else [])


def _store_layer(store: ImageStore, ingest: Ingest, source: stream.Readable) -> str:
    """The blob as it came; xz and bzip2, for which there is no media type, as a plain tar."""
    kind, chunks = stream.sniffed(stream.chunks_of(source))
    if kind not in media.LAYER_OF:
        chunks = stream.inflate(chunks, kind, store.limits)
    return ingest.add(chunks, max_bytes=store.limits.max_bytes)


def rfc3339(seconds: float) -> str:
    """A time as image configs write it, in UTC with nanoseconds: 2026-11-23T20:58:00.123456789Z"""
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 10**9):09d}Z"
