# SPDX-License-Identifier: Apache-2.0
"""Starting pyrun-init: clone3 into new namespaces and a cgroup, then execveat of a sealed memfd.

Between the two system calls the child runs C only; Python never runs inside (invariant 1).
"""

from __future__ import annotations

import os

from ._kernel import ffi, lib
from .syscalls import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MFD_EXEC = 0x10  # kernel 6.3: without it vm.memfd_noexec=1 makes the file not executable
F_ADD_SEALS = 1033
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE: fcntl(2)
EINVAL = 22

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pyrun-init")

_program_fd = -1


def sealed_memfd(name: str, content: bytes, *, executable: bool = False) -> int:
    """A memfd with `content` that nobody can change any more, whatever descriptor they get of it. memfd_create(2)."""
    from fcntl import fcntl

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | (MFD_EXEC if executable else 0))
    except OSError as error:
        if error.errno != EINVAL or not executable:
            raise
        fd = os.memfd_create(name, flags)  # before 6.3 every memfd may be executed
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl(fd, F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def program_fd() -> int:
    """The sealed memfd of pyrun-init; made once per process, inherited by forks (the monitor's workers keep it)."""
    global _program_fd
    if _program_fd < 0:
        with open(PROGRAM, "rb") as file:
            _program_fd = sealed_memfd("pyrun-init", file.read(), executable=True)
    return _program_fd


def forget_program_fd() -> None:
    """For a process that has just closed all descriptors: the next spawn makes a new memfd."""
    global _program_fd
    _program_fd = -1


def spawn(flags: int, cgroup_fd: int, fds: Sequence[int]) -> tuple[int, int]:
    """Starts pyrun-init and returns (pid, pidfd). clone3(2), kernel 5.7 for CLONE_INTO_CGROUP.

    Args:
        flags: CLONE_NEW* for the namespaces it is born in; CLONE_PARENT to make it our parent's child.
        cgroup_fd: the cgroup2 directory it is born in, or -1 for our own.
        fds: the sync socket, the plan, then the plan's own descriptors (init/wire.h).

    Raises SyscallError. What goes wrong after the clone comes as a report on the socket.
    """
    request = ffi.new("struct pyrun_spawn *")
    request.flags = flags
    request.cgroup = cgroup_fd
    request.program = program_fd()
    request.count = len(fds)
    for index, fd in enumerate(fds[:64]):
        request.fds[index] = fd
    pid = lib.pyrun_spawn(request)
    if pid < 0:
        raise SyscallError(ffi.errno, f"clone3 flags={flags:#x}")
    return pid, int(request.pidfd)
