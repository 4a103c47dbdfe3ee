# SPDX-License-Identifier: Apache-2.0
"""Compiled seccomp programs in the running kernel: a forked child loads one with seccomp(2) and tries system calls.

ctypes is fine here: the child is this test's own, and what runs in a container is pyrun-init, not Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from errno import EACCES, EAFNOSUPPORT, EINVAL, ENOSYS, EPERM, EPROTONOSUPPORT
from typing import TYPE_CHECKING, Any

import pytest

from pyrun.runtime.engine import seccomp_profile
from pyrun.runtime.engine.defaults import CAPABILITIES
from pyrun.runtime.kernel import libseccomp
from pyrun.runtime.oci import seccomp
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = requires(root=True)

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
KILLED_BY_SIGSYS = 31

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class SockFprog(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def call(number: int, *args: int) -> int:
    """The errno of a system call, 0 if it succeeded."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg & (2**64 - 1)) for arg in args])
    return ctypes.get_errno() if result == -1 else 0


def nr(name: str) -> int:
    """The number of a system call on this machine."""
    number = libseccomp.syscall_resolve_name(name)
    assert number is not None, name
    assert number >= 0, name
    return number


def install(program: bytes, flags: int) -> int:
    """seccomp(2) in the calling process; the listener's fd or 0. Raises OSError."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    wrapped = SockFprog(len(program) // 8, program)
    result = libc.syscall(
        ctypes.c_long(nr("seccomp")),
        ctypes.c_ulong(SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(flags),
        ctypes.byref(wrapped),
    )
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def confined(profile: dict[str, Any] | None, work: Callable[[], Any]) -> Any:
    """What `work` returns, as JSON, in a child under the compiled profile; the signal's negative if it was killed."""
    program, flags = seccomp.compile(seccomp.parse(profile, "s"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            install(program, flags)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return json.loads(said) if code == 0 else code


def default(capabilities: tuple[str, ...] = CAPABILITIES) -> dict[str, Any] | None:
    return seccomp_profile.resolve(seccomp_profile.load(""), capabilities)


DENIED: dict[str, tuple[int, ...]] = {
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "unshare": (0,),
    "setns": (-1, 0),
    "swapon": (0, 0),
    "reboot": (0, 0, 0, 0),
    "init_module": (0, 0, 0),
    "finit_module": (-1, 0, 0),
    "kexec_load": (0, 0, 0, 0),
    "bpf": (-1, 0, 0),
    "keyctl": (-1, 0, 0, 0, 0),
    "add_key": (0, 0, 0, 0, 0),
    "request_key": (0, 0, 0, 0),
    "userfaultfd": (-1,),
    "io_uring_setup": (0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "open_by_handle_at": (-1, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "settimeofday": (0, 0),
    "fsopen": (0, 0),
    "open_tree": (-1, 0, 0),
    "move_mount": (-1, 0, -1, 0, 0),
    "mount_setattr": (-1, 0, 0, 0, 0),
    "acct": (0,),
    "syslog": (10, 0, 0),
    "quotactl": (0, 0, 0, 0),
}
ALLOWED: dict[str, tuple[int, ...]] = {
    "getpid": (),
    "getuid": (),
    "umask": (0o22,),
    "chdir": (0,),
    "ptrace": (-1, 0, 0, 0),
    "memfd_create": (0, 0),
    "pidfd_open": (0, 1),
    "landlock_create_ruleset": (0, 0, 1),
}


def test_default_profile_denies_and_allows() -> None:
    """Under docker's default profile the listed system calls get EPERM from the filter, the others reach the kernel."""

    def work() -> dict[str, int]:
        return {name: call(nr(name), *args) for name, args in {**DENIED, **ALLOWED}.items()}

    found = confined(default(), work)
    assert {name: found[name] for name in DENIED} == dict.fromkeys(DENIED, EPERM)
    assert EPERM not in {name: found[name] for name in ALLOWED if name != "ptrace"}.values()


def test_the_denials_are_the_filters() -> None:
    """Without a filter most of those calls fail for another reason, or succeed: so the EPERM above is the filter's."""
    allow_all = {"defaultAction": "SCMP_ACT_ALLOW"}
    harmless = {name: args for name, args in DENIED.items() if name not in ("acct", "reboot")}

    def work() -> dict[str, int]:
        return {name: call(nr(name), *args) for name, args in harmless.items()}

    found = confined(allow_all, work)
    assert len([name for name, errno in found.items() if errno != EPERM]) > len(harmless) * 2 // 3


def test_unknown_calls_get_enosys() -> None:
    """A number that no profile names, because it is newer, and clone3: ENOSYS, so that libc tries an older call."""
    found = confined(default(), lambda: [call(9999), call(100_000), call(nr("clone3"), 0, 0)])
    assert found == [ENOSYS, ENOSYS, ENOSYS]


def test_conditions_on_arguments() -> None:
    """clone without new namespaces only; personality's known values only; no AF_ALG and AF_VSOCK sockets."""
    new_user, sigchld = 0x10000000, 17

    def work() -> dict[str, int]:
        sockets = {}
        for name, family in {"inet": 2, "unix": 1, "alg": 38, "vsock": 40, "nfc": 39, "xdp": 44}.items():
            sockets[name] = call(nr("socket"), family, socket.SOCK_DGRAM, 0)
        return {
            **sockets,
            "clone": call(nr("clone"), new_user | sigchld, 0, 0, 0, 0),
            "persona": call(nr("personality"), 0x0400000),
            "query": call(nr("personality"), 0xFFFFFFFF),
        }

    found = confined(default(), work)
    denied = {name for name, errno in found.items() if errno == EPERM}
    assert denied == {"alg", "vsock", "clone", "persona"}
    assert (found["inet"], found["unix"], found["query"]) == (0, 0, 0)
    assert {found["nfc"], found["xdp"]} <= {0, EAFNOSUPPORT, EPROTONOSUPPORT, EINVAL, EACCES, 94}


def test_capabilities_open_their_calls() -> None:
    """With CAP_SYS_ADMIN in the container's set, mount and unshare reach the kernel; reboot still does not."""
    found = confined(
        default((*CAPABILITIES, "CAP_SYS_ADMIN")),
        lambda: [call(nr("unshare"), 0), call(nr("setns"), -1, 0) != EPERM, call(nr("reboot"), 0, 0, 0, 0)],
    )
    assert found == [0, True, EPERM]


def test_programs_run_under_the_default_profile() -> None:
    """Real programs work: the shell, a Python with threads, a DNS-less socket pair; and unshare(1) is refused."""

    def work() -> list[Any]:
        script = "import threading,os; t=threading.Thread(target=os.getpid); t.start(); t.join(); print('ok')"
        python = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        shell = subprocess.run("echo a | cat; ls / >/dev/null && echo b", shell=True, capture_output=True, text=True)
        unshare = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True)
        return [python.stdout, shell.stdout, unshare.returncode != 0, "Operation not permitted" in unshare.stderr]

    assert confined(default(), work) == ["ok\n", "a\nb\n", True, True]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"action": "SCMP_ACT_KILL_PROCESS"}, -KILLED_BY_SIGSYS),
        ({"action": "SCMP_ACT_TRAP"}, -KILLED_BY_SIGSYS),
        ({"action": "SCMP_ACT_ERRNO"}, EPERM),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": EACCES}, EACCES),
        ({"action": "SCMP_ACT_TRACE"}, ENOSYS),  # nobody traces
        ({"action": "SCMP_ACT_LOG"}, 0),
        ({"action": "SCMP_ACT_ALLOW"}, 0),
    ],
)
def test_actions(rule: dict[str, Any], outcome: int) -> None:
    """Each action does in the kernel what its name says."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], **rule}]}
    assert confined(profile, lambda: call(nr("getppid"))) == outcome


@pytest.mark.parametrize("flag", list(seccomp.FLAGS))
def test_the_kernel_takes_the_flags(flag: str) -> None:
    """Every flag that a profile may name is accepted together with the program."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [flag],
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert confined(profile, lambda: call(nr("swapon"), 0, 0)) == EPERM


