# SPDX-License-Identifier: Apache-2.0
"""`save`: images as one archive that is a docker-archive and an oci-archive at once, as docker writes since version 25.

manifest.json, for docker of any age and podman, and index.json with oci-layout, for skopeo and containerd, name the
same blobs. The bytes depend on the images only: entries are sorted and carry no time, no owner.
"""

from __future__ import annotations

import json
import os
import tarfile

from pyrun.runtime.errors import UsageError

from . import media, refs, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO

    from .image import Image
    from .store import ImageStore

BLOBS = "blobs/sha256"


def save(store: ImageStore, names: Sequence[str], target: BinaryIO) -> None:
    """Writes the images that `names` stand for to `target`. An image asked for by id is saved without a name.

    Raises NotFound and UsageError before anything is written, OSError.
    """
    if not names:
        raise UsageError("nothing to save", "name at least one image")
    chosen: dict[str, tuple[Image, list[str]]] = {}
    for text in names:
        image = store.resolve(text)
        _, tags = chosen.setdefault(image.digest, (image, []))
        if not refs.id_prefix(text) or text in image.names:
            name = refs.normalise(text)
            if not name.digest and str(name) not in tags:
                tags.append(str(name))
    archive = _Archive(target)
    digests = {digest for image, _ in chosen.values() for digest in _blobs(image)}
    for directory in ("blobs", BLOBS):
        archive.directory(directory)
    for digest in sorted(digests):
        with open(store.layout.blob(digest), "rb") as file:
            archive.file(f"{BLOBS}/{digest[7:]}", file, os.fstat(file.fileno()).st_size)
    archive.document("index.json", _index(list(chosen.values()), store))
    archive.document("manifest.json", [_docker_entry(image, tags) for image, tags in chosen.values()])
    archive.document("oci-layout", {"imageLayoutVersion": "1.0.0"})
    archive.close()


def _blobs(image: Image) -> list[str]:
    return [image.digest, image.id, *(layer.digest for layer in image.layers)]


def _docker_entry(image: Image, tags: list[str]) -> dict[str, Any]:
    return {
        "Config": f"{BLOBS}/{image.id[7:]}",
        "RepoTags": [refs.familiar(tag) for tag in tags] or None,
        "Layers": [f"{BLOBS}/{layer.digest[7:]}" for layer in image.layers],
    }


def _index(chosen: list[tuple[Image, list[str]]], store: ImageStore) -> dict[str, Any]:
    manifests = []
    for image, tags in chosen:
        descriptor = {
            "mediaType": image.raw_manifest.get("mediaType") or media.OCI_MANIFEST,
            "digest": image.digest,
            "size": os.stat(store.layout.blob(image.digest)).st_size,
        }
        for tag in tags:
            manifests.append({**descriptor, "annotations": {media.REF_NAME: tag, media.CONTAINERD_NAME: tag}})
        if not tags:
            manifests.append(descriptor)
    return {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests}


class _Archive:
    """Writes tar entries to a stream that cannot seek."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target

    def _header(self, name: str, size: int, kind: bytes, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.mode = size, kind, mode
        self.target.write(info.tobuf(tarfile.PAX_FORMAT))

    def directory(self, name: str) -> None:
        self._header(name + "/", 0, tarfile.DIRTYPE, 0o755)

    def file(self, name: str, file: stream.Readable, size: int) -> None:
        self._header(name, size, tarfile.REGTYPE, 0o644)
        for chunk in stream.chunks_of(file):
            self.target.write(chunk)
        self.target.write(bytes(-size % 512))

    def document(self, name: str, value: Any) -> None:
        import io

        data = json.dumps(value, separators=(",", ":")).encode()
        self.file(name, io.BytesIO(data), len(data))

    def close(self) -> None:
        self.target.write(bytes(1024))
