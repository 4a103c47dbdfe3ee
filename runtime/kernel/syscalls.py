# SPDX-License-Identifier: Apache-2.0
"""System calls under their man-page names, raising an OSError that alone tells which call failed on what.

Only what Python's own `os` lacks is here. Import cost: the cffi extension, 0.3 ms.
"""

from __future__ import annotations

import os

from ._kernel import ffi, lib

RESOLVE_BENEATH: int = lib.RESOLVE_BENEATH
RESOLVE_IN_ROOT: int = lib.RESOLVE_IN_ROOT
RESOLVE_NO_MAGICLINKS: int = lib.RESOLVE_NO_MAGICLINKS
RESOLVE_NO_SYMLINKS: int = lib.RESOLVE_NO_SYMLINKS
RESOLVE_NO_XDEV: int = lib.RESOLVE_NO_XDEV

CLONE_NEWCGROUP: int = lib.CLONE_NEWCGROUP
CLONE_NEWIPC: int = lib.CLONE_NEWIPC
CLONE_NEWNET: int = lib.CLONE_NEWNET
CLONE_NEWNS: int = lib.CLONE_NEWNS
CLONE_NEWPID: int = lib.CLONE_NEWPID
CLONE_NEWTIME: int = lib.CLONE_NEWTIME
CLONE_NEWUSER: int = lib.CLONE_NEWUSER
CLONE_NEWUTS: int = lib.CLONE_NEWUTS
CLONE_PARENT: int = lib.CLONE_PARENT

SPLICE_F_MOVE: int = lib.SPLICE_F_MOVE
SPLICE_F_NONBLOCK: int = lib.SPLICE_F_NONBLOCK
BPF_F_ALLOW_MULTI: int = lib.BPF_F_ALLOW_MULTI
BPF_F_REPLACE: int = lib.BPF_F_REPLACE

EAGAIN = 11
OBJECT = "@IIIIqIIIIQ"  # struct pyrun_object, for the struct module
OBJECT_SIZE: int = ffi.sizeof("struct pyrun_object")


class SyscallError(OSError):
    """An OSError whose text is the call: "openat2 etc/passwd flags=0x80000: No such file or directory".

    Compare `.errno`: a subclass of OSError is not turned into FileNotFoundError and its like.
    """

    def __init__(self, errno: int, call: str) -> None:
        super().__init__(errno, os.strerror(errno))
        self.call = call

    def __str__(self) -> str:
        return f"{self.call}: {self.strerror}"


def _checked(result: int, call: str) -> int:
    if result < 0:
        raise SyscallError(ffi.errno, call)
    return result


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """A descriptor of `path` below `dirfd`, always O_CLOEXEC. openat2(2), kernel 5.6.

    Tries again when a rename races with the walk of ".." (EAGAIN), as openat2(2) advises.
    """
    raw = os.fsencode(path)
    for _ in range(128):
        fd = lib.pyrun_openat2(dirfd, raw, flags, mode, resolve)
        if fd >= 0 or ffi.errno != EAGAIN:
            break
    return _checked(fd, f"openat2 {os.fsdecode(raw)} flags={flags:#x} resolve={resolve:#x}")


def make_objects(root_fd: int, objects: bytearray, first: int, text: bytearray, data: bytearray) -> int:
    """Makes new files, directories and symlinks below `root_fd`: openat2(2), openat(2), write(2), fchown(2) … of each.

    objects: structs pyrun_object (syscalls.h), one after another, as OBJECT packs them; made from number `first` on.
    Returns the number of the first one that could not be made, of which nothing is left; how many there are, if all
    were. The interpreter lock is not held meanwhile.
    """
    count = len(objects) // OBJECT_SIZE
    return int(
        lib.pyrun_make_objects(
            root_fd,
            ffi.cast("struct pyrun_object *", ffi.from_buffer(objects)),
            first,
            count,
            ffi.from_buffer(text),
            ffi.from_buffer(data),
        )
    )


def syncfs(fd: int) -> None:
    """Writes out the file system that `fd` is on, and reports what it could not write (kernel 5.8). syncfs(2)."""
    _checked(lib.pyrun_syncfs(fd), "syncfs")


def start_writeback(fd: int, offset: int = 0, count: int = 0) -> None:
    """Has the kernel begin to write out a range of a file (0: to its end), so that a later sync waits less.

    sync_file_range(2) with SYNC_FILE_RANGE_WRITE: a hint, so a file system without it is no error.
    """
    lib.pyrun_start_writeback(fd, offset, count)


def setns(fd: int, flags: int = 0) -> None:
    """Moves the calling thread into the namespace of `fd`, or of a pidfd's process. setns(2)."""
    _checked(lib.pyrun_setns(fd, flags), f"setns flags={flags:#x}")


def unshare(flags: int) -> None:
    """New namespaces for the calling process. unshare(2)."""
    _checked(lib.pyrun_unshare(flags), f"unshare flags={flags:#x}")


