# SPDX-License-Identifier: Apache-2.0
"""Stacked layers read as overlayfs would show them, without mounting anything.

For what must be known of a container that is not running: /etc/passwd, what lies at a mount point, `cp` from it.
Whiteouts, opaque directories and symlinks are followed as by the kernel (Documentation/filesystems/overlayfs.rst), one
component at a time and by fd, so nothing leads out of the layers. Layers are kept without redirect_dir and metacopy,
which are not read here.
"""

from __future__ import annotations

import errno
import os
import stat

from . import inroot, xattrs
from .entry import DIR, FILE, HARDLINK, KIND_OF, SOCKET, SYMLINK, Entry
from .stream import CHUNK
from .tree import OPAQUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

MAX_SYMLINKS = 40  # path_resolution(7)
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_WALKING = 256  # fds that walk() keeps of the directories it is in


class Stack:
    """Layers, topmost first, as one tree. A `with` block; keeps one fd per layer open.

    A directory may be given as an fd (it is copied): a single one makes this a careful reader of any root, a running
    container's too, since no method ever follows what it did not look at. `mounts` lie on top: path -> host directory.

    Paths are tuples of components. All methods raise OSError (ENOENT, ENOTDIR, ELOOP …) as the system calls do.
    """

    def __init__(self, directories: Sequence[str | int], mounts: Mapping[tuple[bytes, ...], str] | None = None) -> None:
        self._roots: list[int] = []
        self._mounts = dict(mounts or {})
        self._at: tuple[tuple[bytes, ...], _Found] | None = None  # where a walk() stands
        try:
            for directory in directories:
                if isinstance(directory, int):
                    self._roots.append(os.dup(directory))
                else:
                    self._roots.append(os.open(directory, _ROOT))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the layers' fds."""
        while self._roots:
            os.close(self._roots.pop())

    def top(self) -> int:
        """A new fd of the topmost layer's directory, for a TreeWriter."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._roots[0])

    def roots(self) -> list[int]:
        """New fds of the layers' directories, topmost first."""
        return [os.dup(fd) for fd in self._roots]

    def resolve(self, path: tuple[bytes, ...], *, follow: bool = True) -> tuple[bytes, ...]:
        """The path with every symlink resolved inside the tree, ".." included; the last component too if `follow`.

        Components that do not exist are kept as they are, so that the result can be created.
        """
        todo = list(reversed(path))
        done: list[bytes] = []
        links = 0
        missing = False
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if done:
                    done.pop()
                missing = False
                continue
            done.append(part)
            if missing or (not todo and not follow):
                continue
            try:
                with self._open(tuple(done)) as found:
                    if found.kind is not SYMLINK:
                        continue
                    target = found.readlink()
            except (FileNotFoundError, NotADirectoryError):
                missing = True
                continue
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), b"/".join(path))
            done = [] if target.startswith(b"/") else done[:-1]
            todo.extend(reversed(target.split(b"/")))
        return tuple(done)

    def entry(self, path: tuple[bytes, ...], *, follow: bool = False) -> Entry:
        """What is at `path`; symlinks in its parents are followed, one at its end only with `follow`."""
        path = self.resolve(path, follow=follow)
        with self._open(path) as found:
            return found.entry(path)

    def directory(self, path: tuple[bytes, ...]) -> Entry | None:
        """The directory at exactly `path` (no symlink on the way), else None: TreeWriter's metadata_of."""
        try:
            with self._open(path) as found:
                return found.entry(path) if found.kind is DIR else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: tuple[bytes, ...], max_bytes: int) -> bytes:
        """The regular file at `path`, symlinks followed. OSError(EINVAL) if it is none, EFBIG if it is larger."""
        path = self.resolve(path)
        with self._open(path) as found:
            return inroot.read_regular(found.fds[0], b"/" + b"/".join(path), max_bytes)

    def data(self, path: tuple[bytes, ...]) -> Iterator[bytes]:
        """The bytes of the regular file at exactly `path` (see resolve()), in chunks of 256 KiB."""
        if self._at is not None and self._at[0] == path:
            fd = inroot.reopen_regular(self._at[1].fds[0], b"/" + b"/".join(path))
        else:
            with self._open(path) as found:
                fd = inroot.reopen_regular(found.fds[0], b"/" + b"/".join(path))
        try:
            while chunk := os.read(fd, CHUNK):
                yield chunk
        finally:
            os.close(fd)

    def list(self, path: tuple[bytes, ...]) -> list[bytes]:
        """The names in the directory at exactly `path`, sorted."""
        with self._open(path) as found:
            return found.names(path)

    def walk(
        self, path: tuple[bytes, ...], base: tuple[bytes, ...] = (), *, skip_devices: frozenset[int] = frozenset()
    ) -> Iterator[tuple[Entry, tuple[bytes, ...]]]:
        """Everything at and below exactly `path`, parents first, as (entry placed below `base`, its own path).

        The second and later names of a file come as hard links to the first. Directories on `skip_devices` (st_dev) are
        taken as empty. What vanishes meanwhile is left out, but for `path` itself.
        """
        seen: dict[tuple[int, int], tuple[bytes, ...]] = {}
        above: list[_Level] = []
        try:
            opened = self._open(path)
            above.append(_Level(opened, path, base, ()))
            entry = opened.entry(base)
            if entry.kind is DIR:
                above[0].names = iter(self._names_in(opened, path, skip_devices))
            yield from self._told(entry, path, opened)
            while above:
                level = above[-1]
                name = next(level.names, None)
                if name is None:
                    above.pop().close()
                    continue
                own, placed = (*level.own, name), (*level.placed, name)
                try:
                    if level.found is None:
                        level.found = self._open(level.own)
                    found = self._child(level.found, name, own)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                entered = False
                try:
                    entry = found.entry(placed)
                    if entry.kind is DIR:
                        above.append(_Level(found, own, placed, self._names_in(found, own, skip_devices)))
                        entered = True
                        _bound(above)
                    elif found.stat.st_nlink > 1:
                        first = seen.setdefault((found.stat.st_dev, found.stat.st_ino), placed)
                        if first != placed:
                            entry = Entry(placed, HARDLINK, entry.mode, entry.uid, entry.gid, link=b"/".join(first))
                    yield from self._told(entry, own, found)
                finally:
                    if not entered:
                        _close(found.fds)
        finally:
            for level in above:
                level.close()

    def _told(self, entry: Entry, own: tuple[bytes, ...], found: _Found) -> Iterator[tuple[Entry, tuple[bytes, ...]]]:
        """One result of walk(), whose data() needs no search as long as walk() stands there."""
        self._at = (own, found)
        try:
            yield entry, own
        finally:
            self._at = None

    def _names_in(self, found: _Found, own: tuple[bytes, ...], skip_devices: frozenset[int]) -> Sequence[bytes]:
        return [] if found.stat.st_dev in skip_devices else found.names(own)

    def _child(self, directory: _Found, name: bytes, own: tuple[bytes, ...]) -> _Found:
        """What is under `name` in an opened directory, which stays open."""
        mount = self._mounts.get(own) if self._mounts else None
        if mount is not None:
            return _Found([os.open(mount, os.O_PATH | os.O_CLOEXEC)])
        return _Found(_inside(directory.fds, name, own))

    def _open(self, path: tuple[bytes, ...]) -> _Found:
        """The object at exactly `path`, in each layer that has a part of it. Raises ENOENT, ENOTDIR."""
        if not self._roots:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/" + b"/".join(path))
        fds = [os.dup(fd) for fd in self._roots]
        try:
            for depth, name in enumerate(path, 1):
                mount = self._mounts.get(path[:depth])
                if mount is None:
                    fds = _step(fds, name, path[:depth])
                else:
                    inside = os.open(mount, os.O_PATH | os.O_CLOEXEC)
                    _close(fds)
                    fds = [inside]
            return _Found(fds)
        except BaseException:
            _close(fds)
            raise


