# SPDX-License-Identifier: Apache-2.0
"""The cache directory: what takes long to make, each entry in a directory named by its kind and a hash of its sources.

An entry is made in `<kind>-<hash>.tmp` and renamed when it is complete, so a killed run leaves nothing that looks
whole; what it leaves is removed by the next. All of this happens under one lock, which is held until the VM runs (it
has its files open by then): nobody removes an entry that somebody else is about to open.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from .errors import VmError

KEPT = 2  # entries of a kind: the least recently used go first


class Cache:
    """The directory at `path`, created if it is missing; `lock()` goes round everything else."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(path, mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the lock; then also clears what a killed run has left half made."""
        fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("vm: waiting for another scripts/vm that prepares its VM", file=sys.stderr, flush=True)
                fcntl.flock(fd, fcntl.LOCK_EX)
            for name in os.listdir(self.path):
                if name.endswith(".tmp"):
                    shutil.rmtree(f"{self.path}/{name}")
            yield
        finally:
            os.close(fd)

    def directory(self, name: str) -> str:
        """A directory of the cache that is always there, such as the empty one that stands for an absent share."""
        path = f"{self.path}/{name}"
        os.makedirs(path, exist_ok=True)
        return path

    def entry(self, kind: str, sources: object, text: str, make: Callable[[str], None]) -> str:
        """The entry of this kind from `sources` (anything with a telling repr), made by `make(directory)` if missing.

        `text` says on stderr what is being made, for that takes seconds to a minute; "" says nothing. Raises what
        `make` raises; then there is no entry.
        """
        path = f"{self.path}/{kind}-{digest(sources)}"
        if os.path.isdir(path):
            os.utime(path)
            return path
        start = time.monotonic()
        if text:
            print(f"vm: making {text}", file=sys.stderr, flush=True)
        temporary = f"{path}.tmp"
        os.mkdir(temporary, 0o700)
        try:
            make(temporary)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if text:
            print(f"vm: made {text} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
        self._remove_old(kind)
        return path

    def _remove_old(self, kind: str) -> None:
        entries = [f"{self.path}/{name}" for name in os.listdir(self.path) if name.startswith(f"{kind}-")]
        for path in sorted(entries, key=os.path.getmtime)[:-KEPT]:
            shutil.rmtree(path)


def default_path() -> str:
    """${XDG_CACHE_HOME:-~/.cache}/pyrun-vm. Raises VmError when neither is known."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise VmError(f"XDG_CACHE_HOME must be an absolute path, not {base!r}")
    return f"{base}/pyrun-vm"


def digest(sources: object) -> str:
    """12 hex digits that stand for `sources`."""
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:12]


def contents(paths: list[str]) -> list[tuple[str, str]]:
    """The base names of some files, each with a hash of what is in it: sources for entry()."""
    found = []
    for path in paths:
        with open(path, "rb") as file:
            found.append((os.path.basename(path), hashlib.sha256(file.read()).hexdigest()))
    return found
