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

from .inroot import remove_path
from .layout import Layout, ingests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .layers import Layers

    Used = Callable[[dict[str, Any]], tuple[Iterable[str], Iterable[str]]]


def needed(layout: Layout) -> bool:
    """Whether some process left something behind. The layout's lock is held."""
    return os.path.exists(f"{layout.path}/garbage") or any(not alive for _, alive in ingests(layout))


def collect(layout: Layout, layers: Layers, used: Used, *, layers_locked: bool) -> list[str]:
    """Removes blobs and layers that no image in the index and no living ingest needs; returns the layers' chain ids.

    The layout's lock is held; `layers_locked`: so is the layers', else it is taken if it is free right now. A manifest
    that cannot be read might need anything, so then nothing is removed.
    """
    blobs: set[str] = set()
    chains: set[str] = set()
    for descriptor in layout.index():
        try:
            used_blobs, used_chains = used(descriptor)
        except PyrunError:
            return []
        blobs.update(used_blobs)
        chains.update(used_chains)
    for path, alive in list(ingests(layout)):
        if alive:
            chains.update(_noted(path))
        else:
            layout.mark_garbage()
            remove_path(path)
    _remove_blobs(layout, blobs)
    if layers_locked:
        gone = layers.remove_except(chains)
    else:
        try:
            with layers.lock(blocking=False):
                gone = layers.remove_except(chains)
        except BlockingIOError:
            return []  # a container is being created: the mark stays for the next one who changes something
    try:
        os.unlink(f"{layout.path}/garbage")
    except FileNotFoundError:
        pass
    return gone


def _noted(path: str) -> list[str]:
    """The chain ids that an image on its way needs."""
    try:
        with open(f"{path}/layers") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def _remove_blobs(layout: Layout, wanted: set[str]) -> None:
    try:
        names = os.listdir(f"{layout.path}/blobs/sha256")
    except FileNotFoundError:
        return
    for name in names:
        if "sha256:" + name not in wanted:
            with step("rootfs", f"rm blob {name[:12]}"):
                os.unlink(f"{layout.path}/blobs/sha256/{name}")
