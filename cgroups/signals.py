# SPDX-License-Identifier: Apache-2.0
"""Signals to every process of a cgroup, without hitting anybody else by a reused pid."""

from __future__ import annotations

import os
import time

from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.events import step

from .mount import own_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .group import Cgroup

SIGKILL = 9
KILL_ROUNDS = 100


def signal_all(group: Cgroup, number: int) -> int:
    """Sends a signal to each process of the cgroup and below, and returns to how many. Raises OSError.

    The cgroup is frozen meanwhile, so that no process escapes by forking; signals arrive when it thaws.
    """
    was_frozen = group.frozen()
    if not was_frozen and group.populated():
        try:
            group.freeze(timeout_s=2.0)
        except PyrunError:
            pass  # one process does not stop: it cannot fork either, and the others get their signal
    sent = 0
    try:
        with step("cgroup", f"kill -{number} $(cat {group.directory}/cgroup.procs)"):
            for pid in group.procs():
                sent += _signal_one(group.path, pid, number)
    finally:
        if not was_frozen:
            try:
                group.thaw()
            except NotFound:  # all of them died and somebody removed it
                pass
    return sent


def _signal_one(path: str, pid: int, number: int) -> bool:
    """Whether the process was there to get it. The pidfd first, then the check whose pid it is."""
    from signal import pidfd_send_signal  # `signal` costs an import of enum; this is no hot path

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        now = own_path(pid)
        if now != path and not now.startswith(f"{path}/"):
            return False  # the pid was given to somebody else between cgroup.procs and pidfd_open
        pidfd_send_signal(pidfd, number)  # to the process of the pidfd, or to nobody
        return True
    except (ProcessLookupError, FileNotFoundError):
        return False
    finally:
        os.close(pidfd)


def kill_one_by_one(group: Cgroup) -> None:
    """What cgroup.kill does, for kernels before 5.14. Raises PyrunError when new processes keep coming."""
    for _ in range(KILL_ROUNDS):
        if not signal_all(group, SIGKILL) and not group.populated():
            return
        time.sleep(0.005)
    raise PyrunError(f"kill cgroup {group.path}", f"it still has processes after {KILL_ROUNDS} rounds of SIGKILL")
