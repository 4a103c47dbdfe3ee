# SPDX-License-Identifier: Apache-2.0
"""Every directory of a tree that somebody hostile fills, however deep it is and whatever moves meanwhile.

os.walk() and os.fwalk() of Python 3.11 call themselves once per level, and fwalk() holds a descriptor for each: three
thousand mkdir in a container end them. Here one descriptor goes down by name, links not followed, and up by "..".
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def directories(top: str) -> Iterator[tuple[int, list[str]]]:
    """The directory `top` and each one below it: a descriptor, good until the next step, and the names in it.

    What vanishes or cannot be entered is left out. When a directory on the way is moved elsewhere, the walk ends there:
    ".." would lead to another place than the one it came from. Raises OSError for `top`, and for what the system lacks.
    """
    fd = os.open(top, _DIRECTORY)
    levels: list[tuple[tuple[int, int], list[str]]] = []  # which directory it is, what is still to be entered in it
    try:
        while True:
            with os.scandir(fd) as found:
                names = [(item.name, item.is_dir(follow_symlinks=False)) for item in found]
            levels.append((_identity(fd), [name for name, is_directory in names if is_directory]))
            yield fd, [name for name, _ in names]
            while (below := _next(fd, levels[-1][1])) < 0:
                levels.pop()
                if not levels:
                    return
                above = _above(fd)
                if above < 0:
                    return
                os.close(fd)
                fd = above
                if _identity(fd) != levels[-1][0]:
                    return
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _next(fd: int, names: list[str]) -> int:
    """The first of the directories that can be opened, taken from the list; -1 when none is left."""
    while names:
        try:
            return os.open(names.pop(), _DIRECTORY, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # O_NOFOLLOW: a link is no directory
            continue
    return -1


def _above(fd: int) -> int:
    """The parent directory; -1 when there is none any more, because this one was removed."""
    try:
        return os.open("..", _DIRECTORY, dir_fd=fd)
    except (FileNotFoundError, PermissionError):
        return -1