class _Found:
    """One object: fds[0] is the topmost; for a directory, fds[1:] are what is merged below it."""

    def __init__(self, fds: list[int]) -> None:
        self.fds = fds
        self.stat = os.fstat(fds[0])
        self.kind = KIND_OF.get(stat.S_IFMT(self.stat.st_mode), SOCKET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        _close(self.fds)

    def readlink(self) -> bytes:
        return os.readlink(b"", dir_fd=self.fds[0])  # the empty path means the O_PATH fd itself, readlinkat(2)

    def entry(self, path: tuple[bytes, ...]) -> Entry:
        info = self.stat
        entry = Entry(path, self.kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, mtime_ns=info.st_mtime_ns)
        if self.kind is FILE:
            entry.size = entry.real_size = info.st_size
        elif self.kind is SYMLINK:
            entry.link = self.readlink()
        else:
            entry.rdev = info.st_rdev
        entry.xattrs = xattrs.get(b"/proc/self/fd/%d" % self.fds[0], follow=True)
        return entry

    def names(self, path: tuple[bytes, ...]) -> list[bytes]:
        if self.kind is not DIR:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), b"/".join(path))
        names: set[bytes] = set()
        hidden: set[bytes] = set()
        for fd in self.fds:
            readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            try:
                found = [os.fsencode(name) for name in os.listdir(readable)]
            finally:
                os.close(readable)
            gone = {name for name in found if name not in names and _is_whiteout(fd, name)}
            names |= {name for name in found if name not in hidden and name not in gone}
            hidden |= gone
        return sorted(names)


