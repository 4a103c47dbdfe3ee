# SPDX-License-Identifier: Apache-2.0
"""Which process a pidfd stands for, and how it ended, whoever its parent is."""

from __future__ import annotations

import os

from pyrun.runtime.kernel.syscalls import pidfd_exit_status, wait_pidfd


def pid_of(pidfd: int) -> int:
    """The process id behind a pidfd in our pid namespace; -1 once it is reaped. proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line[4:])
    return -1


def returncode_of(pidfd: int) -> int | None:
    """The exit code of an ended process, or -N for death by signal N; None when nobody can know.

    Our own child is reaped. What an earlier monitor started is init's child: while it is a zombie, /proc has its wait
    status; once init has reaped it, PIDFD_GET_INFO has (kernel 6.15), because the pidfd was opened before.
    """
    try:
        status = wait_pidfd(pidfd, block=False)
    except ChildProcessError:
        status = _zombie_status(pidfd)
        if status is None:
            try:
                status = pidfd_exit_status(pidfd)
            except OSError:
                return None
    return None if status is None else os.waitstatus_to_exitcode(status)


def _zombie_status(pidfd: int) -> int | None:
    """The wait status of a zombie that is not our child; None when it is reaped. proc_pid_stat(5), exit_code."""
    pid = pid_of(pidfd)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # As long as the pidfd knows its pid, nobody else has it: what was read is the process's own.
    return int(fields[-1]) if fields[0] == b"Z" and pid_of(pidfd) == pid else None
