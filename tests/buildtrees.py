# SPDX-License-Identifier: Apache-2.0
"""Small trees for tests of COPY and ADD: written from a dictionary, copied by a plan, shown as text."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrun.rootfs.build import copy
from pyrun.rootfs.build.copy import CopyPlan, CopyRequest
from pyrun.rootfs.build.ignore import Ignore
from pyrun.rootfs.build.source import Tree
from pyrun.rootfs.layered import Stack

Content = str | bytes | None | tuple[str, Any]


def make(root: Path, files: Mapping[str, Content]) -> Path:
    """Path -> content: None is a directory; ("link", target), ("hard", path), ("fifo", …), ("device", (major, minor)).

    A path may be given as "name mode" with an octal mode.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        name, mode = _mode(name)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, tuple):
            kind, value = content
            if kind == "link":
                path.symlink_to(value)
            elif kind == "hard":
                path.hardlink_to(root / value)
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "device":
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*value))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if mode:
            path.chmod(int(mode, 8))
    return root


def _mode(name: str) -> tuple[str, str]:
    """ "name 755" in its parts; other blanks belong to the name."""
    path, _, mode = name.rpartition(" ")
    return (path, mode) if path and len(mode) > 2 and set(mode) <= set("01234567") else (name, "")


def show(stack: Stack) -> dict[str, str]:
    """Path -> "mode owner content" of everything in a stack; a plain 0644 or 0755 of 0:0 is not said."""
    found: dict[str, str] = {}
    for entry, own in stack.walk(()):
        if not own:
            continue
        text = {"dir": "/", "symlink": f"-> {os.fsdecode(entry.link)}", "hardlink": f"= {os.fsdecode(entry.link)}"}.get(
            entry.kind, entry.kind
        )
        if entry.kind == "file":
            text = b"".join(stack.data(own)).decode(errors="backslashreplace")
        plain = {"dir": 0o755, "symlink": 0o777, "fifo": 0o644}.get(entry.kind, 0o644)
        marks = f"{entry.mode:o} " if entry.mode != plain else ""
        marks += f"{entry.uid}:{entry.gid} " if (entry.uid, entry.gid) != (0, 0) else ""
        found[os.fsdecode(b"/".join(own))] = marks + text
    return found


class Build:
    """A context, an image of one layer, and what COPY adds to it."""

    def __init__(self, base: Path, context: Mapping[str, Content], image: Mapping[str, Content] | None = None) -> None:
        os.umask(0o022)
        self.base = base
        self.context = make(base / "context", context)
        self.lower = make(base / "lower", image or {})
        self.outside = make(base / "outside", {"precious": "untouched"})
        self.count = 0
        self.fs = base / "fs"

    def tree(self, ignore: str = "") -> Tree:
        return Tree.directory(str(self.context), ignore=Ignore.parse(ignore) if ignore else None)

    def plan(self, tree: Tree, *sources: str, to: str = "/", **fields: Any) -> CopyPlan:
        with Stack([str(self.lower)]) as target:
            return copy.plan(tree, CopyRequest(sources, to, **fields), target)

    def copy(
        self, *sources: str, to: str = "/", ignore: str = "", tree: Tree | None = None, **fields: Any
    ) -> dict[str, str]:
        """What is new in the image, or different."""
        self.count += 1
        self.fs = self.base / f"fs{self.count}"
        self.fs.mkdir()
        with tree or self.tree(ignore) as opened:
            plan = self.plan(opened, *sources, to=to, **fields)
            before = plan.digest()
            copy.apply(plan, str(self.fs), [str(self.lower)])
            assert plan.digest() == before, "nothing changed meanwhile"
        with Stack([str(self.lower)]) as below, Stack([str(self.fs), str(self.lower)]) as merged:
            old, new = show(below), show(merged)
        assert set(old) <= set(new), "COPY removes nothing"
        return {path: text for path, text in new.items() if old.get(path) != text}

    def digest(self, *sources: str, to: str = "/x/", ignore: str = "", **fields: Any) -> str:
        with self.tree(ignore) as tree:
            return self.plan(tree, *sources, to=to, **fields).digest()
