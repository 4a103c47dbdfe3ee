# SPDX-License-Identifier: Apache-2.0
"""TreeWriter: entries become files below a root directory, and nowhere else.

Used to unpack layers, to fill volumes, for `cp` into containers, and by imports. The root may be hostile (see inroot):
a parent is an fd from openat2(RESOLVE_IN_ROOT), everything is created under one name that is not followed, and metadata
is set through the fd of what was created.

In an overlay's layer (`overlay=True`) deletions are kept as overlayfs wants them
(Documentation/filesystems/overlayfs.rst): a removed name is a character device 0:0, a directory that replaces one below
is marked trusted.overlay.opaque=y.
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.runtime.kernel import syscalls

from . import xattrs
from .batch import Batch
from .disk import HINTS
from .entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, S_IFMT_OF, SYMLINK, Entry, show, split
from .inroot import open_directory, open_in, remove_tree
from .limits import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

OPAQUE = "trusted.overlay.opaque"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
WRITEBACK = 1 << 20  # bytes: what a file has at least for the kernel to begin with it at once
_CACHED_PARENTS = 128  # fds; archives list a directory's files together, so even a few would hit nearly always


class TreeWriter:
    """Writes entries below `root_fd` (not closed). Use it in a `with` block: directories get their metadata at its end.

    overlay      the root is a layer of an overlay (see the module's text)
    metadata_of  path -> Entry or None: what a missing parent directory looks like in the layers below; without it, 0755
                 0:0
    resolve      path -> canonical path: the parent directory in the merged view, when this root is only its top layer
    owner        (uid, gid) for everything, in place of what the entries say
    existing     path -> Entry or None: what is there now; then a directory and something else never replace one another
    batched      for a tree that nobody else sees yet: ordinary entries are made many at a time (batch.py), so an error
                 may come with a later entry, or at the end; it names the right one
    implied      gets, at the end, the directories whose metadata no entry and no layer below has given: see settle()

    Entries with errors raise ArchiveError; system calls that fail raise it too, with the OSError as cause and in
    `errno`.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        overlay: bool = False,
        metadata_of: Callable[[tuple[bytes, ...]], Entry | None] | None = None,
        resolve: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] | None = None,
        owner: tuple[int, int] | None = None,
        existing: Callable[[tuple[bytes, ...]], Entry | None] | None = None,
        implied: list[tuple[bytes, ...]] | None = None,
        batched: bool = False,
    ) -> None:
        self.root_fd = root_fd
        self.overlay = overlay
        self.bytes_written = 0
        self._metadata_of = metadata_of
        self._resolve = resolve
        self._owner = owner
        self._existing = existing
        self._implied = implied
        self._batch = Batch(root_fd, self._make_one) if batched else None
        self._unlisted: dict[tuple[bytes, ...], None] = {}  # as a set in order: parents come first
        self._parents: dict[tuple[bytes, ...], int] = {}
        self._stale: list[int] = []  # no longer what their paths lead to
        self._directories: dict[tuple[bytes, ...], Entry] = {}
        self._copied_up: set[tuple[bytes, ...]] = (
            set()
        )  # of these, the ones that keep their owner whatever `owner` says
        self._make = {
            FILE: self._file, DIR: self._directory, SYMLINK: self._symlink, HARDLINK: self._hardlink,
            CHAR: self._node, BLOCK: self._node, FIFO: self._node,
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if cause is None or isinstance(cause, ArchiveError):
                self.flush()  # what failed in an earlier entry comes out now, in place of the later one's error
            if cause is None:
                self._finish_directories()
                if self._implied is not None:
                    self._implied.extend(self._unlisted)
        finally:
            self._forget_parents()
            while self._stale:
                os.close(self._stale.pop())

    def default_root(self) -> None:
        """Gives a new root the metadata of the layers' below, or 0755 0:0, unless an entry for it comes."""
        like = self._metadata_of(()) if self._metadata_of else None
        if () not in self._directories:
            self.settle((), like or Entry((), DIR, 0o755))
            self._unlisted[()] = None

    def settle(self, parts: tuple[bytes, ...], like: Entry) -> None:
        """Gives the directory at `parts`, if there is one at the end, the metadata of `like`."""
        self._directories[parts] = like

    def add(self, entry: Entry, data: Iterable[memoryview | bytes] = ()) -> None:
        """Creates `entry` with a file's `data`, replacing what has its name (a directory stays one and is merged)."""
        batch = self._batch
        if batch is None:
            self._add(entry, data)
        elif batch.takes(entry):
            if entry.kind is DIR:
                self._listed(entry)
            self.bytes_written += entry.size
            batch.add(entry, data, *(self._owner or (entry.uid, entry.gid)))
        else:
            batch.flush()
            self._add(entry, data)

    def flush(self) -> None:
        """Makes what was put off so far (`batched`)."""
        if self._batch is not None:
            self._batch.flush()

    def _make_one(self, entry: Entry, data: Iterable[memoryview | bytes]) -> None:
        """An entry of the batch that was not so ordinary."""
        self.bytes_written -= entry.size  # counted when it was put off
        self._add(entry, data)

    def _add(self, entry: Entry, data: Iterable[memoryview | bytes]) -> None:
        try:
            if not entry.parts:
                if entry.kind is not DIR:
                    raise entry.error("only a directory can be the root")
                xattrs.wanted(entry)
                self._listed(entry)
                return
            if self._existing is not None:
                _check_kinds(entry, self._existing(entry.parts))
            self._make[entry.kind](entry, self.parent(entry.parts[:-1]), entry.parts[-1], data)
        except OSError as error:
            raise _failed(entry, error) from error

    def whiteout(self, entry: Entry, name: bytes) -> None:
        """Hides `name` (beside `entry`) in the layers below; what this layer itself has there stays, made opaque."""
        self.flush()
        try:
            parent = self.parent(entry.parts[:-1])
            try:
                os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=parent)  # without CAP_MKNOD since Linux 5.8
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    self._mark_opaque(parent, name)
        except OSError as error:
            raise _failed(entry, error) from error

    def opaque(self, entry: Entry) -> None:
        """Hides all that the layers below have in the parent directory of `entry`."""
        self.flush()
        try:
            parts = entry.parts[:-1]
            self._mark_opaque(self.parent(parts), b".")
        except OSError as error:
            raise _failed(entry, error) from error

    def parent(self, parts: tuple[bytes, ...]) -> int:
        """An O_PATH fd (this writer's) of a directory, made with its parents if it is missing. Raises OSError.

        It is good until the next call.
        """
        while self._stale:
            os.close(self._stale.pop())
        if not parts:
            return self.root_fd
        fd = self._parents.get(parts)
        if fd is None:
            if self._resolve is not None:
                fd = self._make_directories(self._resolve(parts))
            else:
                try:
                    fd = open_directory(self.root_fd, b"/".join(parts))
                except (FileNotFoundError, NotADirectoryError):  # missing, or below a whiteout
                    fd = self._make_directories(parts)
            if len(self._parents) >= _CACHED_PARENTS:
                self._forget_parents()
            self._parents[parts] = fd
        return fd

    def _make_directories(self, parts: tuple[bytes, ...]) -> int:
        """mkdir -p: each missing level looks as it does in the layers below, else 0755 0:0."""
        fd = os.dup(self.root_fd)
        try:
            for depth in range(1, len(parts) + 1):
                path = b"/".join(parts[:depth])
                try:
                    below = open_directory(self.root_fd, path)
                except (FileNotFoundError, NotADirectoryError):
                    self._make_parent(fd, parts[:depth])
                    below = open_directory(self.root_fd, path)  # the same again: a file, or a symlink to nowhere
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _make_parent(self, parent: int, parts: tuple[bytes, ...]) -> None:
        name = parts[-1]
        deleted = self.overlay and self._is_whiteout(parent, name)
        if deleted:
            os.unlink(name, dir_fd=parent)
        # before mkdir(2): the view may include this root, and would show the new directory
        like = self._metadata_of(parts) if self._metadata_of and not deleted else None
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            return  # a dangling symlink, or somebody was faster: the caller opens it and sees
        if deleted:
            self._mark_opaque(parent, name)
        if parts not in self._directories:
            self.settle(parts, like or Entry(parts, DIR, 0o755))
            if not deleted:
                self._unlisted[parts] = None
        if like:
            self._copied_up.add(parts)

    # What each kind of entry takes ------------------------------------------------------------------------------

    def _file(self, entry: Entry, parent: int, name: bytes, data: Iterable[memoryview | bytes]) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            if entry.regions is not None:
                self._sparse(fd, entry, data)
            else:
                for piece in data:
                    self._write(fd, piece)
                if self._batch is not None and entry.size >= WRITEBACK:
                    syscalls.start_writeback(fd)  # one sync for all comes later
            self._metadata(fd, entry, self._owner)
        finally:
            os.close(fd)

    def _write(self, fd: int, piece: memoryview | bytes) -> None:
        self.bytes_written += len(piece)
        done = os.write(fd, piece)
        while done < len(piece):  # a short write comes before ENOSPC
            piece = piece[done:]
            done = os.write(fd, piece)

    def _sparse(self, fd: int, entry: Entry, data: Iterable[memoryview | bytes]) -> None:
        os.ftruncate(fd, entry.real_size)
        regions = iter(entry.regions or ())
        left = 0
        for piece in data:
            while len(piece):
                while not left:
                    offset, left = next(regions)
                    os.lseek(fd, offset, os.SEEK_SET)
                part = piece[:left]
                self._write(fd, part)
                left -= len(part)
                piece = piece[len(part) :]

    def _directory(self, entry: Entry, parent: int, name: bytes, _: object) -> None:
        deleted = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                deleted = self.overlay and self._is_whiteout(parent, name)
                self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        if deleted:
            self._mark_opaque(parent, name)
        xattrs.wanted(entry)  # an attribute that must not be there is reported now, while the entry is at hand
        self._listed(entry)

    def _listed(self, entry: Entry) -> None:
        """The metadata of a directory comes from this entry, whatever came before."""
        self._directories[entry.parts] = entry
        self._copied_up.discard(entry.parts)
        self._unlisted.pop(entry.parts, None)

    def _symlink(self, entry: Entry, parent: int, name: bytes, _: object) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            os.symlink(entry.link, name, dir_fd=parent)
        uid, gid = self._owner or (entry.uid, entry.gid)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            xattrs.put(b"/proc/self/fd/%d/%s" % (parent, name), entry)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _hardlink(self, entry: Entry, parent: int, name: bytes, _: object) -> None:
        """The target is a path below the same root; it is linked as it is, never followed, and never copied instead."""
        try:
            target = split(entry.link)
        except ArchiveError as error:
            raise entry.error(f"a hard link to '{show(entry.link)}': {error.why}") from None
        if not target:
            raise entry.error("a hard link to the root directory")
        if target == entry.parts:
            os.stat(name, dir_fd=parent, follow_symlinks=False)  # to itself: nothing to do, if it is there
            return
        source = open_directory(self.root_fd, b"/".join(target[:-1]))
        try:
            try:
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(
                    os.stat(target[-1], dir_fd=source, follow_symlinks=False),
                    os.stat(name, dir_fd=parent, follow_symlinks=False),
                ):
                    return
                self._clear(parent, name)
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _node(self, entry: Entry, parent: int, name: bytes, _: object) -> None:
        mode = S_IFMT_OF[entry.kind] | 0o600
        try:
            os.mknod(name, mode, entry.rdev, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            os.mknod(name, mode, entry.rdev, dir_fd=parent)
        # O_PATH: opening a device or FIFO has effects of its own. chmod(2) by name would follow a swapped-in symlink.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) != S_IFMT_OF[entry.kind] or found.st_rdev != entry.rdev:
                raise entry.error("was replaced while it was being made")
            path = b"/proc/self/fd/%d" % fd
            os.chown(path, *(self._owner or (entry.uid, entry.gid)))
            os.chmod(path, entry.mode)
            if entry.xattrs:
                xattrs.put(b"/proc/self/fd/%d/%s" % (parent, name), entry)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _metadata(self, fd: int, entry: Entry, owner: tuple[int, int] | None) -> None:
        """Owner before mode (chown(2) clears setuid) and before security.capability (it clears that too); time last."""
        uid, gid = owner or (entry.uid, entry.gid)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            xattrs.put(fd, entry)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    # Replacing and finishing --------------------------------------------------------------------------------------

    def _clear(self, parent: int, name: bytes) -> None:
        """Makes room for an entry: what had its name goes, as the later of two entries wins."""
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(kind):
            remove_tree(parent, name)
            self._forget_parents(keep=parent)
        else:
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(kind):
                self._forget_parents(keep=parent)

    def _is_whiteout(self, parent: int, name: bytes) -> bool:
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def _mark_opaque(self, parent: int, name: bytes) -> None:
        fd = os.open(name, _OPEN_DIR, dir_fd=parent)
        try:
            os.setxattr(fd, OPAQUE, b"y")
        finally:
            os.close(fd)

    def _forget_parents(self, keep: int = -1) -> None:
        """Closes the cached fds: a path that led through a removed directory or symlink may lead elsewhere now."""
        for fd in self._parents.values():
            if fd == keep:
                self._stale.append(fd)  # in use by the caller at this moment
            else:
                os.close(fd)
        self._parents.clear()

    def _finish_directories(self) -> None:
        """Owner, mode, attributes and times of directories: at the end, since creating files in them changes the time,
        and a default ACL set earlier would leak into the files."""
        for parts, entry in self._directories.items():
            path = b"/".join(parts)
            try:
                fd = open_in(self.root_fd, path, _OPEN_DIR)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a later entry replaced it
                raise _failed(entry, error) from error
            try:
                self._metadata(fd, entry, None if parts in self._copied_up else self._owner)
            except OSError as error:
                raise _failed(entry, error) from error
            finally:
                os.close(fd)


def _check_kinds(entry: Entry, there: Entry | None) -> None:
    """What `cp` never does, as docker's: a directory in place of a file, or the other way round."""
    if there is not None and (there.kind is DIR) != (entry.kind is DIR):
        if there.kind is DIR:
            raise entry.error("cannot replace a directory with something else")
        raise entry.error("cannot replace a file with a directory")


def _failed(entry: Entry, error: OSError) -> ArchiveError:
    why = os.strerror(error.errno or 0).lower()
    if entry.kind is HARDLINK and error.errno == errno.ENOENT:
        why = f"its hard link target '{show(entry.link)}' is not there"
    elif error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
        why = f"its parent is not a directory ({why})"
    failure = entry.error(why, hint=HINTS.get(error.errno or 0, ""))
    failure.errno = error.errno or 0
    return failure