def set_dumpable(dumpable: bool) -> None:
    """Whether others may ptrace this process and read its /proc entries. prctl(2), PR_SET_DUMPABLE."""
    _checked(lib.pyrun_set_dumpable(1 if dumpable else 0), "prctl PR_SET_DUMPABLE")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Closes every descriptor from `first` to `last`. close_range(2), by way of os.closerange."""
    os.closerange(first, min(last, 0x7FFFFFFF))


# ---- processes -------------------------------------------------------------------------------------------------------


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A pidfd of the process. pidfd_open(2), kernel 5.3. Raises ProcessLookupError when it is gone."""
    return os.pidfd_open(pid, flags)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Sends `signal` to the pidfd's process. pidfd_send_signal(2). Raises ProcessLookupError when it is gone."""
    from _signal import pidfd_send_signal as send  # `signal` builds enums: 4 ms

    send(pidfd, signal)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of descriptor `fd` of another process (which must be ptraceable by us). pidfd_getfd(2), kernel 5.6."""
    return _checked(lib.pyrun_pidfd_getfd(pidfd, fd), f"pidfd_getfd {fd}")


def pidfd_exit_status(pidfd: int) -> int | None:
    """The wait status of an ended process, even one that another process reaped; None while it runs.

    PIDFD_GET_INFO with PIDFD_INFO_EXIT: kernel 6.15. Raises OSError (ENOTTY, EINVAL, ESRCH) where that is not to be
    had, such as on an older kernel.
    """
    status = ffi.new("int *")
    found = _checked(lib.pyrun_pidfd_exit_status(pidfd, status), "ioctl PIDFD_GET_INFO")
    return int(status[0]) if found else None


def wait_pidfd(pidfd: int, *, block: bool = True) -> int | None:
    """Reaps our child behind `pidfd` and returns its wait status (as os.WIFEXITED reads it); None if it still runs.

    waitid(2) with P_PIDFD (5.4) and __WALL, since a child cloned with CLONE_PARENT is invisible to a plain wait.
    Raises ChildProcessError when it is not our child.
    """
    status = ffi.new("int *")
    while True:
        found = lib.pyrun_wait_pidfd(pidfd, 0 if block else lib.WNOHANG, status)
        if found >= 0:
            return int(status[0]) if found else None
        if ffi.errno != 4:  # EINTR
            raise OSError(ffi.errno, os.strerror(ffi.errno), "waitid P_PIDFD")


# ---- pipes -----------------------------------------------------------------------------------------------------------


def tee(source: int, target: int, count: int, flags: int = 0) -> int:
    """Copies up to `count` bytes from pipe to pipe without consuming them. tee(2). Raises BlockingIOError."""
    n = lib.pyrun_tee(source, target, count, flags)
    if n < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno), "tee")
    return int(n)


def splice_to(source: int, target: int, count: int, flags: int = 0) -> int:
    """Moves up to `count` bytes from `source` to `target`, one of them a pipe. splice(2). Raises BlockingIOError."""
    n = lib.pyrun_splice(source, target, count, flags)
    if n < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno), "splice")
    return int(n)


# ---- devices of a cgroup ---------------------------------------------------------------------------------------------


def bpf_prog_load_cgroup_device(instructions: bytes) -> int:
    """Loads a BPF_PROG_TYPE_CGROUP_DEVICE program (8 bytes an instruction) and returns its descriptor. bpf(2).

    Raises OSError; when the verifier refuses the program, with the last line of what it said.
    """
    count = len(instructions) // 8
    fd = lib.pyrun_bpf_prog_load_cgroup_device(instructions, count, ffi.NULL, 0)
    if fd >= 0:
        return int(fd)
    error = ffi.errno
    log = ffi.new("char[]", 16384)
    again = lib.pyrun_bpf_prog_load_cgroup_device(instructions, count, log, 16384)
    if again >= 0:
        return int(again)
    said = ffi.string(log).decode("ascii", "replace").strip().splitlines()
    raise SyscallError(error, "bpf BPF_PROG_LOAD cgroup_device" + (f" ({said[-1]})" if said else ""))


def bpf_prog_attach(cgroup_fd: int, program_fd: int, flags: int = 0, replaced_fd: int = -1) -> None:
    """Attaches a device program to a cgroup; with BPF_F_REPLACE in place of `replaced_fd`. bpf(2)."""
    _checked(lib.pyrun_bpf_prog_attach(cgroup_fd, program_fd, flags, replaced_fd), f"bpf BPF_PROG_ATTACH {flags:#x}")


def bpf_prog_detach(cgroup_fd: int, program_fd: int) -> None:
    """Takes a device program off a cgroup. bpf(2)."""
    _checked(lib.pyrun_bpf_prog_detach(cgroup_fd, program_fd), "bpf BPF_PROG_DETACH")


def bpf_prog_query(cgroup_fd: int) -> list[int]:
    """The ids of the device programs attached to a cgroup. bpf(2), BPF_PROG_QUERY."""
    ids = ffi.new("uint32_t[64]")
    count = _checked(lib.pyrun_bpf_prog_query(cgroup_fd, ids, 64), "bpf BPF_PROG_QUERY")
    return [int(ids[i]) for i in range(count)]


def bpf_prog_get_fd_by_id(program_id: int) -> int:
    """A descriptor of a loaded program. bpf(2), BPF_PROG_GET_FD_BY_ID."""
    return _checked(lib.pyrun_bpf_prog_get_fd_by_id(program_id), f"bpf BPF_PROG_GET_FD_BY_ID {program_id}")
