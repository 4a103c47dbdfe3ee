# SPDX-License-Identifier: Apache-2.0
"""Where a COPY goes: the image's side of a plan, with everything that is planned already."""

from __future__ import annotations

import errno
import os

from pyrun.rootfs.entry import show
from pyrun.rootfs.limits import DEFAULT_LIMITS
from pyrun.runtime.errors import Conflict, UsageError

from .scan import Folder
from .source import open_directory
from .wildcard import is_wildcard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.layered import Stack

    from .copy import CopyRequest
    from .source import Path

    Child = tuple[os.stat_result, int, tuple[int, ...]]


class Destination:
    """The destination of one request; `folders` is what goes there, in order.

    Raises Conflict where its symlinks go in circles, UsageError for one that is too deep.
    """

    def __init__(self, request: CopyRequest, image: Stack) -> None:
        self.image = image
        self.asked = asked = request.destination
        self.folders: list[Folder] = []
        self._directories: set[Path] = set()
        self._files: set[Path] = set()
        # one source cannot get in its own way, so what it brings need not be remembered
        self._several = len(request.sources) > 1 or any(is_wildcard(source) for source in request.sources)
        self._named_directory = asked.endswith(("/", "/.")) or request.parents
        try:
            self._base = image.resolve(components(asked))
        except OSError as error:
            raise Conflict(f"copy to '{asked}'", (error.strerror or str(error)).lower()) from error
        if len(self._base) > DEFAULT_LIMITS.max_depth:
            raise UsageError(f"copy to '{asked}'", f"more than {DEFAULT_LIMITS.max_depth} levels deep")

    def start(self) -> Path:
        """The destination with its symlinks resolved; made if a slash says that it is a directory."""
        if self._named_directory:
            self.make(self._base)
        return self._base

    def of_file(self, name: bytes) -> tuple[Path, bytes]:
        """The directory and the name that a file called `name` gets."""
        base = self._base
        if self._named_directory or self.kind(base) == "directory":
            return base, name
        if base in self._files:
            raise UsageError(
                f"copy several files to '{self.asked}'",
                "each would replace the one before",
                hint=f"a directory ends with a slash: {self.asked}/",
            )
        return base[:-1], base[-1]

    def kind(self, path: Path) -> str:
        """ "directory", "other" or "" for what is at exactly `path` of the image, with what is planned so far."""
        if path in self._directories or not path:
            return "directory"
        if path in self._files:
            return "other"
        try:
            with open_directory(self.image, path[:-1]) as directory:
                child = directory.child(path[-1])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return ""
            raise Conflict(f"copy to '/{_text(path)}'", (error.strerror or str(error)).lower()) from error
        return "" if child is None else "directory" if child[2] else "other"

    def make(self, path: Path) -> None:
        """Plans the directories on the way to `path`, and itself, that are not there."""
        for depth in range(1, len(path) + 1):
            part = path[:depth]
            kind = self.kind(part)
            if kind == "other":
                raise Conflict(f"copy to '{self.asked}'", f"'/{_text(part)}' is not a directory")
            if not kind:
                self._keep([Folder((), part, None)])

    def add(self, folders: list[Folder]) -> None:
        """Plans what a source brings. Raises Conflict where it cannot go."""
        self._check(folders)
        self._keep(folders)

    def _check(self, folders: list[Folder]) -> None:
        """That no directory takes the place of something else, or the other way round."""
        there: dict[Path, dict[str, Child] | None] = {}
        for folder in folders:
            place = folder.place
            if place in self._files:
                raise self._not_directory(place)
            if folder is folders[0]:
                children = self._children(place)
            else:
                above = there[place[:-1]]
                child = above.get(os.fsdecode(place[-1])) if above else None
                if child is not None and not child[2]:
                    raise self._not_directory(place)
                children = self._children(place) if child is not None else None
            there[place] = children
            for item in () if folder.unpack else folder.files:
                existing = children.get(os.fsdecode(item.to)) if children else None
                if (existing is not None and existing[2]) or (*place, item.to) in self._directories:
                    raise Conflict(
                        f"copy '{_text((*folder.source, item.name))}'",
                        f"'/{_text((*place, item.to))}' is a directory in the image",
                    )

    def _children(self, place: Path) -> dict[str, Child] | None:
        try:
            with open_directory(self.image, place) as directory:
                return directory.children()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise Conflict(f"copy to '/{_text(place)}'", (error.strerror or str(error)).lower()) from error

    def _not_directory(self, place: Path) -> Conflict:
        return Conflict(f"copy a directory to '/{_text(place)}'", "a file or symlink has that name in the image")

    def _keep(self, folders: list[Folder]) -> None:
        self.folders += folders
        for folder in folders:
            self._directories.add(folder.place)
            if not folder.unpack and self._several:
                self._files.update([(*folder.place, item.to) for item in folder.files])


def components(path: str) -> Path:
    """The components of a path below the root; "." and ".." are resolved by text, as BuildKit does, never above it."""
    if "\0" in path:
        raise UsageError(f"invalid path '{path!r}'", "NUL in it")
    done: list[bytes] = []
    for part in os.fsencode(path).split(b"/"):
        if part == b"..":
            done[-1:] = []
        elif part not in (b"", b"."):
            done.append(part)
    return tuple(done)


def _text(path: Path) -> str:
    return show(b"/".join(path))
