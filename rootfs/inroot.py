# SPDX-License-Identifier: Apache-2.0
"""Paths below a root that cannot lead out of it: everything is found by openat2(2) and touched by fd or by one name.

Invariant 2: whoever fills the root (an archive, a running container) may put a symlink anywhere at any time. So a
parent directory is opened with RESOLVE_IN_ROOT, and what happens in it uses a single component that is never followed.
"""

from __future__ import annotations

import errno
import os
import stat

from pyrun.runtime.kernel import syscalls
from pyrun.runtime.kernel.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
NO_LINKS = IN_ROOT | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FLATTEN_AT = 64  # how deep remove_tree() descends before it moves what it finds up to the top


def open_in(root_fd: int, path: bytes, flags: int, *, resolve: int = IN_ROOT) -> int:
    """openat2(2) of `path` below the root. Raises OSError, as the subclass for its errno (FileNotFoundError …)."""
    if b"\0" in path:  # C would end the path there, and look at something else
        raise OSError(errno.EINVAL, "NUL in a path", path)
    try:
        return syscalls.openat2(root_fd, path or b".", flags, 0, resolve)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None


def open_directory(root_fd: int, path: bytes) -> int:
    """An O_PATH fd of the directory at `path` below the root, symlinks resolved inside it. Raises OSError."""
    return open_in(root_fd, path, _DIRECTORY)


def read_file(root_fd: int, path: str | bytes, max_bytes: int) -> bytes:
    """The content of the regular file at `path` below the root.

    A FIFO, device or socket is never opened, only looked at (CVE-2026-47262: a FIFO as /etc/passwd hangs the reader).
    Raises OSError: ENOENT and its like, EINVAL for what is no regular file, EFBIG for more than `max_bytes`.
    """
    handle = open_in(root_fd, os.fsencode(path), os.O_PATH | os.O_CLOEXEC)
    try:
        return read_regular(handle, path, max_bytes)
    finally:
        os.close(handle)


def read_regular(handle: int, path: str | bytes, max_bytes: int) -> bytes:
    """The content of the regular file behind the O_PATH fd `handle`, as read_file(); `path` is for messages."""
    fd = reopen_regular(handle, path)
    try:
        if os.fstat(fd).st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", path)
        parts, left = [], max_bytes + 1
        while left and (part := os.read(fd, left)):
            parts.append(part)
            left -= len(part)
        if not left:  # it grew while it was read
            raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", path)
        return b"".join(parts)
    finally:
        os.close(fd)


def reopen_regular(handle: int, path: str | bytes) -> int:
    """A readable fd of the regular file behind an O_PATH fd. Raises OSError(EINVAL) for anything else.

    Opening through /proc/self/fd reaches exactly the inode that was looked at; no name is resolved a second time.
    """
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Removes `name` in the directory `parent_fd`, whatever it is and however deep; symlinks are removed, not followed.

    A container can nest directories deeper than fds or Python's stack allow: below 64 levels, directories are first
    renamed to the top. Raises OSError; a missing name is no error.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.unlink(name, dir_fd=parent_fd)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    top = os.open(name, flags, dir_fd=parent_fd)
    prefix = b".pyrun-deep-" + os.urandom(8).hex().encode()  # else the container has something of that name there
    moved = 0

    def empty(fd: int, depth: int) -> None:
        nonlocal moved
        with os.scandir(fd) as found:
            inside = [(os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in found]
        for child, is_directory in inside:
            if not is_directory:
                os.unlink(child, dir_fd=fd)
            elif depth == _FLATTEN_AT:
                moved += 1
                os.rename(child, b"%s-%d" % (prefix, moved), src_dir_fd=fd, dst_dir_fd=top)
            else:
                child_fd = os.open(child, flags, dir_fd=fd)
                try:
                    empty(child_fd, depth + 1)
                finally:
                    os.close(child_fd)
                os.rmdir(child, dir_fd=fd)

    try:
        while True:
            before = moved
            empty(top, 0)
            if moved == before:
                break
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def remove_path(path: str) -> None:
    """remove_tree() of a host path."""
    parent = os.open(os.path.dirname(path) or ".", _DIRECTORY)
    try:
        remove_tree(parent, os.fsencode(os.path.basename(path)))
    finally:
        os.close(parent)
