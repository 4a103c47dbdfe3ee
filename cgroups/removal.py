# SPDX-License-Identifier: Apache-2.0
"""Removing a cgroup that has cgroups below it or whose processes are still dying."""

from __future__ import annotations

import os
import time

from pyrun.runtime.events import step

from .waiting import wait_for

ENOENT, EBUSY = 2, 16
PAUSE_S = 0.002


def remove_subtree(directory: str, timeout_s: float) -> bool:
    """Whether `directory` and everything below it is gone in time; waits while there are processes.

    Raises OSError for any failure but EBUSY.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        with step("cgroup", f"find {directory} -depth -type d -exec rmdir {{}} +"):
            if _try(directory, deadline):
                return True
        left = deadline - time.monotonic()
        if left <= 0 or not wait_for(directory, "populated", 0, left):
            return False
        # Empty, yet it was busy: a process made a cgroup in between, or a dying one is not let go yet.
        time.sleep(PAUSE_S)


def _try(directory: str, deadline: float) -> bool:
    """One walk, deepest first, by one descriptor: a container may have nested cgroups beyond PATH_MAX.

    Whether everything could be removed. rmdir by descriptor cannot be led elsewhere: cgroup2 has no symlinks.
    """
    parent, _, name = directory.rpartition("/")
    try:
        here = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    names = [name]
    try:
        while names:  # `here` is the directory that holds names[-1]
            try:
                os.rmdir(names[-1], dir_fd=here)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != EBUSY:
                    raise
                below = _enter(here, names[-1])
                if below is None or time.monotonic() > deadline:  # busy without children: it has processes
                    return False
                here = _swap(here, below[0])
                names.append(below[1])
                continue
            names.pop()
            if names:
                here = _swap(here, os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here))
        return True
    except FileNotFoundError:  # somebody else removes it too: the next walk sees what is left
        return False
    finally:
        os.close(here)


def _enter(here: int, name: str) -> tuple[int, str] | None:
    """A descriptor of the directory and the name of a cgroup in it; None when it has none."""
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=here)
    try:
        with os.scandir(inside) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    return os.dup(inside), entry.name
    finally:
        os.close(inside)
    return None


def _swap(old: int, new: int) -> int:
    os.close(old)
    return new