class _Level:
    """A directory that a walk is in; `found` is None while its descriptors are needed elsewhere."""

    __slots__ = ("found", "names", "own", "placed")

    def __init__(
        self, found: _Found, own: tuple[bytes, ...], placed: tuple[bytes, ...], names: Sequence[bytes]
    ) -> None:
        self.found: _Found | None = found
        self.own = own
        self.placed = placed
        self.names = iter(names)

    def close(self) -> None:
        """Closes its descriptors; they can be opened again."""
        if self.found is not None:
            _close(self.found.fds)
            self.found = None


def _bound(above: list[_Level]) -> None:
    """Closes the outermost directories of a walk: a deep tree of many layers would need more fds than there are."""
    count = sum(len(level.found.fds) for level in above if level.found is not None)
    for level in above[:-1]:
        if count <= _OPEN_WALKING:
            break
        if level.found is not None:
            count -= len(level.found.fds)
            level.close()


def _step(fds: list[int], name: bytes, path: tuple[bytes, ...]) -> list[int]:
    """_inside(), closing the directory's own fds."""
    found = _inside(fds, name, path)
    _close(fds)
    fds.clear()
    return found


def _inside(fds: Sequence[int], name: bytes, path: tuple[bytes, ...]) -> list[int]:
    """`name` in a merged directory: the topmost decides; directories go on below it until one is opaque."""
    found: list[int] = []
    try:
        for fd in fds:
            try:
                inside = os.open(name, _LOOK, dir_fd=fd)
            except FileNotFoundError:
                continue
            info = os.fstat(inside)
            directory = stat.S_ISDIR(info.st_mode)
            if not directory and (found or (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0)):
                os.close(inside)  # a file below a directory is hidden by it; a whiteout hides all below
                break
            found.append(inside)
            if not directory or _is_opaque(inside):
                break
        if not found:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), b"/" + b"/".join(path))
    except BaseException:
        _close(found)
        raise
    return found


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(b"/proc/self/fd/%d" % fd, OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def _is_whiteout(fd: int, name: bytes) -> bool:
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def read_file(directories: Sequence[str], path: str, max_bytes: int) -> bytes:
    """The regular file at `path` in an overlay that is not mounted; `directories` are upper, then lowers, topmost
    first.

    Raises OSError: FileNotFoundError and its like, EINVAL for a FIFO, device or directory, EFBIG above `max_bytes`.
    """
    with Stack(directories) as stack:
        return stack.read(tuple(os.fsencode(path).split(b"/")), max_bytes)
