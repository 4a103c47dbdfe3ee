# SPDX-License-Identifier: Apache-2.0
"""COPY and ADD: from sources and a destination to a plan, its content key, and files in a layer.

The rules are those of the Dockerfile reference (COPY, ADD) and, where that is silent, what BuildKit does:

    a symlink that is named as source is followed inside its tree, one found in a directory is copied as it is
    a directory's entries are copied, not the directory; a file goes into an existing directory, or one named with "/"
    missing directories of the destination are 0755 (or --chmod's octal) and 0:0 (or --chown's)
    an existing directory keeps its metadata if it is the destination, and takes the source's if it lies below it
    symlinks in the destination are followed inside the image; below it nothing is followed
    a file replaces a file or symlink; a directory and something else never replace one another
    attributes of files: security.capability, system.posix_acl_*, user.* (xattrs.RULES), after the owner is set
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.rootfs.entry import show
from pyrun.runtime.errors import Conflict, NotFound, UsageError
from pyrun.runtime.record import Record

from . import modes, scan
from .destination import Destination, components
from .missing import missing
from .scan import Folder, Item, Selection
from .source import Directory, Tree
from .wildcard import Pattern, is_wildcard, unescaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrun.rootfs.layered import Stack

    from .source import Path

    Child = tuple[os.stat_result, int, tuple[int, ...]]


class CopyRequest(Record):
    """One instruction, or the part of it that takes from one tree.

    sources      as written, variables expanded; taken from the root of the tree
    destination  absolute, already joined with WORKDIR; a trailing "/" says that it is a directory
    owner        (uid, gid) of --chown, or None
    chmod        --chmod: "", octal or symbolic
    parents      --parents;  excludes: --exclude
    unpack       ADD: a source that is a tar archive, plain or compressed, is unpacked
    literal      sources are names, not patterns: of a download, of a heredoc
    """

    sources: tuple[str, ...]
    destination: str
    owner: tuple[int, int] | None = None
    chmod: str = ""
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpack: bool = False
    literal: bool = False


class CopyPlan:
    """What will be written, in order. The tree must stay open until apply()."""

    def __init__(self, tree: Tree, request: CopyRequest, folders: list[Folder]) -> None:
        self.tree = tree
        self.request = request
        self.folders = folders
        self.change = modes.parse(request.chmod)
        self.plain_mode = 0o755 if self.change is None or self.change.octal < 0 else self.change.octal
        self.plain_owner = request.owner or (0, 0)

    @property
    def entries(self) -> int:
        """How many files and directories there are; unpacked archives count as one."""
        return sum(len(folder.files) + 1 for folder in self.folders)

    def mode(self, info: os.stat_result) -> int:
        """The permission bits that something will have in the image."""
        mode = stat.S_IMODE(info.st_mode)
        if self.change is None:
            return mode
        return self.change.apply(mode, directory=stat.S_ISDIR(info.st_mode))

    def owner(self, info: os.stat_result) -> tuple[int, int]:
        """The owner that something will have in the image."""
        if self.request.owner is not None:
            return self.request.owner
        return (0, 0) if self.tree.context else (info.st_uid, info.st_gid)

    def digest(self) -> str:
        """The content key ("sha256:…"): names, kinds, modes and owners as they will be, link targets, attributes and
        file contents; no times. After apply() it is that of what was written, should files have changed meanwhile.

        Raises PyrunError for what cannot be read.
        """
        from . import contents

        return contents.digest(self)


def plan(tree: Tree, request: CopyRequest, target: Stack) -> CopyPlan:
    """Where everything goes, without opening a file.

    target: the image so far, which decides whether the destination is a directory and where its symlinks lead.

    Raises NotFound for a source that is not there, Conflict where a directory and something else would replace one
    another, UsageError for a bad pattern or mode, PyrunError for what cannot be read.
    """
    if not request.destination.startswith("/"):
        raise UsageError(f"copy to '{request.destination}'", "the destination must be absolute")
    planned = CopyPlan(tree, request, [])
    work = _Planner(tree, request, target)
    for source in request.sources:
        work.source(source)
    planned.folders = work.target.folders
    return planned


def apply(copy: CopyPlan, fs: str, lowers: Sequence[str], *, epoch: int | None = None) -> None:
    """Writes the plan into the directory `fs`, the upper one of an overlay over `lowers` (lowest first).

    epoch: seconds since 1970; directories that no source has get this time, in place of now.

    Raises PyrunError: names what failed; `fs` then holds a part of it. Nothing outside `fs` is touched.
    """
    from . import place

    place.write(copy, fs, lowers, epoch)


def inline(name: str, content: bytes, mode: int = 0o644, *, scratch: str | None = None) -> Tree:
    """A tree that holds one file: a heredoc's. Its directory is made in `scratch` and goes when the tree is closed."""
    import tempfile

    directory = tempfile.mkdtemp(prefix="inline-", dir=scratch)
    try:
        fd = os.open(os.path.join(directory, _file_name(name)), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, mode)
        return Tree.directory(directory, "the Dockerfile", remove=directory)
    except BaseException:
        from pyrun.rootfs.inroot import remove_path

        remove_path(directory)
        raise


def _file_name(name: str) -> str:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise UsageError(f"invalid file name '{name}'", "a name without a slash is needed")
    return name


