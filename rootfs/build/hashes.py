# SPDX-License-Identifier: Apache-2.0
"""Hashes: digests of files that did not change since they were last read, so that a rebuild need not read them again.

A file is taken for unchanged if device, inode, size, mtime and ctime are what they were, in nanoseconds. Nobody can set
a ctime, but timestamps only move with the kernel's clock tick: a file that is written a second time within one tick
looks unchanged (git calls this racy, Documentation/technical/racy-git.txt). So a digest is only remembered if, when
the reading began, the ctime was SETTLED old: any change after that gets a later one. File systems with coarse
timestamps (FAT has 2 s, NFS the server's clock) are why that is seconds and not a tick. What is left: a program that
keeps a file mapped and writes into a page that it had made dirty before the reading, which moves no timestamp until the
kernel has written the page out; and a network file system that makes up its ctimes. git has the same two.

On disk, for each context: a magic word, a SHA-256 of the rest, records of 72 bytes. Whatever cannot be read is as good
as none. Files of contexts that were not built for a month go.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time

from pyrun.runtime.files import private_dir, write_atomic

_MAGIC = b"pyrun-hashes-1\n\0"
_KEY = struct.Struct("<QQQqq")
_RECORD = _KEY.size + 32
_CHECK = len(_MAGIC) + 32
SETTLED_NS = 3 * 10**9
MOST = 400_000  # records kept of one context, 29 MB; those of the last builds
FORGOTTEN_S = 30 * 24 * 3600


class Hashes:
    """Digests by the identity of files. `path`: the file that keeps them, or ""; missing or damaged is empty."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._new = False
        self._used: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._loaded = not path

    @classmethod
    def of(cls, directory: str, context: str) -> Hashes:
        """The memory for a context of the host, kept in a directory of such; "" for `directory` keeps nothing."""
        if not directory:
            return cls()
        name = hashlib.sha256(os.fsencode(os.path.realpath(context))).hexdigest()[:24]
        return cls(os.path.join(directory, name))

    def get(self, info: os.stat_result) -> bytes | None:
        """The 32 bytes that put() was given for this very state of a file, else None."""
        if not self._loaded:
            self._load()
        key = _key(info)
        found = self._used.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self._used[key] = found
        return found

    def put(self, info: os.stat_result, digest: bytes, began_ns: int) -> None:
        """Remembers what reading the file gave; `info` is from before the reading, `began_ns` when that began."""
        if info.st_ctime_ns + SETTLED_NS < began_ns:  # the mtime may be anything: touch(1) sets it
            self._used[_key(info)] = digest
            self._new = True

    def save(self) -> None:
        """Writes the file if anything is new. A failure is no error: the next build hashes again."""
        if not self._new or not self.path:
            return
        self._new = False
        self._load()  # what another build has added meanwhile
        older = {key: value for key, value in self._old.items() if key not in self._used}
        records = [*older.items(), *self._used.items()][-MOST:]
        body = b"".join([key + value for key, value in records])
        try:
            private_dir(os.path.dirname(self.path))
            # not synced: the check sum tells a half-written file
            write_atomic(self.path, _MAGIC + hashlib.sha256(body).digest() + body, sync=False)
            self._forget_others()
        except OSError:
            pass

    def _forget_others(self) -> None:
        before = time.time() - FORGOTTEN_S
        with os.scandir(os.path.dirname(self.path)) as found:
            for entry in found:
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry.path)

    def _load(self) -> None:
        self._loaded = True
        try:
            with open(self.path, "rb") as file:
                data = file.read(_CHECK + MOST * _RECORD + 1)
                os.utime(file.fileno())  # it is of use still
        except OSError:
            return
        body = data[_CHECK:]
        if data[:_CHECK] != _MAGIC + hashlib.sha256(body).digest() or len(body) % _RECORD:
            return
        size = _KEY.size
        self._old = {body[at : at + size]: body[at + size : at + _RECORD] for at in range(0, len(body), _RECORD)}


def _key(info: os.stat_result) -> bytes:
    return _KEY.pack(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def now_ns() -> int:
    """The clock that timestamps of files are taken from."""
    return time.time_ns()