def test_a_listener_decides() -> None:
    """SCMP_ACT_NOTIFY: the filter's fd tells of the call, and the answer given there is what the caller gets."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/nobody/asks",
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    program, flags = seccomp.compile(seccomp.parse(profile, "s"))
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        listener = install(program, flags)
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
        os._exit(call(nr("mkdirat"), -100, 0, 0))
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    import fcntl

    notification = bytearray(80)  # struct seccomp_notif
    fcntl.ioctl(fds[0], 0xC0502100, notification)  # SECCOMP_IOCTL_NOTIF_RECV
    ident, pid, _, number = struct.unpack_from("=QIIi", notification)
    assert (pid, number) == (child, nr("mkdirat"))
    fcntl.ioctl(fds[0], 0xC0182101, struct.pack("=Qqii", ident, 0, -77, 0))  # SECCOMP_IOCTL_NOTIF_SEND
    os.close(fds[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77


def test_a_small_allow_list() -> None:
    """A profile that allows next to nothing: its errno below its highest number, ENOSYS above, as with runc."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 95,
        "syscalls": [{"names": ["write", "exit_group", "getpid"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert confined(profile, lambda: [call(nr(name), 0, 0) for name in ("getpid", "getppid", "openat2")]) == [
        0,
        95,
        ENOSYS,
    ]
