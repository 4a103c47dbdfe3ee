# SPDX-License-Identifier: Apache-2.0
"""Tree: files that COPY and ADD take from, as directories that are read by fd and never left.

A build context is one directory, a stage or an image a stack of layers. Its owner may change a context while it is
read, so nothing is opened by a path of more than one component, symlinks are never followed by the kernel, and what is
no regular file is never opened, only looked at (a FIFO would block, a device may act).
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.rootfs.inroot import NO_LINKS, open_in, remove_path
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.tree import OPAQUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from .hashes import Hashes
    from .ignore import Ignore

    Path = tuple[bytes, ...]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Tree:
    """Files that COPY takes from; a `with` block closes it.

    stack     the files; its paths never lead outside
    ignore    what is not there for COPY, or None
    name      for messages: "the build context", "stage 'base'", "image nginx:latest"
    context   files of a build context belong to 0:0 in the image; others keep their owners
    hashes    remembered digests of files, or None
    remove    a directory of the host that goes when the tree is closed, or ""
    """

    def __init__(
        self,
        stack: Stack,
        ignore: Ignore | None = None,
        name: str = "the build context",
        *,
        context: bool = False,
        hashes: Hashes | None = None,
        remove: str = "",
        path: str = "",
    ) -> None:
        self.stack = stack
        self.ignore = ignore
        self.ignore_name = ".dockerignore"
        self.name = name
        self.context = context
        self.hashes = hashes
        self.path = path  # of a single directory, on the host: what RUN --mount=type=bind takes
        self._remove = remove

    @classmethod
    def directory(
        cls,
        path: str,
        name: str = "the build context",
        *,
        ignore: Ignore | None = None,
        context: bool = True,
        hashes: Hashes | None = None,
        remove: str = "",
    ) -> Tree:
        """One directory of the host. Raises OSError."""
        return cls(Stack([path]), ignore, name, context=context, hashes=hashes, remove=remove, path=path)

    @classmethod
    def layers(cls, lowers: Sequence[str], name: str, *, hashes: Hashes | None = None) -> Tree:
        """A stage or an image: its layer directories, lowest first. Raises OSError."""
        return cls(Stack(list(reversed(lowers))), None, name, hashes=hashes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the fds, and removes what was made for this tree alone."""
        self.stack.close()
        if self._remove:
            remove, self._remove = self._remove, ""
            remove_path(remove)

    def open(self, path: Path) -> Directory:
        """The directory at exactly `path`, which no symlink may be part of. Raises OSError (ENOENT, ENOTDIR, ELOOP)."""
        return open_directory(self.stack, path)


class Directory:
    """An open directory of a stack: fds of its parts, topmost first. A `with` block."""

    __slots__ = ("fds",)

    def __init__(self, fds: list[int]) -> None:
        self.fds = fds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the fds."""
        while self.fds:
            os.close(self.fds.pop())

    def children(self) -> dict[str, tuple[os.stat_result, int, tuple[int, ...]]]:
        """Name -> (lstat of what is there, which fd has it, which fds have a part of it if it is a directory).

        What vanishes meanwhile is left out. One directory alone has no whiteouts: a device 0:0 in it is left out too,
        as no layer can hold it.
        """
        found: dict[str, tuple[os.stat_result, int, tuple[int, ...]]] = {}
        closed: set[str] = set()  # names below which nothing of the lower layers shows
        for index, fd in enumerate(self.fds):
            last = index + 1 == len(self.fds)
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = entry.name
                    if name in closed:
                        continue
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    mode = info.st_mode
                    if not stat.S_ISDIR(mode):
                        if name not in found and not (stat.S_ISCHR(mode) and info.st_rdev == 0):
                            found[name] = (info, index, ())
                        closed.add(name)
                        continue
                    if name in found:
                        top, where, parts = found[name]
                        found[name] = (top, where, (*parts, index))
                    else:
                        found[name] = (info, index, (index,))
                    if not last and _opaque_in(fd, name):
                        closed.add(name)
        return found

    def child(self, name: str | bytes) -> tuple[os.stat_result, int, tuple[int, ...]] | None:
        """What children() says of one name; None if there is no such thing."""
        top: os.stat_result | None = None
        parts: list[int] = []
        for index, fd in enumerate(self.fds):
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(info.st_mode):
                if top is not None:
                    break
                return None if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0 else (info, index, ())
            top = top or info
            parts.append(index)
            if index + 1 < len(self.fds) and _opaque_in(fd, name):
                break
        return (top, parts[0], tuple(parts)) if top is not None else None

    def below(self, name: str | bytes, parts: Sequence[int]) -> Directory:
        """The directory `name`, of which these of this directory's fds have a part. Raises OSError."""
        fds: list[int] = []
        try:
            for index in parts:
                fds.append(os.open(name, _DIRECTORY, dir_fd=self.fds[index]))
        except BaseException:
            Directory(fds).close()
            raise
        return Directory(fds)

    def open_file(self, name: str | bytes, index: int) -> int:
        """A readable fd of the regular file `name`. Raises OSError: EINVAL for anything else, which is never opened."""
        handle = os.open(name, _LOOK, dir_fd=self.fds[index])
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", name)
            return os.open(f"/proc/self/fd/{handle}", _READ)
        finally:
            os.close(handle)


def open_directory(stack: Stack, path: Path) -> Directory:
    """The directory of a stack at exactly `path`, which no symlink may be part of. Raises OSError."""
    roots = stack.roots()
    try:
        if len(roots) == 1:
            return Directory([open_in(roots[0], b"/".join(path), _DIRECTORY, resolve=NO_LINKS)])
        fds = [os.open(".", _DIRECTORY, dir_fd=root) for root in roots]
    finally:
        Directory(roots).close()
    for depth, name in enumerate(path, 1):
        above, fds = fds, []
        try:
            for fd in above:
                if not _part(fd, name, fds):
                    break
            if not fds:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), b"/".join(path[:depth]))
        except BaseException:
            Directory(fds).close()
            raise
        finally:
            Directory(above).close()
    return Directory(fds)


def _part(above: int, name: bytes, fds: list[int]) -> bool:
    """Adds what one layer has of the directory `name`; says whether the layers below may have more of it."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and (fds or _is_whiteout(above, name)):
            return False
        raise
    fds.append(fd)
    return not _is_opaque(fd)


def _is_whiteout(above: int, name: bytes) -> bool:
    info = os.stat(name, dir_fd=above, follow_symlinks=False)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _opaque_in(above: int, name: str | bytes) -> bool:
    fd = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        return _is_opaque(fd)
    finally:
        os.close(fd)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
