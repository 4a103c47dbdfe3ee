# SPDX-License-Identifier: Apache-2.0
"""What takes how much of the disk, and how much of it nothing needs: `system df`."""

from __future__ import annotations

import os

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrun.rootfs.image import Image
    from pyrun.rootfs.keeping import Keep
    from pyrun.rootfs.store import ImageStore
    from pyrun.rootfs.usage import StoreUsage
    from pyrun.rootfs.volumes import Volume
    from pyrun.runtime.engine.build.cache_mounts import CacheUse
    from pyrun.runtime.engine.containers import Container, State
    from pyrun.runtime.paths import Paths


class Sum(Record):
    """One line of `system df`: how many, how many of them are in use, bytes, and bytes that a prune would free."""

    kind: str
    count: int
    active: int
    size: int
    reclaimable: int


class ImageUse(Record):
    """An image: its unpacked bytes, those that it shares with others, and the containers made from it."""

    image: Image
    size: int
    shared: int
    unique: int
    containers: int


class ContainerUse(Record):
    """A container and the bytes that it wrote."""

    container: Container
    state: State
    size: int


class VolumeUse(Record):
    """A volume, its bytes, and the containers that have it."""

    volume: Volume
    size: int
    links: int


class KeepUse(Record):
    """A layer of the build cache: its bytes and its blob's, and whether an image, or another record, has them too."""

    keep: Keep
    size: int
    shared: bool


class DiskUsage(Record):
    """Everything; sums in docker's order."""

    sums: tuple[Sum, ...]
    images: tuple[ImageUse, ...]
    containers: tuple[ContainerUse, ...]
    volumes: tuple[VolumeUse, ...]
    kept: tuple[KeepUse, ...]
    cache_mounts: tuple[CacheUse, ...]


def disk_usage(paths: Paths) -> DiskUsage:
    """Adds it all up. What comes or goes meanwhile may be counted or not. Raises OSError."""
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.build import cache_mounts
    from pyrun.runtime.engine.containers import ContainerStore

    store = ImageStore(paths)
    found = store.usage()
    pairs = ContainerStore(paths).all()[0]
    by_image = _count(container.image_id for container, _ in pairs)
    containers = _containers(paths, pairs)
    volumes = _volumes(paths, pairs)
    mounts = tuple(cache_mounts.usage(paths))
    images = tuple(
        ImageUse(one.image, one.size, one.shared, one.unique, by_image.get(one.image.id, 0)) for one in found.images
    )
    kept = tuple(KeepUse(one.keep, own_size(store, one.keep), one.shared > 0) for one in found.kept)
    cached = found.kept_size + failed_size(paths)  # `builder prune -a` gives back all of it
    sums = (
        _image_sum(store, found, images),
        Sum(
            "Containers", len(containers), sum(one.state.running for one in containers),
            sum(one.size for one in containers), sum(one.size for one in containers if not one.state.running),
        ),
        Sum(
            "Local Volumes", len(volumes), sum(one.links > 0 for one in volumes),
            sum(one.size for one in volumes), sum(one.size for one in volumes if not one.links),
        ),
        Sum(
            "Build Cache", len(kept) + len(mounts), sum(mount.in_use for mount in mounts),
            cached + sum(mount.size for mount in mounts),
            cached + sum(mount.size for mount in mounts if not mount.in_use),
        ),
    )  # fmt: skip
    return DiskUsage(sums, images, containers, volumes, kept, mounts)


def failed_size(paths: Paths) -> int:
    """What failed steps left, to look around in it: bytes."""
    from pyrun.runtime.engine.build.cache_mounts import tree_size

    path = f"{paths.data}/build/failed"
    return tree_size(path) if os.path.isdir(path) and os.listdir(path) else 0


def own_size(store: ImageStore, keep: Keep) -> int:
    """What a cached step adds to those below it: its layer, unpacked and as a blob."""
    files = [store.find_blob(digest) for digest in keep.blobs]
    top = store.layers.size(keep.layers[-1]) if keep.layers and keep.blobs else 0  # a failed step has none of its own
    return (top or 0) + sum(os.stat(path).st_size for path in files if path is not None)


def _image_sum(store: ImageStore, found: StoreUsage, images: tuple[ImageUse, ...]) -> Sum:
    """Layers count twice: unpacked, and as the blobs they came as. Unfinished downloads belong to images too."""
    used = [one.image for one in images if one.containers]
    total = found.images_size + _blobs(one.image for one in images) + found.partial_size
    chains = {chain_id for image in used for chain_id in image.chain_ids}
    needed = sum(store.layers.size(chain_id) or 0 for chain_id in chains) + _blobs(used)
    return Sum("Images", len(images), len(used), total, max(total - needed, 0))


def _blobs(images: Iterable[Image]) -> int:
    return sum({layer.digest: layer.size for image in images for layer in image.layers}.values())


def _containers(paths: Paths, pairs: Iterable[tuple[Container, State]]) -> tuple[ContainerUse, ...]:
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.listing import disk_usage as size_of

    store = ContainerStore(paths)
    return tuple(
        ContainerUse(container, store.settle(container.id, state), size_of(f"{paths.container(container.id)}/upper"))
        for container, state in pairs
    )


def _volumes(paths: Paths, pairs: Iterable[tuple[Container, State]]) -> tuple[VolumeUse, ...]:
    from pyrun.rootfs.volumes import VolumeStore
    from pyrun.runtime.engine.listing import disk_usage as size_of

    links = _count(
        mount for container, _ in pairs for mount in {m.name for m in container.mounts if m.type == "volume"}
    )
    return tuple(
        VolumeUse(volume, size_of(volume.mountpoint), links.get(volume.name, 0)) for volume in VolumeStore(paths).list()
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found
