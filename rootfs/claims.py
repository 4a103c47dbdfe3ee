# SPDX-License-Identifier: Apache-2.0
"""Directories that are going to be layers, each locked by the one process that fills it.

    layers/<hex>.tmp/       a layer being unpacked, under the chain id that it will have (Claim)
    layers/new-<hex>.tmp/   one whose chain id nobody knows yet (Scratch): an import, a step of a build
    …/fs                    its tree        …/work  overlayfs's own        …/done  what it is, JSON

The flock(2) is on the directory itself, so it goes on when the directory is renamed to a layer: as long as the owner
has not let go, the collector takes that layer for used, and no note is needed that a dead process would leave behind.
"""

from __future__ import annotations

import errno
import fcntl
import os

from pyrun.runtime import files
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import step

from .inroot import remove_path
from .limits import ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from .layers import Layers
    from .unpack import Unpacked

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)  # rename(2) onto a directory that is not empty
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Claim:
    """A locked directory. What an earlier owner left in it is removed before it is used."""

    def __init__(self, path: str, *, blocking: bool = True) -> None:
        """Makes the directory if it is missing and waits for its lock; BlockingIOError where it must not wait."""
        self.path = path
        self.fd = -1
        self.lost = False
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        try:
            self.fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            return  # its owner finished in this moment
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BaseException:
            self.close()
            raise

    def is_mine(self) -> bool:
        """Whether the directory is still at its path: who had it before may have renamed or removed it."""
        try:
            return self.fd >= 0 and os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def root(self) -> int:
        """An fd of the empty directory to unpack into."""
        for name in os.listdir(self.fd):
            remove_path(f"{self.path}/{name}")
        os.mkdir("fs", 0o755, dir_fd=self.fd)
        return os.open("fs", _DIRECTORY, dir_fd=self.fd)

    def finish(self, found: Unpacked) -> None:
        """Writes down what was unpacked."""
        files.write_json(f"{self.path}/done", found.asdict(), sync=False)  # syncfs follows

    def show(self, target: str) -> None:
        """Makes the directory the layer `target`; the caller has synced it. One that is there already stays: `lost`."""
        try:
            os.rename(self.path, target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            self.discard(None)
            self.lost = True
        self.path = ""

    def share(self) -> None:
        """Lets others use the layer that this has become; the collector goes on to leave it alone."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def discard(self, cause: BaseException | None) -> None:
        """Removes the directory, unless it has become a layer."""
        if self.path:
            try:
                remove_path(self.path)
            except OSError as error:
                if cause is None:
                    raise
                cause.add_note(f"clean-up: {error}")

    def close(self) -> None:
        """Releases the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def new_claim(layers: str) -> Claim:
    """A claim on a new directory in `layers`, which exists."""
    while True:
        claim = Claim(f"{layers}/new-{os.urandom(8).hex()}.tmp")
        if claim.is_mine():  # else the collector came between mkdir(2) and flock(2)
            return claim
        claim.close()


class Scratch:
    """A directory that may become a layer, for `with`: removed at the end unless become() or keep() was called.

    path   layers/new-<random>.tmp          fs   path/fs, empty, 0755: an overlay's upper directory, a TreeWriter's root

    As long as the block runs, the layer that it became is left alone by the collector, also before anything names it.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._claim: Claim | None = None
        self._note: Note | None = None
        self._used: list[int] = []
        self.path = ""

    def __enter__(self) -> Self:
        self._layers.create()
        self._claim = new_claim(self._layers.path)
        self.path = self._claim.path
        try:
            os.mkdir(self.fs, 0o755)
            os.chmod(self.fs, 0o755)  # whatever the umask
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        if self._note is not None:
            self._layers.mark_garbage()
            self.named()
        if self._claim is not None:
            try:
                self._claim.discard(cause)
            finally:
                self._claim.close()
        while self._used:
            os.close(self._used.pop())

    @property
    def fs(self) -> str:
        """The tree."""
        return f"{self.path}/fs"

    @property
    def work(self) -> str:
        """overlayfs's workdir, once make_work() has made it."""
        return f"{self.path}/work"

    def make_work(self) -> str:
        """`work`, made if it is missing."""
        try:
            os.mkdir(self.work, 0o700)
        except FileExistsError:
            pass
        return self.work

    def become(self, parent: str, *, diff_id: str, digest: str, size: int, entries: int) -> str:
        """Makes `fs` the layer above the chain id `parent` ("" for none), synced, and returns its chain id.

        Args: both digests of the layer's archive, bytes of file content, number of entries. A layer of that chain id
        that is there already stays, and this tree is dropped. Raises ArchiveError when the disk does not take it,
        PyrunError when the parent is gone, OSError.
        """
        from .image import chain_id as chained
        from .unpack import Unpacked, syncfs

        claim = self._claim
        assert claim is not None, "outside the with block, or a layer already"
        if parent and not self._layers.has(parent):
            raise PyrunError("add layer", f"the layer below it, {parent}, is gone")
        chain_id = chained(parent, diff_id)
        target = self._layers.directory(chain_id)
        with step("rootfs", f"add layer {chain_id}"):
            if not self._use(target):
                if os.path.exists(self.work):
                    remove_path(self.work)
                claim.finish(Unpacked(digest, diff_id, size, entries))
                try:
                    syncfs(claim.fd)
                except OSError as error:
                    raise ArchiveError("add layer", f"the disk did not take it: {error}") from error
                with self._layers.hold():  # no collector in between
                    self._note = self._layers.note()
                    claim.show(target)
                    claim.share()
                    if claim.lost and not self._use(target):
                        raise PyrunError("add layer", f"{chain_id} was removed while it was added")
                self.path = ""
        return chain_id

    def named(self) -> None:
        """Something keeps the layer now (an image, something kept): nobody has to look for what nothing needs."""
        if self._note is not None:
            self._note.take_back()
            self._note = None

    def _use(self, target: str) -> bool:
        """Whether the layer is there; it stays then as long as this block runs."""
        try:
            fd = os.open(target, _DIRECTORY)
        except FileNotFoundError:
            return False
        fcntl.flock(fd, fcntl.LOCK_SH)  # a collector, or an owner who is nearly done, is waited for
        if os.path.exists(f"{target}/done") and os.path.samestat(os.fstat(fd), os.stat(target)):
            self._used.append(fd)
            return True
        os.close(fd)
        return False

    def keep(self) -> str:
        """Hands the directory over to the caller, under a new name, and returns its path: nobody else removes it."""
        assert self._claim is not None
        kept = f"{self.path.removesuffix('.tmp')}.kept"
        os.rename(self.path, kept)
        self._claim.path = ""
        self.path = kept
        return kept


class Note:
    """A file that says, to who finds it unlocked, that its owner died before it had named what it made."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def take_back(self) -> None:
        """What was made has a name now, or is marked otherwise."""
        os.unlink(self.path)
        os.close(self._fd)


def is_held(path: str) -> bool:
    """Whether a note's owner lives; True when it has just gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def remove_unless_locked(path: str) -> None:
    """Removes a directory that a dead process left; its lock is held meanwhile, so that no new owner starts in it."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_path(path)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def read_done(directory: str) -> dict[str, Any]:
    """What a layer's `done` says; {} when it cannot be read."""
    try:
        found = files.read_json(f"{directory}/done")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
