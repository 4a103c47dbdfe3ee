# SPDX-License-Identifier: Apache-2.0
"""Removing what no image needs any more: blobs and unpacked layers. Safe to be killed at any point.

The file images/garbage says that there may be something to remove; it is written before an image leaves the index and
goes last. An ingest directory without a living owner says the same. Layers are removed only while nobody holds them
(layers.hold).
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

from . import keeping
from .inroot import remove_path
from .layout import Layout, ingests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .layers import Layers

    Used = Callable[[dict[str, Any]], tuple[Iterable[str], Iterable[str]]]


def needed(layout: Layout, layers: Layers) -> bool:
    """Whether some process left something behind. The layout's lock is held."""
    return (
        os.path.exists(f"{layout.path}/garbage")
        or layers.has_garbage()
        or any(not alive for _, alive in ingests(layout))
    )


class Pruned(Record):
    """What a removal took away: docker's `Deleted: …` lines, and the bytes of blobs and unpacked layers."""

    lines: tuple[str, ...] = ()
    bytes: int = 0


def collect(layout: Layout, layers: Layers, used: Used, *, layers_locked: bool) -> tuple[list[str], int]:
    """Removes blobs and layers that no image in the index, nothing kept and no living ingest needs.

    Returns the layers' chain ids and the bytes that all of it took. The layout's lock is held; `layers_locked`: so is
    the layers', else it is taken if it is free right now. A manifest that cannot be read might need anything, so then
    nothing is removed.
    """
    blobs: set[str] = set()
    chains: set[str] = set()
    for descriptor in layout.index():
        try:
            used_blobs, used_chains = used(descriptor)
        except PyrunError:
            return [], 0
        blobs.update(used_blobs)
        chains.update(used_chains)
    for keep in keeping.every(layout):
        blobs.update(keep.blobs)
        chains.update(keep.layers)
    for path, alive in list(ingests(layout)):
        if alive:
            chains.update(_noted(path))
        else:
            layout.mark_garbage()
            remove_path(path)
    freed = _remove_blobs(layout, blobs)
    if layers_locked:
        gone, size, complete = _remove_layers(layers, chains)
    else:
        try:
            with layers.lock(blocking=False):
                gone, size, complete = _remove_layers(layers, chains)
        except BlockingIOError:
            return [], freed  # a container is being created: the mark stays for the next one who changes something
    if complete:
        try:
            os.unlink(f"{layout.path}/garbage")
        except FileNotFoundError:
            pass
    return gone, freed + size


def _remove_layers(layers: Layers, wanted: set[str]) -> tuple[list[str], int, bool]:
    sizes = {chain_id: layers.size(chain_id) or 0 for chain_id in layers.list() if chain_id not in wanted}
    gone, complete = layers.remove_except(wanted)
    return gone, sum(sizes.get(chain_id, 0) for chain_id in gone), complete


def _noted(path: str) -> list[str]:
    """The chain ids that an image on its way needs."""
    try:
        with open(f"{path}/layers") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def _remove_blobs(layout: Layout, wanted: set[str]) -> int:
    freed = 0
    try:
        names = os.listdir(f"{layout.path}/blobs/sha256")
    except FileNotFoundError:
        return 0
    for name in names:
        if "sha256:" + name not in wanted:
            with step("rootfs", f"rm blob {name[:12]}"):
                freed += os.stat(f"{layout.path}/blobs/sha256/{name}", follow_symlinks=False).st_size
                os.unlink(f"{layout.path}/blobs/sha256/{name}")
    return freed
