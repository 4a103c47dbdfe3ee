# SPDX-License-Identifier: Apache-2.0
"""Waiting for a cgroup to become empty or frozen, without asking again and again.

The kernel notifies pollers of cgroup.events whenever "populated" or "frozen" changes (POLLPRI, cgroup-v2.rst).
"""

from __future__ import annotations

import os
import select
import time

from .cgroupfs import flat_keyed

ENODEV = 19


def wait_for(directory: str, key: str, value: int, timeout_s: float) -> bool:
    """Whether cgroup.events came to say `key value` within `timeout_s`. A cgroup that is gone is empty.

    Raises FileNotFoundError for a cgroup that is gone when waiting for anything else.
    """
    deadline = time.monotonic() + timeout_s
    try:
        fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            while True:
                # Reading arms the notification, so a change between read and poll is not missed.
                if flat_keyed(os.pread(fd, 4096, 0).decode()).get(key) == value:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poller.poll(min(left, 1.0) * 1000)  # at most a second: a removal wakes nobody
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == ENODEV:
            error = FileNotFoundError(2, "No such file or directory", directory)
        if isinstance(error, FileNotFoundError) and key == "populated" and value == 0:
            return True
        raise error from None
