# SPDX-License-Identifier: Apache-2.0
"""export(): all files of a container as one tar, as it sees them, but for what is mounted."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrun.rootfs.entry import Entry
    from pyrun.rootfs.layered import Stack
    from pyrun.runtime.paths import Paths

SECOND = 10**9


def export(paths: Paths, container_id: str) -> Iterator[bytes]:
    """The tar's bytes: the layers and what the container, running or stopped, wrote over them, names sorted.

    Volumes and other mounts are empty in it. Raises NotFound before the first byte, OSError.
    """
    from pyrun.rootfs import tarwrite
    from pyrun.rootfs.layered import Stack
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.written import written

    images = ImageStore(paths)
    with images.hold():
        found = written(paths, container_id, images)
        with Stack([found.upper, *reversed(found.lowers)]) as stack:
            yield from tarwrite.tar(_entries(stack))


def _entries(stack: Stack) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    from pyrun.rootfs.entry import FILE

    for entry, own in stack.walk(()):
        entry.mtime_ns -= entry.mtime_ns % SECOND  # as docker's: else each entry takes three blocks
        yield entry, stack.data(own) if entry.kind is FILE else iter(())
