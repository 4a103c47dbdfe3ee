# SPDX-License-Identifier: Apache-2.0
"""Where an image was pulled from or pushed to, written down in the store's index as name@digest."""

from __future__ import annotations

from pyrun.rootfs import media, refs
from pyrun.runtime.events import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrun.rootfs.image import Image
    from pyrun.rootfs.store import ImageStore

MAX_KNOWN = 32  # repo digests of one descriptor: the newest stay


def repo_digest(reference: refs.Reference, digest: str) -> str:
    """docker.io/library/busybox@sha256:…"""
    return f"{reference.repository}@{digest}"


def note(store: ImageStore, manifest_digest: str, text: str) -> None:
    """Adds a repo digest to the image with this manifest; nothing happens if that has gone. Raises OSError."""
    with store.layout.lock(), step("rootfs", f"note {text}"):
        descriptors = store.layout.index()
        changed = False
        for item in descriptors:
            if item["digest"] == manifest_digest:
                notes = dict(item.get("annotations") or {})
                known = notes.get(media.REPO_DIGESTS, "").split()
                if text not in known:
                    notes[media.REPO_DIGESTS] = " ".join([*known, text][-MAX_KNOWN:])
                    item["annotations"] = notes
                    changed = True
        if changed:
            store.layout.write_index(descriptors)


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
