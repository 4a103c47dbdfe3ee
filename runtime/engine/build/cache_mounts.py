# SPDX-License-Identifier: Apache-2.0
"""RUN --mount=type=cache: directories that outlive the build.

    <data>/build/cache/<key>-<n>/fs           what is mounted     <key>: of the id and what it was filled from
    <data>/build/cache/<key>-<n>/cache.json   what it is; its mtime is when it was last used
    <data>/build/cache/….tmp                  being made

The flock(2) is on the directory <key>-<n> itself: shared by those who share it, exclusive for sharing=locked and
private. A directory that is in use is never removed, and one step never sees another's half-made one. Only a cache's
root is ever mounted: no path inside, where other steps write meanwhile, is resolved (CVE-2024-23651).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time

from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.walk import directories
from pyrun.runtime import files
from pyrun.runtime.engine.build.failure import Cancelled
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from pyrun.runtime.paths import Paths

SHARED, LOCKED, PRIVATE = "shared", "locked", "private"
SHARINGS = (SHARED, LOCKED, PRIVATE)
POLL_S = 0.05
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CacheUse(Record):
    """A cache mount on disk."""

    name: str  # of its directory
    id: str
    size: int  # bytes
    created_at: float  # seconds since the epoch
    used_at: float
    in_use: bool


class Claimed:
    """A cache that a step may mount: `path` until close()."""

    def __init__(self, directory: str, fd: int) -> None:
        self.directory = directory
        self.path = f"{directory}/fs"
        self._fd = fd

    def close(self) -> None:
        """Lets the next one have it."""
        if self._fd >= 0:
            try:
                os.utime(f"{self.directory}/cache.json")
            finally:
                os.close(self._fd)
                self._fd = -1


def root(paths: Paths) -> str:
    """Where they are."""
    return f"{paths.data}/build/cache"


def path_of(paths: Paths, cache_id: str, base: str) -> str:
    """The directory that a cache is in, there or not: the first, where private ones have made several."""
    return f"{_directory(paths, cache_id, base, 0)}/fs"


def _directory(paths: Paths, cache_id: str, base: str, number: int) -> str:
    key = hashlib.sha256(f"{cache_id}\0{base}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{root(paths)}/{key}-{number}"


def claim(
    paths: Paths, cache_id: str, sharing: str, base: str, fill: Callable[[str], None], cancel: Event | None = None
) -> Claimed:
    """The cache of this id, made if it is missing; waits for one that is locked.

    Args:
        base: tells what the cache is filled with at first ("" for nothing): another base is another cache.
        fill: makes that content in the new, empty directory that it is given, with its owner and mode.
        cancel: ends the waiting.

    Raises Cancelled, PyrunError, OSError, and what `fill` raises; then nothing is left behind.
    """
    files.private_dir(root(paths))
    number = 0
    while True:
        path = _directory(paths, cache_id, base, number)
        try:
            fd = _lock(path, sharing, cancel, f"cache mount {cache_id}")
        except FileNotFoundError:
            _make(path, cache_id, fill)
            continue
        except BlockingIOError:  # private, and somebody has it
            number += 1
            continue
        return Claimed(path, fd)


def _lock(path: str, sharing: str, cancel: Event | None, what: str) -> int:
    """A descriptor that holds the lock. FileNotFoundError: there is no such cache, or it has just been removed."""
    fd = os.open(path, _DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if sharing == SHARED else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if sharing == PRIVATE:
                    raise
            if cancel is None:
                time.sleep(POLL_S)
            elif cancel.wait(POLL_S):
                raise Cancelled(what, "cancelled")
        if not os.path.samestat(os.fstat(fd), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make(path: str, cache_id: str, fill: Callable[[str], None]) -> None:
    """A new cache at `path`, unless somebody is faster."""
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    with step("build", f"mkdir {path}"):
        os.mkdir(temporary, 0o700)
        try:
            fd = _lock(temporary, PRIVATE, None, "")  # while it is held, nobody takes it for a dead process's
        except (FileNotFoundError, BlockingIOError):
            return  # prune() came between the two; the caller tries again
        try:
            os.mkdir(f"{temporary}/fs", 0o755)
            fill(f"{temporary}/fs")
            about = {"id": cache_id, "created_at": time.time()}
            files.write_json(f"{temporary}/cache.json", about, sync=False)
            try:
                os.rename(temporary, path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                remove_path(temporary)
        except BaseException:
            remove_path(temporary)
            raise
        finally:
            os.close(fd)


def _names(paths: Paths) -> list[str]:
    try:
        return sorted(os.listdir(root(paths)))
    except FileNotFoundError:
        return []


def usage(paths: Paths) -> list[CacheUse]:
    """Every cache on disk, the one used longest ago first."""
    found = []
    for name in _names(paths):
        path = f"{root(paths)}/{name}"
        try:
            about = files.read_json(f"{path}/cache.json")
            used_at = os.stat(f"{path}/cache.json").st_mtime
            with _free(path) as free:
                in_use = not free
            made_at = float(about["created_at"])
            found.append(CacheUse(name, str(about["id"]), tree_size(path), made_at, used_at, in_use))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being made, removed in this moment, or damaged: prune() removes that
    return sorted(found, key=lambda cache: cache.used_at)


def prune(paths: Paths, wanted: Callable[[CacheUse], bool] = lambda cache: True) -> list[CacheUse]:
    """Removes the caches that are `wanted` gone and that no step uses, and what dead processes left; what is gone."""
    known = {cache.name: cache for cache in usage(paths)}
    gone = []
    for name in _names(paths):
        cache = known.get(name)
        if cache is not None and not wanted(cache):
            continue
        path = f"{root(paths)}/{name}"
        with _free(path) as free, step("build", f"rm -r {path}"):
            if free:
                buried = path if name.endswith(".tmp") else f"{path}.{os.urandom(4).hex()}.tmp"
                os.rename(path, buried)  # it disappears at once
                remove_path(buried)
                gone += [cache] if cache is not None else []
    return gone


class _free:  # noqa: N801 - reads as a statement
    """Whether nobody uses the directory; nobody will as long as the block runs."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> bool:
        try:
            self._fd = os.open(self._path, _DIRECTORY)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            return False

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def tree_size(path: str) -> int:
    """Bytes on disk below a directory, each file once; links are not followed, what vanishes does not count."""
    seen: set[tuple[int, int]] = set()
    return sum(512 * info.st_blocks for info in _walk(path, seen))


def _walk(path: str, seen: set[tuple[int, int]]) -> Iterator[os.stat_result]:
    for fd, names in directories(path):
        for name in names:
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            key = (info.st_dev, info.st_ino)
            if stat.S_ISDIR(info.st_mode):
                continue
            if info.st_nlink == 1 or key not in seen:
                seen.add(key)
                yield info
