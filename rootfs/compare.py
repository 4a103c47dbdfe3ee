# SPDX-License-Identifier: Apache-2.0
"""Two stacks of layers compared: what the second one adds, changes and deletes."""

from __future__ import annotations

from . import changeset
from .changeset import ADDED, CHANGED, REMOVED, Change
from .entry import DIR, HARDLINK
from .layered import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Looks = tuple[object, ...]


def changes(base: Sequence[str], layers: Sequence[str]) -> Iterator[Change]:
    """What `layers` show other than `base` (both lowest first), sorted by path; a deleted directory is one line.

    A file is taken as changed when its kind, owner, mode, size, time, link or attributes differ. Raises OSError,
    ArchiveError.
    """
    if layers and list(base) == list(layers[:-1]):
        yield from changeset.changes(layers[-1], base)
        return
    before, after = _tree(base), _tree(layers)
    found = {
        path: ADDED if path not in before else CHANGED for path, looks in after.items() if before.get(path) != looks
    }
    gone = [path for path in before if path not in after]
    found |= {path: REMOVED for path in gone if path.rpartition(b"/")[0] in after or b"/" not in path}
    for path in list(found):  # as docker's diff: what has changes inside is changed
        while path := path.rpartition(b"/")[0]:
            found.setdefault(path, CHANGED)
    for path in sorted(found):
        yield Change(found[path], path)


def _tree(layers: Sequence[str]) -> dict[bytes, Looks]:
    """path -> what the object there looks like; a directory's time is no part of it."""
    seen: dict[bytes, Looks] = {}
    with Stack(list(reversed(layers))) as stack:
        for entry, _ in stack.walk(()):
            if entry.kind is HARDLINK:
                seen[entry.path] = seen[entry.link]
            elif entry.parts:
                times = 0 if entry.kind is DIR else entry.mtime_ns
                extra = tuple(sorted((entry.xattrs or {}).items()))
                seen[entry.path] = (
                    entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link, entry.rdev, times, extra
                )  # fmt: skip
    return seen
