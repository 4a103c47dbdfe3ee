# SPDX-License-Identifier: Apache-2.0
"""What a container wrote: its upper directory over its image's layers, without what only its mounts needed.

Read on the host, running or stopped: a running container's writes are in that directory at once, since the kernel's
overlayfs uses the very same files.
"""

from __future__ import annotations

import os

from pyrun.runtime import files
from pyrun.runtime.engine import containers as c
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrun.rootfs.changeset import Change
    from pyrun.rootfs.image import Image
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.paths import Paths


class Written(Record):
    """`lowers` are the image's layers, lowest first; `stubs` the mount points, as they are called in the tree."""

    container: c.Container
    image: Image
    upper: str
    lowers: tuple[str, ...]
    stubs: frozenset[tuple[bytes, ...]]


def written(paths: Paths, container_id: str, images: ImageStore) -> Written:
    """Everything needed to read a container's files. Call it inside images.hold(). Raises NotFound, PyrunError."""
    container = c.ContainerStore(paths).load(container_id)
    image = images.resolve(container.image_id)
    lowers = images.unpacked(image)
    upper = f"{paths.container(container_id)}/upper"
    return Written(container, image, upper, lowers, stubs(paths, container, upper, lowers))


def stubs(paths: Paths, container: c.Container, upper: str, lowers: tuple[str, ...]) -> frozenset[tuple[bytes, ...]]:
    """Where something is mounted: an empty file or directory there was made for the mount, and what else it holds is
    below the mount."""
    from pyrun.rootfs.archive import components
    from pyrun.rootfs.layered import Stack

    found = set()
    with Stack([upper, *reversed(lowers)]) as stack:
        for target in targets(paths, container):
            try:
                found.add(stack.resolve(components(target)))
            except OSError:
                continue  # a loop of links: nothing was mounted there
    return frozenset(found - {()})


def targets(paths: Paths, container: c.Container) -> list[str]:
    """The mounts of config.json, which a container has from its first start on, and the user's own."""
    found = [mount.target for mount in container.mounts]
    try:
        config = files.read_json(f"{paths.container(container.id)}/config.json")
        found += [os.path.normpath(mount["destination"]) for mount in config["mounts"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # never started, so nothing was made for a mount
    return found


def diff(paths: Paths, container_id: str) -> Iterator[Change]:
    """The lines of `diff`: what the container added, changed and deleted, sorted by path. Raises NotFound, OSError."""
    from pyrun.rootfs import changeset
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(paths)
    with images.hold():
        found = written(paths, container_id, images)
        yield from changeset.changes(found.upper, found.lowers, ignore=found.stubs)
