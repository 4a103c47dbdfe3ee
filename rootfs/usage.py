# SPDX-License-Identifier: Apache-2.0
"""How much of the disk the store takes, and giving back what nobody uses: for `system df` and the `prune` commands."""

from __future__ import annotations

import os

from pyrun.runtime.record import Record

from . import keeping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .image import Image
    from .store import ImageStore


class ImageUsage(Record):
    """Unpacked bytes of an image: all, those of layers that other images have too, those that it alone has."""

    image: Image
    size: int
    shared: int
    unique: int


class KeepUsage(Record):
    """Something kept, and the bytes of its layers and blobs; `shared`: of these, what an image or another keep has."""

    keep: keeping.Keep
    size: int
    shared: int


class StoreUsage(Record):
    """What the store takes, in bytes. Every layer and blob is counted once in a total.

    images      newest first           images_size   unpacked layers of all images
    kept        the build cache        kept_size     unpacked layers and blobs that only it needs
    blobs_size  all blobs: the layout  partial_size  downloads that were not finished
    """

    images: tuple[ImageUsage, ...]
    images_size: int
    kept: tuple[KeepUsage, ...]
    kept_size: int
    blobs_size: int
    partial_size: int


def usage(store: ImageStore) -> StoreUsage:
    """Adds it all up. Takes no lock: what comes or goes meanwhile may be counted or not."""
    images = store.list()
    kept = list(keeping.every(store.layout))
    sizes = {chain_id: store.layers.size(chain_id) or 0 for chain_id in store.layers.list()}
    blobs = _files(f"{store.layout.path}/blobs/sha256")
    by_image = _count(image.chain_ids for image in images)
    image_blobs = {d for i in images for d in (i.digest, i.id, *(layer.digest for layer in i.layers))}
    by_keep = _count(keep.layers for keep in kept)
    blobs_by_keep = _count(keep.blobs for keep in kept)

    def of_image(image: Image) -> ImageUsage:
        shared = sum(sizes.get(chain, 0) for chain in image.chain_ids if by_image[chain] > 1)
        size = sum(sizes.get(chain, 0) for chain in image.chain_ids)
        return ImageUsage(image, size, shared, size - shared)

    def of_keep(keep: keeping.Keep) -> KeepUsage:
        layers = {chain: chain in by_image or by_keep[chain] > 1 for chain in keep.layers}
        files = {digest: digest in image_blobs or blobs_by_keep[digest] > 1 for digest in keep.blobs}
        size = sum(sizes.get(chain, 0) for chain in layers) + sum(blobs.get(digest, 0) for digest in files)
        shared = sum(sizes.get(chain, 0) for chain, other in layers.items() if other)
        return KeepUsage(keep, size, shared + sum(blobs.get(digest, 0) for digest, other in files.items() if other))

    return StoreUsage(
        images=tuple(map(of_image, images)),
        images_size=sum(sizes.get(chain, 0) for chain in by_image),
        kept=tuple(map(of_keep, kept)),
        kept_size=sum(sizes.get(chain, 0) for chain in by_keep if chain not in by_image)
        + sum(blobs.get(digest, 0) for digest in blobs_by_keep if digest not in image_blobs),
        blobs_size=sum(blobs.values()),
        partial_size=sum(_files(f"{store.layout.path}/partial").values()),
    )


def _count(groups: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """How many groups have each item."""
    found: dict[str, int] = {}
    for group in groups:
        for item in set(group):
            found[item] = found.get(item, 0) + 1
    return found


def _files(directory: str) -> dict[str, int]:
    """The sizes of the blobs in a directory, by digest."""
    found = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found["sha256:" + entry.name] = entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        pass
    return found
