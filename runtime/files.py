# SPDX-License-Identifier: Apache-2.0
"""Files that are never half written, directories that only their owner reads, and locks.

Invariant 5: state is written to a temporary file, synced and renamed, under a lock, in directories of mode 0700.
A reader sees the old or the new content; a full disk loses the new content, never the old.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self


def private_dir(path: str) -> str:
    """`path`, created with its parents as a directory of mode 0700 if it is missing. Raises OSError."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        if parent:
            private_dir(parent)  # os.makedirs(mode=) is for the last one only: its parents would be open to everybody
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):  # else somebody else was faster
                raise NotADirectoryError(20, "Not a directory", path) from None
    return path


def write_atomic(path: str, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replaces the file at `path` with `data` in one step; `sync=False` where the run root (a tmpfs) is meant.

    Raises OSError and leaves the old file as it was, with no temporary file beside it.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path  # write(2) does not know it
        raise


def write_json(path: str, value: Any, *, mode: int = 0o600, sync: bool = True) -> None:
    """write_atomic() of `value` as indented JSON: these files are meant to be read by people too."""
    import json

    try:
        data = json.dumps(value, indent=1, ensure_ascii=False).encode()
    except (
        UnicodeEncodeError
    ):  # somewhere a byte that is no UTF-8, as os.fsdecode() has it: \udc80 comes back as it was
        data = json.dumps(value, indent=1).encode()
    write_atomic(path, data + b"\n", mode=mode, sync=sync)


def read_json(path: str) -> Any:
    """The JSON value in the file at `path`. Raises OSError, or ValueError for what is not JSON."""
    import json

    with open(path, "rb") as file:
        return json.loads(file.read())


class Lock:
    """An exclusive flock(2) on the file at `path`, held while the `with` block runs; freed by the kernel on any death.

    `blocking=False` raises BlockingIOError when somebody else holds it. The file is left in place: unlinking a lock
    file lets two processes hold "the" lock at once.
    """

    def __init__(self, path: str, *, blocking: bool = True, shared: bool = False) -> None:
        self.path = path
        self._how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB)
        self._fd = -1

    def __enter__(self) -> Self:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, self._how)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._fd)
        self._fd = -1
