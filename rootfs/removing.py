# SPDX-License-Identifier: Apache-2.0
"""What `rmi`, `image prune` and `builder prune` take out of the store; see ImageStore's methods of these names.

Each holds both locks from the first look to the last removal: nobody begins to use a layer, or adds an image that needs
one, while it is decided what nobody needs.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import step

from . import keeping, media, naming, refs
from .collect import Pruned
from .disk import writing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .image import Image
    from .layout import Descriptor, Descriptors
    from .store import ImageStore


def remove(store: ImageStore, text: str, force: bool, in_use: Callable[[str], list[str]]) -> list[str]:
    """ImageStore.remove()"""
    what = f"remove image {text}"
    with writing(what), store.layers.lock(blocking=True), store.layout.lock(), step("rootfs", what):
        store.recover()
        descriptors = store.layout.index()
        group = store.find(text, descriptors)
        image_id = store.config_digest(group[0])
        users = in_use(image_id)
        doomed = _named(text, group)
        last = len(doomed) == len(group)
        naming.check_removal(text, image_id, group, doomed, users, force)
        lines = [f"Untagged: {refs.familiar(naming.name_of(item))}" for item in doomed if naming.name_of(item)]
        left = [item for item in descriptors if not any(item is gone for gone in doomed)]
        if last and users:
            left.append(naming.nameless(group[0]))
        store.layout.mark_garbage()
        store.layout.write_index(left)
        if last and not users:
            lines.append(f"Deleted: {image_id}")
        gone, _ = store.collect(layers_locked=True)
        return lines + [f"Deleted: {chain_id}" for chain_id in gone]


def _named(text: str, group: Descriptors) -> Descriptors:
    """The descriptors that removing `text` removes: the named one, or all of them for an id."""
    named = None
    if not (text.startswith("sha256:") or refs.is_hex_id(text)):
        named = naming.by_name(text, group, strict=False)
    return [named] if named is not None else group


def prune(
    store: ImageStore, everything: bool, keep: Callable[[Image], bool], in_use: Callable[[str], Collection[str]]
) -> Pruned:
    """ImageStore.prune()"""
    what = "prune images"
    with writing(what), store.layers.lock(blocking=True), store.layout.lock(), step("rootfs", what):
        store.layout.create()
        store.recover()
        descriptors = store.layout.index()
        doomed: list[Image] = []
        for group in store.groups(descriptors).values():
            try:
                image = store.image_of(group)
            except PyrunError:
                continue  # its manifest or config is damaged: nobody can say that it is not needed
            if (everything or not image.names) and not keep(image) and not in_use(image.id):
                doomed.append(image)
        lines: list[str] = []
        for image in doomed:
            lines += [f"Untagged: {name}" for name in image.names] + [f"Deleted: {image.id}"]
        ids = {image.id for image in doomed}
        if ids:
            store.layout.mark_garbage()
            store.layout.write_index([item for item in descriptors if not _is_of(store, item, ids)])
        gone, freed = store.collect(layers_locked=True)
        freed += store.layout.remove_partial()
    return Pruned((*lines, *(f"Deleted: {chain_id}" for chain_id in gone)), freed)


def _is_of(store: ImageStore, descriptor: Descriptor, ids: set[str]) -> bool:
    """Whether a descriptor stands for one of these images."""
    try:
        return descriptor.get("mediaType") not in media.INDEXES and store.config_digest(descriptor) in ids
    except PyrunError:
        return False


def drop_kept(store: ImageStore, names: Iterable[str]) -> Pruned:
    """ImageStore.drop_kept()"""
    what = "drop build cache"
    with writing(what), store.layers.lock(blocking=True), store.layout.lock(), step("rootfs", what):
        store.layout.create()
        store.layout.mark_garbage()
        for name in names:
            try:
                os.unlink(keeping.path_of(store.layout, name))
            except FileNotFoundError:
                continue
        gone, freed = store.collect(layers_locked=True)
    return Pruned(tuple(f"Deleted: {chain_id}" for chain_id in gone), freed)
