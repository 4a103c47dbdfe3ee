# SPDX-License-Identifier: Apache-2.0
"""`load`: images from an archive. docker-archive (docker save), oci-archive (podman, skopeo, buildx), both as a
directory too, and skopeo's dir; each plain or compressed; any number of images.

An archive is read once, front to back, as it may come from a pipe: every file in it becomes a blob of the ingest, under
the digest that it really has. What the manifests name is then looked up by digest, so a file under a wrong name is a
missing one.
"""

from __future__ import annotations

import os
import stat

from pyrun.runtime.errors import NotFound, PyrunError, UsageError

from . import image as images
from . import media, refs, stream, tarread
from .entry import FILE, HARDLINK, SYMLINK, show, split
from .inroot import reopen_regular
from .layout import Ingest, parse_index, parse_json
from .limits import ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from .store import ImageStore

MAX_FILES = 100_000  # in an image archive: a few for each layer
LEGACY = ("repositories", "VERSION", "json")  # parts of docker's format from before 2015, read by nobody


def load(store: ImageStore, source: str | stream.Readable) -> list[str]:
    """Adds every image of an archive (a path, a directory's path, or an open stream) to the store.

    Returns their names as people write them, or the id of an image without one. All or nothing is added for one image;
    an error leaves the images before it. Raises ArchiveError, SpecError, NotFound, OSError.
    """
    with store.ingest() as ingest:
        members = Members(ingest)
        if isinstance(source, str):
            _read_path(members, source, store.limits)
        else:
            _read_stream(members, source, store.limits)
        loaded: list[str] = []
        for manifest_digest, names in _images(members, store.limits):
            full = [str(refs.normalise(name)) for name in names]
            image = store.add(ingest, manifest_digest, full, exact=False)
            loaded += [refs.familiar(name) for name in full] or [image.id]
        return loaded


class Members:
    """The files of an archive: their paths, and the digests of what they hold."""

    def __init__(self, ingest: Ingest) -> None:
        self.ingest = ingest
        self.files: dict[bytes, str] = {}
        self.links: dict[bytes, bytes] = {}

    def digest(self, path: bytes) -> str:
        """The digest of the file at `path`, also through links (docker repeats layers so); "" for none."""
        for _ in range(8):
            if path in self.files:
                return self.files[path]
            if path not in self.links:
                break
            path = self.links[path]
        return ""

    def json(self, path: bytes, limits: Limits) -> Any:
        """The JSON document at `path`, None if there is no such file."""
        digest = self.digest(path)
        return parse_json(self.ingest.read(digest, limits), f"'{show(path)}' in the archive") if digest else None


def _read_path(members: Members, path: str, limits: Limits) -> None:
    try:
        with open(path, "rb") as file:
            _read_stream(members, file, limits)
    except IsADirectoryError:
        _read_directory(members, path)
    except FileNotFoundError:
        raise NotFound(f"no such file '{path}'") from None


def _read_stream(members: Members, source: stream.Readable, limits: Limits) -> None:
    kind, chunks = stream.sniffed(stream.chunks_of(source))
    plain = stream.inflate(chunks, kind, limits)
    ahead = stream.read_ahead(plain) if kind else plain
    try:
        archive = stream.ByteStream(ahead, limits)
        for entry in tarread.entries(archive, limits.replace(max_entries=MAX_FILES), require_end=True):
            if entry.kind is FILE:
                members.files[entry.path] = members.ingest.add(map(bytes, archive.data()))
                members.links.pop(entry.path, None)
            elif entry.kind is SYMLINK or entry.kind is HARDLINK:
                base = entry.parts[:-1] if entry.kind is SYMLINK else ()
                members.links[entry.path] = b"/".join(_joined(base, entry.link))
                members.files.pop(entry.path, None)
    finally:
        ahead.close()


def _joined(base: tuple[bytes, ...], link: bytes) -> tuple[bytes, ...]:
    """A symlink's target inside the archive: these are names to look up, never opened, so ".." may go up to the top."""
    parts = list(base)
    for part in link.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def _read_directory(members: Members, path: str) -> None:
    """The regular files below `path`; symlinks are not followed."""
    top = os.fsencode(path)
    for directory, _, names in os.walk(top):
        for name in names:
            full = os.path.join(directory, name)
            handle = os.open(full, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)  # to open a device may be to act on it
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    continue
                with os.fdopen(reopen_regular(handle, full), "rb") as file:
                    members.files[os.path.relpath(full, top)] = members.ingest.add(stream.chunks_of(file))
            finally:
                os.close(handle)
            if len(members.files) > MAX_FILES:
                raise ArchiveError(f"image directory '{path}'", f"more than {MAX_FILES} files")


# What is in it ------------------------------------------------------------------------------------------------------


def _images(members: Members, limits: Limits) -> Iterator[tuple[str, list[str]]]:
    """(manifest digest, names) of each image, its manifest in the ingest."""
    manifest = members.json(b"manifest.json", limits)
    index = members.digest(b"index.json") if members.digest(b"oci-layout") else ""
    if index:
        names = _docker_names(manifest) if isinstance(manifest, list) else {}
        yield from _oci_images(members, index, names, limits)
    elif isinstance(manifest, list):
        for number, item in enumerate(manifest):
            yield _docker_image(members, item, f"manifest.json: [{number}]", limits)
    elif isinstance(manifest, dict):
        yield members.digest(b"manifest.json"), []
    else:
        raise ArchiveError(
            "image archive",
            "it has neither a manifest.json nor an index.json",
            hint="the tar of a root file system becomes an image with `pyrun import`",
        )


