# SPDX-License-Identifier: Apache-2.0
"""What a source of COPY holds: directories and their entries, with .dockerignore, --exclude and --parents applied.

One scandir(3) and one lstat(2) for each entry, no file is opened. A directory that is not selected itself comes along
when something below it is.
"""

from __future__ import annotations

import os
import stat

from pyrun.rootfs import xattrs
from pyrun.rootfs.limits import DEFAULT_LIMITS
from pyrun.runtime.errors import PyrunError

from .wildcard import Pattern, may_lead_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ignore import Ignore
    from .source import Directory, Path, Tree


class Item:
    """Something in a directory that is no directory. `layer` says which of the directory's fds has it.

    `to` is its name in the image, `link` a symlink's target, `same` the path in the image of an earlier name of the
    same file (a hard link), `digest` that of content and attributes once it is known.
    """

    __slots__ = ("digest", "layer", "link", "name", "same", "stat", "to")

    def __init__(self, name: bytes, info: os.stat_result, layer: int) -> None:
        self.name = self.to = name
        self.stat = info
        self.layer = layer
        self.link = b""
        self.same = b""
        self.digest: bytes | None = None


class Folder:
    """A directory: where it is in the tree, where it goes, and what is in it but for other directories.

    `stat` is None for a directory that is not copied itself: its entries go into one that is there or is made plainly,
    which gets the time `mtime_ns` if that is not 0. `unpack`: its files are archives to be unpacked there.
    """

    __slots__ = ("attributes", "files", "mtime_ns", "place", "source", "stat", "unpack")

    def __init__(self, source: Path, place: Path, info: os.stat_result | None) -> None:
        self.source = source
        self.place = place
        self.stat = info
        self.attributes: dict[bytes, bytes] | None = None
        self.mtime_ns = 0
        self.unpack = False
        self.files: list[Item] = []


class Selection:
    """Which of the paths below a source are wanted. Paths are text: below the tree's root, and below the source."""

    def __init__(self, ignore: Ignore | None, include: str = "", excludes: tuple[str, ...] = ()) -> None:
        self.ignore = ignore
        self.exclude = _patterns(excludes, "--exclude") if excludes else None
        self.include = _patterns((include,), "--parents") if include else None
        self._include = tuple(Pattern(part) for part in include.split("/")) if include else ()
        self.everything = ignore is None and not excludes and not include

    def hidden(self, path: Path) -> bool:
        """Whether .dockerignore leaves out `path` itself."""
        return self.ignore is not None and bool(path) and self.ignore.ignored(os.fsdecode(b"/".join(path)), False)

    def excluded(self, name: str) -> bool:
        """Whether --exclude leaves out a file that is a source itself: there its name counts."""
        return self.exclude is not None and self.exclude.ignored(name, False)

    def wanted(self, path: str, below: str, directory: bool) -> tuple[bool, bool]:
        """(is it copied itself, may something below it be copied)."""
        wanted = descend = True
        if self.ignore is not None and self.ignore.ignored(path, directory):
            wanted, descend = False, directory and self.ignore.may_contain_exceptions(path)
        if self.exclude is not None and self.exclude.ignored(below, directory):
            wanted, descend = False, descend and directory and self.exclude.may_contain_exceptions(below)
        if self.include is not None and not self.include.ignored(below, directory):
            wanted, descend = False, descend and directory and may_lead_to(self._include, below.split("/"))
        return wanted, descend


def _patterns(patterns: tuple[str, ...], flag: str) -> Ignore:
    """Patterns of the command's own, by the rules of .dockerignore; in those, # is nothing special."""
    from .ignore import Ignore  # a copy without patterns does not need it

    parsed = [Ignore.parse(f"/{one}" if one.startswith("#") else one, path=flag) for one in patterns]
    return Ignore(tuple(rule for ignore in parsed for rule in ignore.rules))


def scan(tree: Tree, directory: Directory, source: Path, place: Path, selection: Selection) -> list[Folder]:
    """The directory at `source` and all that is selected below it, parents first, sorted; itself with stat None.

    Raises PyrunError for what cannot be read, for a whiteout's name, and for more levels than a layer may have.
    """
    return _Scan(tree, selection).folders(directory, source, place, None, "", True)


