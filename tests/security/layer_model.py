# SPDX-License-Identifier: Apache-2.0
"""A layer in memory: what a sequence of archive entries makes, by the rules and without any system call.

The rules are those of rootfs/unpack.py and tree.py, written down a second time, slowly: parents are resolved inside the
root, the later of two entries wins, a directory stays one and is merged, whiteouts are the OCI image spec's.
"""

from __future__ import annotations

from typing import Any

Path = tuple[bytes, ...]
OWN_FIELDS = {"file": ("content",), "symlink": ("target",), "char": ("device",), "block": ("device",)}


class Refused(Exception):
    """The entry cannot be made; the unpacker must raise an error that names it."""


class Missing(Exception):
    """ENOENT or ENOTDIR on the way to a parent directory."""


class Node:
    """One inode. `children` of a directory, `content` of a file, `target` of a symlink, `device` of a node."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self.kind = kind
        self.children: dict[bytes, Node] = {}
        self.content: bytes = fields.get("content", b"")
        self.target: bytes = fields.get("target", b"")
        self.device: tuple[int, int] = fields.get("device", (0, 0))
        self.meta: tuple[int, int, int, int] | None = fields.get("meta")  # mode, uid, gid, mtime
        self.xattrs: dict[str, bytes] = dict(fields.get("xattrs", {}))

    @property
    def is_whiteout(self) -> bool:
        return self.kind == "char" and self.device == (0, 0)


def split(name: bytes) -> Path:
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise Refused("..")
    return parts


class Layer:
    """The tree so far. add() takes one entry after the other; finish() gives directories their metadata."""

    def __init__(self) -> None:
        self.root = Node("dir")
        self.directories: dict[Path, tuple[tuple[int, int, int, int], dict[str, bytes]]] = {(): ((0o755, 0, 0, 0), {})}

    # Finding ----------------------------------------------------------------------------------------------------

    def walk(self, path: Path, *, follow: bool = True) -> Node:
        """path_resolution(7) with openat2(2)'s RESOLVE_IN_ROOT."""
        todo = list(reversed(path))
        stack = [self.root]
        links = 0
        while todo:
            part = todo.pop()
            if stack[-1].kind != "dir":
                raise Missing
            if part in (b"", b"."):
                continue
            if part == b"..":
                stack = stack[:-1] or [self.root]
                continue
            if len(part) > 255:
                raise Refused("too long")
            node = stack[-1].children.get(part)
            if node is None:
                raise Missing
            if node.kind == "symlink" and (todo or follow):
                links += 1
                if links > 40:
                    raise Refused("loop")
                if node.target.startswith(b"/"):
                    stack = [self.root]
                todo += reversed(node.target.split(b"/"))
                # "x/" as a target means a directory, as does anything that goes on
            else:
                stack.append(node)
        return stack[-1]

    def directory(self, path: Path) -> Node:
        node = self.walk(path)
        if node.kind != "dir":
            raise Missing
        return node

    def parent(self, path: Path) -> Node:
        """The directory at `path`, made with its parents if it is missing."""
        try:
            return self.directory(path)
        except Missing:
            pass
        node = self.root
        for depth in range(1, len(path) + 1):
            try:
                node = self.directory(path[:depth])
            except Missing:
                self.make_parent(node, path[:depth])
                try:
                    node = self.directory(path[:depth])
                except Missing:
                    raise Refused("no directory") from None
        return node

    def make_parent(self, parent: Node, path: Path) -> None:
        old = parent.children.get(path[-1])
        if old is not None and not old.is_whiteout:
            return
        parent.children[path[-1]] = made = Node("dir")
        if old is not None:
            made.xattrs["trusted.overlay.opaque"] = b"y"
        self.directories.setdefault(path, ((0o755, 0, 0, 0), {}))

    # Making -----------------------------------------------------------------------------------------------------

    def add(self, name: bytes, kind: str, **fields: Any) -> None:
        path = split(name)
        if kind in ("symlink", "hardlink") and not fields["target"]:
            raise Refused("a link without a target")
        last = path[-1] if path else b""
        if path and path[0].startswith(b".wh..wh.") and last != b".wh..wh..opq":
            return
        if any(part.startswith(b".wh.") for part in path[:-1]):
            raise Refused("below a whiteout")
        if last == b".wh..wh..opq":
            self.parent(path[:-1]).xattrs["trusted.overlay.opaque"] = b"y"
        elif last.startswith(b".wh."):
            self.whiteout(path, last[4:])
        elif not path:
            if kind != "dir":
                raise Refused("root")
            self.directories[()] = (fields["meta"], wanted(kind, fields))
        else:
            self.make(path, kind, fields)

    def whiteout(self, path: Path, hidden: bytes) -> None:
        if hidden in (b"", b".", b".."):
            raise Refused("a whiteout of nothing")
        parent = self.parent(path[:-1])
        old = parent.children.get(hidden)
        if old is None:
            parent.children[hidden] = Node("char", device=(0, 0))
        elif old.kind == "dir":
            old.xattrs["trusted.overlay.opaque"] = b"y"

    def make(self, path: Path, kind: str, fields: dict[str, Any]) -> None:
        parent = self.parent(path[:-1])
        if len(path[-1]) > 255:
            raise Refused("too long")
        old = parent.children.get(path[-1])
        if kind == "hardlink":
            self.hardlink(path, parent, old, fields["target"])
        elif kind == "dir":
            attributes = wanted(kind, fields)
            if old is None or old.kind != "dir":
                made = Node("dir")
                if old is not None and old.is_whiteout:
                    made.xattrs["trusted.overlay.opaque"] = b"y"
                parent.children[path[-1]] = made
            self.directories[path] = (fields["meta"], attributes)
        else:
            if old is not None:
                remove(parent, path[-1])
            made = Node(kind, **{key: fields[key] for key in ("meta", *OWN_FIELDS.get(kind, ()))})
            made.xattrs = wanted(kind, fields)
            parent.children[path[-1]] = made

    def hardlink(self, path: Path, parent: Node, old: Node | None, link: bytes) -> None:
        target = split(link)
        if not target:
            raise Refused("the root")
        if target == path:
            if old is None:
                raise Refused("no target")
            return
        try:
            source = self.directory(target[:-1])
        except Missing:
            raise Refused("no target") from None
        found = source.children.get(target[-1])
        if found is None or found.kind == "dir":
            raise Refused("no target")
        if old is found:
            return
        if old is not None:
            remove(parent, path[-1])
            if target[-1] not in source.children:
                raise Refused("the target was removed")
        parent.children[path[-1]] = found

    def finish(self) -> None:
        for path, (meta, attributes) in self.directories.items():
            try:
                node = self.walk(path, follow=False)
            except (Missing, Refused):
                continue
            if node.kind == "dir":
                node.meta = meta
                node.xattrs |= attributes

    def nodes(self) -> dict[bytes, Node]:
        """Every node by its path."""
        found = {b".": self.root}
        todo = [(b"", self.root)]
        while todo:
            prefix, directory = todo.pop()
            for name, node in directory.children.items():
                found[prefix + name] = node
                if node.kind == "dir":
                    todo.append((prefix + name + b"/", node))
        return found


def remove(parent: Node, name: bytes) -> None:
    """rm -r"""
    node = parent.children.pop(name)
    for child in list(node.children):
        remove(node, child)


def wanted(kind: str, fields: dict[str, Any]) -> dict[str, bytes]:
    """The attributes that are set; some must not be there at all (xattrs.RULES)."""
    found = {}
    for name, value in fields.get("xattrs", {}).items():
        if name.startswith(("trusted.", "user.overlay.")):
            raise Refused("belongs to overlayfs")
        if name.startswith("user.") and kind == "symlink":
            continue
        if name.startswith("user."):
            if kind not in ("file", "dir"):
                raise Refused("no user attributes on these, xattr(7)")
            found[name] = value
        elif name == "security.capability":
            found[name] = value
    return found