def _docker_image(members: Members, item: Any, where: str, limits: Limits) -> tuple[str, list[str]]:
    """One image of a docker-archive: its manifest is made here, from the config and the layers' files as they are."""
    found = images.obj(item, where)
    config_path = images.string(found.get("Config"), f"{where}.Config")
    config = members.digest(b"/".join(split(os.fsencode(config_path))))
    if not config:
        raise ArchiveError("image archive", f"the config '{config_path}' is missing: is it truncated?")
    ingest = members.ingest
    layers = []
    for path in images.strings(found.get("Layers"), f"{where}.Layers"):
        digest = members.digest(b"/".join(split(os.fsencode(path))))
        if not digest:
            raise ArchiveError("image archive", f"the layer '{path}' is missing: is it truncated?")
        digest, kind = _storable(ingest, digest, limits)
        layers.append({"mediaType": media.LAYER_OF[kind], "digest": digest, "size": ingest.sizes[digest]})
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": config, "size": ingest.sizes[config]},
        "layers": layers,
    }
    return ingest.add_json(manifest), list(images.strings(found.get("RepoTags"), f"{where}.RepoTags"))


def _storable(ingest: Ingest, digest: str, limits: Limits) -> tuple[str, str]:
    """A layer's digest and compression; xz and bzip2, which no media type names, are unpacked to a plain tar."""
    with open(ingest.blob(digest), "rb") as file:
        kind, chunks = stream.sniffed(stream.chunks_of(file))
        if kind in media.LAYER_OF:
            return digest, kind
        return ingest.add(stream.inflate(chunks, kind, limits)), ""


def _docker_names(manifest: list[Any]) -> dict[str, list[str]]:
    """Config path -> RepoTags of the manifest.json that docker puts beside an OCI layout."""
    return {
        str(item.get("Config", "")).rpartition("/")[2]: [str(tag) for tag in item.get("RepoTags") or []]
        for item in manifest
        if isinstance(item, dict)
    }


def _oci_images(
    members: Members, index: str, docker_names: dict[str, list[str]], limits: Limits
) -> Iterator[tuple[str, list[str]]]:
    """The images of an OCI layout: one for each name or unnamed entry, for this machine where there is a choice."""
    found: dict[str, list[str]] = {}
    for descriptors, names in _named(parse_index(members.ingest.read(index, limits), "index.json")):
        manifest = _choose(members, descriptors, limits)
        config = images.manifest_blobs(parse_json(members.ingest.read(manifest, limits), manifest))[0][0]
        names = names or docker_names.get(config.removeprefix("sha256:"), [])
        found.setdefault(manifest, []).extend(name for name in names if name not in found.get(manifest, []))
    if not found:
        raise ArchiveError("image archive", "its index.json lists no image")
    yield from found.items()


def _named(descriptors: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """Descriptors that share a name (one for each platform) together; those without a name one by one."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for descriptor in descriptors:
        notes = descriptor.get("annotations") or {}
        name = _usable(str(notes.get(media.CONTAINERD_NAME) or "")) or _usable(str(notes.get(media.REF_NAME) or ""))
        if name:
            groups.setdefault(name, []).append(descriptor)
        else:
            yield [descriptor], []
    for name, group in groups.items():
        yield group, [name]


def _usable(name: str) -> str:
    """`name` if it can name an image here. A bare "latest" is a tag whose repository was not written (buildx)."""
    try:
        refs.normalise(name)
    except UsageError:
        return ""
    return "" if name == refs.DEFAULT_TAG else name


def _choose(members: Members, descriptors: Sequence[dict[str, Any]], limits: Limits) -> str:
    """The digest of the manifest to use, going through nested indexes."""
    for _ in range(4):
        descriptor = pick_platform(descriptors)
        digest = str(descriptor["digest"])
        if digest not in members.ingest.sizes:
            raise ArchiveError("image archive", f"blob {digest} is missing or damaged")
        if descriptor.get("size") not in (None, members.ingest.sizes[digest]):
            raise ArchiveError(f"blob {digest}", "it has another size than its descriptor says")
        if descriptor.get("mediaType") not in media.INDEXES:
            return digest
        descriptors = parse_index(members.ingest.read(digest, limits), f"index {digest}")
    raise ArchiveError("image archive", "its indexes are nested more than 4 deep")


def pick_platform(descriptors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The descriptor for this machine: same OS and architecture, the host's variant first; a single one is taken as it
    is.

    Raises ArchiveError that lists the platforms there are.
    """
    real = [item for item in descriptors if _platform(item) != ("unknown", "unknown", "")]  # buildx's attestations
    if len(real) == 1:
        return real[0]
    system, architecture, variant = media.host_platform()
    fitting = [item for item in real if _platform(item)[:2] == (system, architecture)]
    if not fitting:
        listed = ", ".join(sorted({"/".join(filter(None, _platform(item))) or "none given" for item in real})) or "none"
        raise PyrunError("image index", f"no image for {system}/{architecture}; it has: {listed}")
    return min(fitting, key=lambda item: _platform(item)[2] != variant)


def _platform(descriptor: dict[str, Any]) -> tuple[str, str, str]:
    found = descriptor.get("platform") or {}
    return str(found.get("os", "")), str(found.get("architecture", "")), str(found.get("variant", ""))