class _Scan:
    def __init__(self, tree: Tree, selection: Selection) -> None:
        self.tree = tree
        self.selection = selection
        self.names: dict[tuple[int, int], bytes] = {}

    def folders(
        self,
        directory: Directory,
        source: Path,
        place: Path,
        info: os.stat_result | None,
        below: str,
        wanted: bool,
    ) -> list[Folder]:
        here = Folder(source, place, info)
        found = [here]
        if len(place) > DEFAULT_LIMITS.max_depth or len(source) > DEFAULT_LIMITS.max_depth:
            raise PyrunError(
                f"copy '{show(source)}' of {self.tree.name}", f"more than {DEFAULT_LIMITS.max_depth} levels deep"
            )
        path = os.fsdecode(b"/".join(source))
        try:
            children = directory.children()
        except OSError as error:
            raise cannot_read(self.tree, source, error) from error
        selection = None if self.selection.everything else self.selection
        directories: list[tuple[str, bytes, bool]] = []  # after the files, in the order in which both are written
        for name in sorted(children):
            child, layer, parts = children[name]
            selected = descend = True
            inside = f"{below}/{name}" if below else name
            if selection is not None:
                selected, descend = selection.wanted(f"{path}/{name}" if path else name, inside, bool(parts))
            encoded = os.fsencode(name)
            if parts:
                if descend:
                    directories.append((name, encoded, selected))
            elif selected:
                if stat.S_ISREG(child.st_mode) and encoded[:4] != b".wh.":
                    item = Item(encoded, child, layer)
                elif stat.S_ISSOCK(child.st_mode):
                    continue
                else:
                    item = item_of(self.tree, directory, (*source, encoded), child, layer)
                if child.st_nlink > 1:
                    item.same = self._linked(child, place, encoded)
                here.files.append(item)
        for name, encoded, selected in directories:
            child, _, parts = children[name]
            inside = f"{below}/{name}" if below else name
            found += self._folder(directory, (*source, encoded), place, child, parts, inside, selected)
        if not wanted and not here.files and len(found) == 1:
            return []
        return found

    def _folder(
        self,
        above: Directory,
        source: Path,
        place: Path,
        info: os.stat_result,
        parts: tuple[int, ...],
        inside: str,
        selected: bool,
    ) -> list[Folder]:
        check_name(self.tree, source)
        try:
            directory = above.below(source[-1], parts)
        except OSError as error:
            raise cannot_read(self.tree, source, error) from error
        with directory:
            found = self.folders(directory, source, (*place, source[-1]), info, inside, selected)
            if found:
                found[0].attributes = xattrs.get(directory.fds[0])
            return found

    def _linked(self, info: os.stat_result, place: Path, name: bytes) -> bytes:
        """Where an earlier name of the same file goes, b"" if this is the first."""
        key = (info.st_dev, info.st_ino)
        first = self.names.get(key)
        if first is None:
            self.names[key] = b"/".join((*place, name))
        return first or b""


def item_of(tree: Tree, directory: Directory, source: Path, info: os.stat_result, layer: int) -> Item:
    """What is no directory at `source`, in the open directory above it. Raises PyrunError."""
    if source[-1].startswith(b".wh."):
        check_name(tree, source)
    item = Item(source[-1], info, layer)
    if stat.S_ISLNK(info.st_mode):
        try:
            item.link = os.readlink(source[-1], dir_fd=directory.fds[layer])
        except OSError as error:
            raise cannot_read(tree, source, error) from error
    return item


def check_name(tree: Tree, source: Path) -> None:
    """Refuses `.wh.` names: in an image's layer they mean that something is deleted."""
    if source[-1].startswith(b".wh."):
        raise PyrunError(
            f"cannot copy '{show(source)}' of {tree.name}",
            "a name that begins with .wh. stands for a deletion in an image's layer",
            hint="rename it, or exclude it",
        )


def cannot_read(tree: Tree, source: Path, error: OSError) -> PyrunError:
    """An error that names the path and the tree."""
    why = (error.strerror or str(error)).lower()
    if error.errno in (2, 20, 22, 40):  # ENOENT ENOTDIR EINVAL ELOOP: it was something else a moment ago
        return PyrunError(f"cannot read '{show(source)}' of {tree.name}", f"it changed meanwhile ({why})")
    return PyrunError(
        f"cannot read '{show(source)}' of {tree.name}",
        why,
        hint="exclude it by .dockerignore, or build as a user who may read it" if tree.context else "",
    )


def show(path: Path) -> str:
    """A path for a message."""
    from pyrun.rootfs.entry import show as text

    return text(b"/".join(path)) or "."
