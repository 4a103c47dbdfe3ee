# SPDX-License-Identifier: Apache-2.0
"""`save`: images as an archive or a directory, in the forms that docker, podman and skopeo read.

    docker-archive  manifest.json, for docker of any age and podman, and index.json with oci-layout, for skopeo and
                    containerd: they name the same blobs, as docker has written it since version 25
    oci-archive     an OCI image layout as a tar           oci-dir     the same as a directory
    docker-dir      one image as skopeo's `dir:` has it: manifest.json and version beside the blobs

The bytes depend on the images only: no times, no owners. What says what is in it comes first, then manifests and
configs, then layers, lowest first: whoever reads from a pipe can begin to unpack at once.
"""

from __future__ import annotations

import io
import json
import os
import tarfile

from pyrun.runtime.errors import Conflict, NotFound, UsageError
from pyrun.runtime.events import step

from . import media, refs, stream
from .disk import writing
from .inroot import remove_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO, Protocol

    from .image import Image
    from .store import ImageStore

    class Sink(Protocol):
        """Where the files of an archive go."""

        def directory(self, name: str) -> None: ...
        def file(self, name: str, file: BinaryIO, size: int) -> None: ...

    Chosen = list[tuple[Image, list[str]]]  # each image with the full references it is asked for by

BLOBS = "blobs/sha256"
DOCKER_ARCHIVE, OCI_ARCHIVE, OCI_DIR, DOCKER_DIR = "docker-archive", "oci-archive", "oci-dir", "docker-dir"
FORMS = (DOCKER_ARCHIVE, OCI_ARCHIVE, OCI_DIR, DOCKER_DIR)
DIRECTORIES = (OCI_DIR, DOCKER_DIR)
DIR_VERSION = b"Directory Transport Version: 1.1\n"  # containers/image, docker/directory


def save(
    store: ImageStore, names: Sequence[str], target: BinaryIO, *, form: str = DOCKER_ARCHIVE, platform: str = ""
) -> None:
    """Writes the images that `names` stand for to `target`. An image asked for by id is saved without a name.

    form: docker-archive or oci-archive. platform: what the images must be for, "" for anything. Raises NotFound,
    UsageError and Conflict before anything is written, OSError.
    """
    if form not in FORMS or form in DIRECTORIES:
        raise UsageError(f"save as '{form}'", "that is no archive", hint=f"one of {', '.join(FORMS)}")
    chosen = _choose(store, names, platform)
    archive = _Archive(target)
    with _Blobs(store, chosen) as blobs, step("rootfs", f"save {' '.join(names)} as {form}"):
        _layout(archive, chosen, blobs, docker=form == DOCKER_ARCHIVE)
        archive.close()


def save_directory(
    store: ImageStore, names: Sequence[str], path: str, *, form: str = OCI_DIR, platform: str = ""
) -> None:
    """Writes the images into the new (or empty) directory `path`: oci-dir or docker-dir.

    Raises as save() does, and Conflict when there is something at `path`; then nothing new is left.
    """
    if form not in DIRECTORIES:
        raise UsageError(f"save as '{form}'", "that is no directory", hint=f"one of {', '.join(FORMS)}")
    chosen = _choose(store, names, platform)
    if form == DOCKER_DIR and len(chosen) > 1:
        raise UsageError("save as docker-dir", f"it holds one image, not {len(chosen)}", hint="--format oci-dir")
    temporary = f"{path.rstrip('/')}.{os.getpid()}.tmp"
    with (
        _Blobs(store, chosen) as blobs,
        writing(f"save to {path}"),
        step("rootfs", f"save {' '.join(names)} to {path}"),
    ):
        try:
            os.mkdir(temporary)
            sink = _Directory(temporary)
            if form == OCI_DIR:
                _layout(sink, chosen, blobs, docker=False)
            else:
                _docker_dir(sink, chosen[0][0], blobs)
            try:
                os.rename(temporary, path)
            except (FileExistsError, NotADirectoryError, OSError) as error:
                if os.path.lexists(path):
                    why = "there is something already"
                    raise Conflict(f"save to {path}", why, hint="name a new or an empty directory") from error
                raise
        except BaseException:
            if os.path.lexists(temporary):
                remove_path(os.path.abspath(temporary))
            raise


def _choose(store: ImageStore, names: Sequence[str], platform: str) -> Chosen:
    if not names:
        raise UsageError("nothing to save", "name at least one image")
    chosen: dict[str, tuple[Image, list[str]]] = {}
    for text in names:
        image = store.resolve(text)
        if platform and not _fits(image, platform):
            raise Conflict(f"save {text} for {platform}", f"the image is for {image.platform}")
        _, tags = chosen.setdefault(image.digest, (image, []))
        if not refs.id_prefix(text) or text in image.names:
            name = refs.normalise(text)
            if not name.digest and str(name) not in tags:
                tags.append(str(name))
    return list(chosen.values())


