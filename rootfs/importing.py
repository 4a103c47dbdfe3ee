# SPDX-License-Identifier: Apache-2.0
"""`import`: an image of one layer, made from the tar of a root file system."""

from __future__ import annotations

import os
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
    platform: str = "",
) -> Image:
    """Adds a root file system to the store as an image and returns it.

    Args:
        source: a tar, plain or compressed (gzip, zstd, xz, bzip2): a path, an http or https URL, or an open stream.
        reference: its name; "" for none.
        changes: Dockerfile instructions for its config, such as 'CMD ["python3"]' (see changes.py).
        message: the comment in its history.
        platform: what it is for, such as linux/arm64; "" is this machine's.

    Raises UsageError before anything is read, ArchiveError, NotFound, PyrunError for a download that fails, OSError.
    """
    name = refs.normalise(reference) if reference else None
    if name is not None and name.digest:
        raise UsageError(f"cannot import as '{reference}'", "a new image has no digest yet")
    config = instructions.apply({}, changes)
    system, architecture, variant = _platform(platform)
    with store.ingest() as ingest:
        digest = _layer_of(store, ingest, source)
        with open(ingest.blob(digest), "rb") as blob:
            kind, _ = stream.sniffed(stream.chunks_of(blob))
            blob.seek(0)
            # The diff-id, and so the chain id, is known only afterwards; hold() keeps a collector away from the new
            # layer
            with store.hold():
                unpacked = store.layers.adopt(blob, store.limits)
                ingest.keep_layers([unpacked.diff_id])
        created = rfc3339(time.time())
        document = {
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": system,
            "created": created,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [unpacked.diff_id]},
            "history": [{"created": created, "comment": message or f"Imported from {_origin(source)}"}],
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


def _platform(text: str) -> tuple[str, str, str]:
    if not text:
        return media.host_platform()
    from .build import platforms

    found = platforms.parse(text)
    return found.os, found.architecture, found.variant


def _origin(source: str | stream.Readable) -> str:
    """Where it came from, for the history, which others read: no password of a URL, no directory of this machine."""
    if not isinstance(source, str):
        return "-"
    head, scheme, rest = source.partition("://")
    if not scheme:
        return os.path.basename(source)
    host, slash, path = rest.partition("/")
    return f"{head}{scheme}{host.rpartition('@')[2]}{slash}{path}"


def _layer_of(store: ImageStore, ingest: Ingest, source: str | stream.Readable) -> str:
    """The digest of the source's blob in `ingest`."""
    if not isinstance(source, str):
        return _store_layer(store, ingest, source)
    from .build import remote

    path = remote.fetch(source, "", ingest.path).path if remote.is_url(source) else source
    try:
        with open(path, "rb") as file:
            return _store_layer(store, ingest, file)
    except FileNotFoundError:
        raise NotFound(f"no such file '{source}'") from None
    except IsADirectoryError:
        raise UsageError(
            f"import {source}", "it is a directory", hint=f"tar -C {source} -c . | pyrun import -"
        ) from None


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
