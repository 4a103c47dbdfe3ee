# SPDX-License-Identifier: Apache-2.0
"""What is kept without being an image: layers and blobs that the build cache may use again.

    images/keep/<name>.json      {"layers": [chain ids], "blobs": [digests], "data": whatever the owner wants to know}

One file each, replaced in one step; its modification time is when it was last used. As long as it is there, the
collector leaves those layers and blobs alone. It is a cache: a file that cannot be read counts as none.
"""

from __future__ import annotations

import os

from pyrun.runtime import files
from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .layout import Layout

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
MAX_NAME = 200


class Keep(Record):
    """One kept thing: layers (chain ids), blobs (digests), its owner's data; used_at in Unix seconds."""

    name: str
    layers: tuple[str, ...]
    blobs: tuple[str, ...]
    data: Mapping[str, Any]
    used_at: float


def path_of(layout: Layout, name: str) -> str:
    """The file of a name. Raises UsageError for one that is no plain file name."""
    if not name or name[0] in ".-" or len(name) > MAX_NAME or not _NAME.issuperset(name):
        raise UsageError(f"invalid name '{name[:MAX_NAME]}' for something kept")
    return f"{layout.path}/keep/{name}.json"


def names(layout: Layout, prefix: str = "") -> list[str]:
    """The names that begin with `prefix`, sorted."""
    try:
        found = os.listdir(f"{layout.path}/keep")
    except FileNotFoundError:
        return []
    return sorted(name[:-5] for name in found if name.endswith(".json") and name.startswith(prefix))


def read(layout: Layout, name: str) -> Keep | None:
    """What is kept under `name`; None for nothing, and for a file that cannot be read."""
    path = path_of(layout, name)
    try:
        found = files.read_json(path)
        used_at = os.stat(path).st_mtime
        layers, blobs, data = found["layers"], found["blobs"], found["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not (isinstance(data, dict) and all(isinstance(item, list) for item in (layers, blobs))):
        return None
    return Keep(name, tuple(map(str, layers)), tuple(map(str, blobs)), data, used_at)


def every(layout: Layout, prefix: str = "") -> Iterator[Keep]:
    """All that is kept under names that begin with `prefix`."""
    for name in names(layout, prefix):
        found = read(layout, name)
        if found is not None:
            yield found


def write(layout: Layout, keep: Keep) -> None:
    """Writes it down, not synced: half a file after a power failure is no file.

    The caller holds the layout's lock, and what it names is in the store.
    """
    path = path_of(layout, keep.name)
    files.private_dir(os.path.dirname(path))
    value = {"layers": list(keep.layers), "blobs": list(keep.blobs), "data": dict(keep.data)}
    files.write_json(path, value, sync=False)