def _fits(image: Image, platform: str) -> bool:
    """Whether every part of os/architecture[/variant] that is given is the image's."""
    wanted = platform.split("/")
    return wanted == [image.os, image.architecture, image.variant][: len(wanted)]


class _Blobs:
    """The blobs of the images, opened before the first byte is written: what is removed meanwhile is still read."""

    OPEN = 400  # at most so many at a time: a process has 1024 descriptors

    def __init__(self, store: ImageStore, chosen: Chosen) -> None:
        self.store = store
        # documents first; layers in the order in which they are unpacked
        documents = [digest for image, _ in chosen for digest in (image.digest, image.id)]
        layers = [layer.digest for image, _ in chosen for layer in image.layers]
        self.digests = list(dict.fromkeys([*documents, *layers]))
        self.files: dict[str, BinaryIO] = {}

    def __enter__(self) -> _Blobs:
        try:
            for digest in self.digests[: self.OPEN]:
                self.files[digest] = self._open(digest)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def __iter__(self) -> Iterator[tuple[str, BinaryIO, int]]:
        """(digest, file, size) of each, once."""
        for digest in self.digests:
            with self.files.pop(digest, None) or self._open(digest) as file:
                yield digest, file, os.fstat(file.fileno()).st_size

    def _open(self, digest: str) -> BinaryIO:
        try:
            return open(self.store.layout.blob(digest), "rb", buffering=0)
        except FileNotFoundError:
            hint = "load or pull the image again"
            raise NotFound(f"image blob {digest}", "it is missing from the store", hint=hint) from None


def _layout(sink: Sink, chosen: Chosen, blobs: _Blobs, *, docker: bool) -> None:
    """An OCI image layout, and docker's manifest.json beside it."""
    _document(sink, "oci-layout", {"imageLayoutVersion": "1.0.0"})
    sizes = {image.digest: os.fstat(blobs.files[image.digest].fileno()).st_size for image, _ in chosen}
    _document(sink, "index.json", _index(chosen, sizes))
    if docker:
        _document(sink, "manifest.json", [_docker_entry(image, tags) for image, tags in chosen])
    for directory in ("blobs", BLOBS):
        sink.directory(directory)
    for digest, file, size in blobs:
        sink.file(f"{BLOBS}/{digest[7:]}", file, size)


def _docker_entry(image: Image, tags: list[str]) -> dict[str, Any]:
    return {
        "Config": f"{BLOBS}/{image.id[7:]}",
        "RepoTags": [refs.familiar(tag) for tag in tags] or None,
        "Layers": [f"{BLOBS}/{layer.digest[7:]}" for layer in image.layers],
    }


def _index(chosen: Chosen, sizes: dict[str, int]) -> dict[str, Any]:
    manifests = []
    for image, tags in chosen:
        descriptor = {
            "mediaType": image.raw_manifest.get("mediaType") or media.OCI_MANIFEST,
            "digest": image.digest,
            "size": sizes[image.digest],
        }
        for tag in tags:
            manifests.append({**descriptor, "annotations": {media.REF_NAME: tag, media.CONTAINERD_NAME: tag}})
        if not tags:
            manifests.append(descriptor)
    return {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests}


def _docker_dir(sink: Sink, image: Image, blobs: _Blobs) -> None:
    """The manifest in docker's media types: the name says so, and old readers know no others."""
    layers = [
        {"mediaType": media.DOCKER_LAYER_OF[media.LAYERS[layer.media_type]], "digest": layer.digest, "size": layer.size}
        for layer in image.layers
    ]
    config = {**image.raw_manifest["config"], "mediaType": media.DOCKER_CONFIG}
    manifest = {"schemaVersion": 2, "mediaType": media.DOCKER_MANIFEST, "config": config, "layers": layers}
    sink.file("version", io.BytesIO(DIR_VERSION), len(DIR_VERSION))
    _document(sink, "manifest.json", manifest)
    for digest, file, size in blobs:
        if digest != image.digest:
            sink.file(digest[7:], file, size)


def _document(sink: Sink, name: str, value: Any) -> None:
    data = json.dumps(value, separators=(",", ":")).encode()
    sink.file(name, io.BytesIO(data), len(data))


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

    def file(self, name: str, file: BinaryIO, size: int) -> None:
        self._header(name, size, tarfile.REGTYPE, 0o644)
        for chunk in stream.chunks_of(file, 1 << 20):
            self.target.write(chunk)
        self.target.write(bytes(-size % 512))

    def close(self) -> None:
        self.target.write(bytes(1024))


class _Directory:
    """Writes files below a directory of our own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def directory(self, name: str) -> None:
        os.mkdir(f"{self.path}/{name}")

    def file(self, name: str, file: BinaryIO, size: int) -> None:
        with open(f"{self.path}/{name}", "xb") as target:
            for chunk in stream.chunks_of(file, 1 << 20):
                target.write(chunk)
