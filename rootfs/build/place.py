# SPDX-License-Identifier: Apache-2.0
"""A copy's plan becomes files in the upper directory of an overlay.

Every destination in a plan is resolved: its directories are real ones in the image. So here nothing is ever followed:
a directory is opened by its own fd's name, and what should be one but is a symlink (an archive of the same instruction
may have put it there) is an error. Directories get their metadata at the end, as creating files in them needs the right
to, and changes their times.
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.rootfs import xattrs
from pyrun.rootfs.disk import HINTS
from pyrun.rootfs.entry import DIR, FILE, Entry, show
from pyrun.rootfs.inroot import NO_LINKS, open_in
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.tree import TreeWriter
from pyrun.runtime.errors import Conflict, PyrunError
from pyrun.runtime.events import step

from . import archives, contents, scan
from .transfer import transfer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from .copy import CopyPlan
    from .scan import Folder, Item
    from .source import Directory, Path

    _Made = TypeVar("_Made")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 128


def write(plan: CopyPlan, fs: str, lowers: Sequence[str], epoch: int | None) -> None:
    """See copy.apply()."""
    with step("build", f"copy {' '.join(plan.request.sources)} -> {plan.request.destination}"):
        root = os.open(fs, _DIRECTORY)
        try:
            with Stack([fs, *reversed(lowers)]) as image, Stack(list(reversed(lowers))) as below:
                writer = _Writer(plan, root, image, epoch)
                # the upper's own root is what a container gets as /: it looks as it did before
                like = below.directory(()) if lowers else None
                writer.directories[()] = like or Entry((), DIR, 0o755, mtime_ns=writer.now_ns)
                try:
                    writer.all()
                finally:
                    writer.close()
        finally:
            os.close(root)


class _Writer:
    def __init__(self, plan: CopyPlan, root: int, image: Stack, epoch: int | None) -> None:
        import time

        self.plan = plan
        self.tree = plan.tree
        self.root = root
        self.image = image
        self.now_ns = time.time_ns() if epoch is None else epoch * 10**9
        self.me = (os.geteuid(), os.getegid())
        self.directories: dict[Path, Entry] = {}  # what each directory of the upper is to look like in the end
        self.new: set[Path] = set()
        self.open: dict[Path, int] = {}

    def close(self) -> None:
        while self.open:
            os.close(self.open.popitem()[1])

    def all(self) -> None:
        for folder in self.plan.folders:
            try:
                fd = self.directory(folder)
            except OSError as error:
                raise _failed(folder.place, error) from error
            if folder.files:
                self.folder(folder, fd)
        for path, entry in self.directories.items():
            self.finish(path, entry)

    # Directories --------------------------------------------------------------------------------------------------

    def directory(self, folder: Folder) -> int:
        """The directory of the upper where a folder's files go, made if need be."""
        fd = self.reach(folder.place)
        entry = self.directories[folder.place]
        if folder.stat is not None:
            uid, gid = self.plan.owner(folder.stat)
            mode = self.plan.mode(folder.stat)
            self.directories[folder.place] = Entry(folder.place, DIR, mode, uid, gid, mtime_ns=folder.stat.st_mtime_ns)
            self.directories[folder.place].xattrs = folder.attributes
        elif folder.mtime_ns:
            entry.mtime_ns = folder.mtime_ns
        return fd

    def reach(self, path: Path) -> int:
        """An fd of the upper's directory; one that is missing looks as it does in the layers below, else plain."""
        fd = self.open.get(path)
        if fd is not None:
            return fd
        if not path:
            fd = os.dup(self.root)
        else:
            above = self.reach(path[:-1])
            try:
                fd = os.open(path[-1], _DIRECTORY, dir_fd=above)
            except FileNotFoundError:
                # what is new in the image has nothing below it: most directories of a copy need not be looked for
                like = None if path[:-1] in self.new else self.image.directory(path)
                if like is None:
                    self.new.add(path)
                os.mkdir(path[-1], 0o700, dir_fd=above)
                fd = os.open(path[-1], _DIRECTORY, dir_fd=above)
                uid, gid = self.plan.plain_owner
                self.directories[path] = like or Entry(path, DIR, self.plan.plain_mode, uid, gid, mtime_ns=self.now_ns)
            else:
                if path not in self.directories:  # an archive made it
                    found = self.image.directory(path)
                    if found is not None:
                        self.directories[path] = found
        if len(self.open) >= _OPEN_DIRECTORIES:
            self.close()
        self.open[path] = fd
        return fd

    def finish(self, path: Path, entry: Entry) -> None:
        """Owner, mode, attributes and time, in the order in which none of them undoes another."""
        try:
            fd = open_in(self.root, b"/".join(path), _DIRECTORY, resolve=NO_LINKS)
            try:
                if (entry.uid, entry.gid) != self.me:
                    os.fchown(fd, entry.uid, entry.gid)
                os.fchmod(fd, entry.mode)
                if entry.xattrs:
                    xattrs.put(fd, entry)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)
        except OSError as error:
            raise _failed(path, error) from error

    # What is in them ----------------------------------------------------------------------------------------------

    def folder(self, folder: Folder, fd: int) -> None:
        try:
            source = self.tree.open(folder.source)
        except OSError as error:
            raise scan.cannot_read(self.tree, folder.source, error) from error
        with source:
            for item in folder.files:
                if folder.unpack:
                    self.unpack(folder, source, item)
                    continue
                self.item(folder, source, fd, item)

    def item(self, folder: Folder, source: Directory, fd: int, item: Item) -> None:
        if item.same:
            self.link(folder, fd, item)
        elif stat.S_ISREG(item.stat.st_mode):
            self.file(folder, source, fd, item)
        else:
            try:
                self.other(fd, item)
            except OSError as error:
                raise _failed((*folder.place, item.to), error) from error

    def file(self, folder: Folder, source: Directory, above: int, item: Item) -> None:
        try:
            taken = source.open_file(item.name, item.layer)
        except OSError as error:
            raise scan.cannot_read(self.tree, (*folder.source, item.name), error) from error
        try:
            info = os.fstat(taken)
            changed = not contents.same_state(info, item.stat)
            item.stat = info
            fd = _fresh(above, item.to, lambda: os.open(item.to, _CREATE, 0o600, dir_fd=above))
            try:
                copied = transfer(taken, fd, info)
                owner = self.plan.owner(info)
                if owner != self.me:
                    os.fchown(fd, *owner)
                os.fchmod(fd, self.plan.mode(info))
                found = xattrs.get(taken)
                if found:
                    xattrs.put(fd, Entry((item.to,), FILE, xattrs=found))
                os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
                if changed or copied != info.st_size or not contents.same_state(info, os.fstat(taken)):
                    item.digest = self.written(fd)  # the content key must be that of what is in the layer
            finally:
                os.close(fd)
        except OSError as error:
            raise _failed((*folder.place, item.to), error) from error
        finally:
            os.close(taken)

    def written(self, fd: int) -> bytes:
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return contents.of_file(again)
        finally:
            os.close(again)

    def link(self, folder: Folder, above: int, item: Item) -> None:
        """A second name of a file that this source brought before."""
        *first, name = item.same.split(b"/")
        try:
            fd = open_in(self.root, b"/".join(first), _DIRECTORY, resolve=NO_LINKS)
            try:
                _fresh(
                    above,
                    item.to,
                    lambda: os.link(name, item.to, src_dir_fd=fd, dst_dir_fd=above, follow_symlinks=False),
                )
            finally:
                os.close(fd)
        except OSError as error:
            raise _failed((*folder.place, item.to), error) from error

    def other(self, above: int, item: Item) -> None:
        """A symlink, FIFO or device: made, never opened."""
        owner = self.plan.owner(item.stat)
        if stat.S_ISLNK(item.stat.st_mode):
            _fresh(above, item.to, lambda: os.symlink(item.link, item.to, dir_fd=above))
        else:
            mode = stat.S_IFMT(item.stat.st_mode) | 0o600
            _fresh(above, item.to, lambda: os.mknod(item.to, mode, item.stat.st_rdev, dir_fd=above))
        if owner != self.me:
            os.chown(item.to, *owner, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISLNK(item.stat.st_mode):
            # O_PATH: opening it would act. The upper is this process's own, so nobody swaps the name
            fd = os.open(item.to, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            try:
                os.chmod(f"/proc/self/fd/{fd}", self.plan.mode(item.stat))
            finally:
                os.close(fd)
        times = (item.stat.st_mtime_ns, item.stat.st_mtime_ns)
        os.utime(item.to, ns=times, dir_fd=above, follow_symlinks=False)

    def unpack(self, folder: Folder, source: Directory, item: Item) -> None:
        """An archive of ADD; its directories merge with those of the image, and whatever else it has replaces them."""
        try:
            taken = source.open_file(item.name, item.layer)
        except OSError as error:
            raise scan.cannot_read(self.tree, (*folder.source, item.name), error) from error
        with open(taken, "rb") as file:
            changed = not contents.same_state(os.fstat(taken), item.stat)
            owner = self.plan.request.owner
            with TreeWriter(
                self.root, overlay=True, metadata_of=self.image.directory, resolve=self.image.resolve, owner=owner
            ) as writer:
                try:
                    archives.unpack(file, writer, folder.place)
                except PyrunError as error:
                    error.add_note(f"in {show(b'/'.join((*folder.source, item.name)))} of {self.tree.name}")
                    raise
            if changed or not contents.same_state(os.fstat(taken), item.stat):
                raise Conflict(
                    f"unpack '{show(item.name)}' of {self.tree.name}", "it changed meanwhile", hint="build again"
                )
        self.close()  # an archive may replace directories


def _fresh(above: int, name: bytes, make: Callable[[], _Made]) -> _Made:
    """What `make` makes under a name; a file or symlink that an earlier source put there goes first."""
    try:
        return make()
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise Conflict(f"copy to '{show(name)}'", "it is a directory") from None
        os.unlink(name, dir_fd=above)
        return make()


def _failed(path: Path, error: OSError) -> PyrunError:
    why = (os.strerror(error.errno) if error.errno else str(error)).lower()
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return Conflict(f"copy to '/{show(b'/'.join(path))}'", "a part of it is not a directory in the image")
    return PyrunError(f"write '/{show(b'/'.join(path))}'", why, hint=HINTS.get(error.errno or 0, ""))