class _Planner:
    """Adds one source after another; knows what the earlier ones will have written."""

    def __init__(self, tree: Tree, request: CopyRequest, target: Stack) -> None:
        self.tree = tree
        self.request = request
        self.target = Destination(request, target)

    def source(self, text: str) -> None:
        """Everything that one source stands for."""
        start, include = _pivot(text) if self.request.parents else (text, "")
        selection = Selection(self.tree.ignore, include, self.request.excludes)
        # a wildcard that matches nothing is no error, nor one that only matches what .dockerignore hides
        must = self.request.literal or not is_wildcard(text)
        found = False
        for path, name in self._matches(start, text):
            if self._add(path, name, text, selection):
                found = True
            elif not must and not include and self._look(path) is None:
                why = f"'{show(name)}' matches it, a symlink to what is not in {self.tree.name}"
                raise NotFound(f"copy '{text}'", why, hint="remove the symlink, or add a line to .dockerignore")
        if must and not found:
            raise missing(self.tree, text)

    # Where sources are --------------------------------------------------------------------------------------------

    def _matches(self, start: str, text: str) -> Iterator[tuple[Path, bytes]]:
        """(resolved path, last component as written or found) of each match; wildcards are expanded in sorted order."""
        parts = components(start)
        fixed = len(parts)
        if not self.request.literal:
            fixed = next((n for n, part in enumerate(parts) if is_wildcard(os.fsdecode(part))), fixed)
        patterns = [Pattern(os.fsdecode(part)) for part in parts[fixed:]]
        if not self.request.literal:
            parts = tuple(
                os.fsencode(unescaped(os.fsdecode(part))) if b"\\" in part else part for part in parts[:fixed]
            )
        base = self._resolve(parts[:fixed])
        if not patterns:
            if base is not None:
                yield base, parts[-1] if parts else b""
            return
        for path in self._wild(base, patterns) if base is not None else ():
            resolved = self._resolve(path)
            if resolved is not None:
                yield resolved, path[-1]

    def _wild(self, base: Path, patterns: Sequence[Pattern]) -> Iterator[Path]:
        try:
            directory = self.tree.open(base)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            raise scan.cannot_read(self.tree, base, error) from error
        with directory:
            try:
                children = directory.children()
            except OSError as error:
                raise scan.cannot_read(self.tree, base, error) from error
        for name in sorted(children):
            if patterns[0].matches(name):
                path = (*base, os.fsencode(name))
                if len(patterns) == 1:
                    yield path
                elif children[name][2]:
                    yield from self._wild(path, patterns[1:])

    def _resolve(self, parts: Path) -> Path | None:
        """The path with symlinks followed inside the tree; None if .dockerignore hides a link on its way."""
        if self.tree.ignore is not None and parts:
            path = os.fsdecode(b"/".join(parts))
            # a directory may be hidden and yet hold exceptions: scan() finds out
            if self.tree.ignore.ignored(path, False) and not self.tree.ignore.may_contain_exceptions(path):
                return None
        try:
            return self.tree.stack.resolve(parts)
        except OSError as error:
            raise scan.cannot_read(self.tree, parts, error) from error

    def _look(self, path: Path) -> tuple[Directory, Child] | None:
        """The open directory above `path`, and what is there; None if nothing is. The caller closes the directory."""
        try:
            directory = self.tree.open(path[:-1])
            try:
                child = directory.child(path[-1])
            except BaseException:
                directory.close()
                raise
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise scan.cannot_read(self.tree, path, error) from error
        if child is None:
            directory.close()
            return None
        return directory, child

    # What becomes of one match ------------------------------------------------------------------------------------

    def _add(self, path: Path, name: bytes, text: str, selection: Selection) -> bool:
        """Plans one match; False if it is not there, or hidden by .dockerignore."""
        if not path:
            with self.tree.open(()) as root:
                return self._tree(root, path, os.fstat(root.fds[0]), selection)
        found = self._look(path)
        if found is None:
            return False
        above, (info, layer, parts) = found
        with above:
            if parts:
                try:
                    directory = above.below(path[-1], parts)
                except OSError as error:
                    raise scan.cannot_read(self.tree, path, error) from error
                with directory:
                    return self._tree(directory, path, info, selection)
            if selection.include is not None:
                raise Conflict(f"copy '{text}'", "what stands before /./ is not a directory")
            if selection.hidden(path):
                return False
            if not selection.excluded(os.fsdecode(name)):
                self._file(above, path, name, info, layer)
            return True

    def _tree(self, directory: Directory, path: Path, info: os.stat_result, selection: Selection) -> bool:
        """A directory: its entries go to the destination."""
        base = self.target.start()
        folders = scan.scan(self.tree, directory, path, base, selection)
        empty = len(folders) == 1 and not folders[0].files
        if empty and (selection.include is not None or selection.hidden(path)):
            return False
        folders[0].mtime_ns = info.st_mtime_ns
        self.target.make(base)
        self.target.add(folders)
        return True

    def _file(self, above: Directory, path: Path, name: bytes, info: os.stat_result, layer: int) -> None:
        """Something that is no directory: into the destination if that is one, else under its name."""
        item = scan.item_of(self.tree, above, path, info, layer)
        folder = Folder(path[:-1], self.target.start(), None)
        folder.files = [item]
        if self.request.unpack and stat.S_ISREG(info.st_mode) and self._is_archive(above, item, path):
            folder.unpack = True
        else:
            folder.place, item.to = self.target.of_file(name)
        self.target.make(folder.place)
        self.target.add([folder])

    def _is_archive(self, above: Directory, item: Item, path: Path) -> bool:
        from . import archives

        try:
            fd = above.open_file(item.name, item.layer)
        except OSError as error:
            raise scan.cannot_read(self.tree, path, error) from error
        with open(fd, "rb") as file:
            return archives.is_archive(file)


def _pivot(text: str) -> tuple[str, str]:
    """--parents: (where the copy starts, what is wanted below it); "/./" divides the two."""
    start, divided, wanted = text.partition("/./")
    if not divided:
        start, wanted = "", text
    return start, os.fsdecode(b"/".join(components(wanted))) or "**"
