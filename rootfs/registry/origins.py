# SPDX-License-Identifier: Apache-2.0
"""What the store's index knows of an image and registries: name@digest, and what its plain layers became in a push."""

from __future__ import annotations

from pyrun.rootfs import media, refs
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyrun.rootfs.image import Image
    from pyrun.rootfs.store import ImageStore

MAX_KNOWN = 64  # words of each kind at one descriptor: the newest stay


class Packed(Record):
    """A plain layer, compressed: the blob's digest and its size in bytes."""

    compression: str
    digest: str
    size: int


def repo_digest(reference: refs.Reference, digest: str) -> str:
    """docker.io/library/busybox@sha256:…"""
    return f"{reference.repository}@{digest}"


def note(store: ImageStore, manifest_digest: str, text: str, packed: Mapping[str, Packed] | None = None) -> None:
    """Adds a repo digest to the image with this manifest, and what its plain layers became on the way there.

    Nothing happens if the image has gone. Raises OSError.
    """
    words = [
        f"{plain.removeprefix('sha256:')}:{made.compression}:{made.digest.removeprefix('sha256:')}:{made.size}"
        for plain, made in (packed or {}).items()
    ]
    with store.layout.lock(), step("rootfs", f"note {text}"):
        descriptors = store.layout.index()
        before = [dict(item) for item in descriptors]
        for item in descriptors:
            if item["digest"] == manifest_digest:
                notes = dict(item.get("annotations") or {})
                for key, found in ((media.REPO_DIGESTS, [text]), (media.PACKED, words)):
                    known = [word for word in str(notes.get(key, "")).split() if word not in found]
                    if known or found:
                        notes[key] = " ".join([*known, *found][-MAX_KNOWN:])
                item["annotations"] = notes
        if descriptors != before:
            store.layout.write_index(descriptors)


def packed_before(store: ImageStore, manifest_digest: str, compression: str) -> dict[str, Packed]:
    """What the image's plain layers became in earlier pushes: digest in the store -> blob in a registry."""
    found = {}
    for item in store.layout.index():
        if item["digest"] == manifest_digest:
            for word in str((item.get("annotations") or {}).get(media.PACKED, "")).split():
                plain, how, digits, size = (*word.split(":"), "", "", "")[:4]
                if how == compression and refs.is_hex_id(digits) and size.isascii() and size.isdecimal():
                    found[f"sha256:{plain}"] = Packed(how, f"sha256:{digits}", int(size))
    return found


def known_repositories(store: ImageStore, domain: str) -> dict[str, list[str]]:
    """Layer digest -> paths of repositories of this registry that have it, as far as the store knows."""
    found: dict[str, list[str]] = {}
    for image in store.list():
        paths = list(_paths(image, domain))
        for layer in image.layers if paths else ():
            known = found.setdefault(layer.digest, [])
            known += [path for path in paths if path not in known]
    return found


def _paths(image: Image, domain: str) -> Iterator[str]:
    for text in image.repo_digests:
        reference = refs.parse(text)
        if reference.domain == domain:
            yield reference.path
