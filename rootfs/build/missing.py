# SPDX-License-Identifier: Apache-2.0
"""The error for a source that is not there: what was asked, where, and what may have been meant."""

from __future__ import annotations

import os

from pyrun.runtime.errors import NotFound

from .nearest import MOST_EDITS, distance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .source import Tree


def missing(tree: Tree, text: str) -> NotFound:
    """NotFound for the source `text`, with the reason that can be found out as its hint."""
    return NotFound(f"copy '{text}'", f"no such file or directory in {tree.name}", hint=_hint(tree, text))


def _hint(tree: Tree, text: str) -> str:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts and tree.context:
        return "nothing outside the build context can be copied: build from a directory above it, with -f"
    path = "/".join(parts)
    for asked, words in ((path, "it is"), (_target(tree, parts), "what it leads to is")):
        rule = tree.ignore.decided_by(asked) if tree.ignore is not None and asked else None
        if rule is not None:
            return f"{words} excluded by line {rule.line} of {tree.ignore_name}: {rule.pattern}"
    return nearest_in(tree, parts)


def _target(tree: Tree, parts: list[str]) -> str:
    """Where a symlink leads, inside the tree."""
    try:
        return os.fsdecode(b"/".join(tree.stack.resolve(tuple(os.fsencode(part) for part in parts))))
    except OSError:
        return ""


def nearest_in(tree: Tree, parts: list[str]) -> str:
    """ "did you mean …?", for the first component of a path that is not there, or ""."""
    for depth in range(len(parts)):
        above = tuple(os.fsencode(part) for part in parts[:depth])
        try:
            with tree.open(tree.stack.resolve(above)) as directory:
                names = directory.children()
        except OSError:
            return ""
        wanted = parts[depth]
        if wanted not in names:
            close = sorted((distance(wanted.lower(), name.lower()), name) for name in names if near(wanted, name))
            return f"did you mean {'/'.join([*parts[:depth], close[0][1], *parts[depth + 1 :]])}?" if close else ""
    return ""


def near(wanted: str, name: str) -> bool:
    """Whether one may have been written for the other: at most two letters differ, and not all of a short name."""
    most = min(MOST_EDITS, len(wanted) // 2)
    return abs(len(wanted) - len(name)) <= most and distance(wanted.lower(), name.lower()) <= most
