# SPDX-License-Identifier: Apache-2.0
"""images/partial/<hex>: a blob that is being downloaded, or was when somebody died.

    flock(partial)    whoever downloads holds it; another pull of the same layer waits, and finds the file complete
    link(partial)     into the ingest once it is verified; the file itself stays until the image is in the store, so
                      that a pull that is killed while it unpacks has nothing to download again

Nothing is ever changed in a file that has a second link: another process may have verified and used it. The hash of
what is there is computed anew each time: what a dead process noted about it would have to be believed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time

from pyrun.runtime.events import step

from .errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from pyrun.rootfs.layout import Layout

POLL_S = 0.05  # how often a waiting pull looks whether the other one is done
CHUNK = 1 << 20


class Partial:
    """A `with` block that holds the file's lock: `position` bytes of `size` are there. Raises OSError.

    cancelled: whether to stop waiting for whoever holds it; then Unreachable is raised.
    """

    def __init__(self, layout: Layout, digest: str, size: int, cancelled: Callable[[], bool]) -> None:
        self.digest = digest
        self.size = size
        self.position = 0
        self.resumed = False
        self._path = layout.partial(digest)
        self._cancelled = cancelled
        self._fd = -1
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._lock(fd)
                if _is_at(fd, self._path):
                    break
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its owner finished and removed it in this moment
        self._fd = fd
        self._read()
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        if self.position == 0 and _is_at(self._fd, self._path):
            os.unlink(self._path)  # nothing that could be resumed
        os.close(self._fd)
        self._fd = -1

    @property
    def is_right(self) -> bool:
        """Whether all of it is there and is what it must be."""
        return self.position == self.size and f"sha256:{self._hash.hexdigest()}" == self.digest

    def append(self, data: bytes) -> None:
        """Adds bytes at the end. Raises OSError."""
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.restart()  # somebody needs the space more than a later pull needs the half of a layer
            error.filename = self._path
            raise
        self.position += len(data)

    def restart(self) -> None:
        """Throws away what is there."""
        if os.fstat(self._fd).st_nlink > 1:
            fd = os.open(f"{self._path}.new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.rename(f"{self._path}.new", self._path)
            os.close(self._fd)
            self._fd = fd
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.position = 0
        self.resumed = False
        self._hash = hashlib.sha256()

    def link(self, target: str) -> None:
        """Makes the verified file available at `target` too. Raises OSError."""
        os.link(self._path, target)

    def _lock(self, fd: int) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._cancelled():
                    raise Unreachable("download", "interrupted") from None
            time.sleep(POLL_S)

    def _read(self) -> None:
        """Hashes what an earlier download left."""
        found = os.fstat(self._fd).st_size
        if found > self.size:
            self.restart()
        elif found:
            with step("registry", f"hash {found} bytes of {self.digest} that are here"):
                while chunk := os.read(self._fd, CHUNK):
                    self._hash.update(chunk)
                    self.position += len(chunk)
            self.resumed = True
            if self.position >= self.size and not self.is_right:
                self.restart()


def forget(layout: Layout, digest: str) -> None:
    """Removes the file of a blob that is in the store now; left to whoever holds it, if somebody does."""
    path = layout.partial(digest)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(fd, path):
            os.unlink(path)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
