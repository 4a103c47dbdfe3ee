# SPDX-License-Identifier: Apache-2.0
"""Carrying a plan out: clone3, then a conversation with pyrun-init until it has become the user's program.

pyrun-init says    we answer       when
─────────────────  ──────────────  ─────────────────────────────────────────────────────────────
SYNC point         GO (one byte)   the host side did what the point is named for (steps.SYNC_POINTS)
PID pid + pidfd    GO              FORK: this process goes on, the one before it has ended
FD name + fd       -               "netlink", "console", "seccomp": handed out by a step
TRACE ns           -               a step is done (only with trace)
READY              -               WAIT_START: `create` is done
EXEC               -               execve comes now
ERROR errno text   -               a step failed; the process ends
end of file        -               after EXEC: execve worked. Before it: the process was killed
"""

from __future__ import annotations

import os
import struct

from pyrun.runtime import breakpoints, events
from pyrun.runtime.errors import StartError
from pyrun.runtime.kernel import spawn, wire
from pyrun.runtime.kernel.syscalls import CLONE_PARENT, pidfd_send_signal, wait_pidfd
from pyrun.runtime.oci import hints
from pyrun.runtime.oci import steps as s
from pyrun.runtime.oci.wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyrun.runtime.oci.plan import Plan

AF_UNIX, SOCK_SEQPACKET, SOCK_CLOEXEC, SOL_SOCKET, SCM_RIGHTS, MSG_CMSG_CLOEXEC = 1, 5, 0o2000000, 1, 1, 0x40000000
SIGKILL = 9
GO = b"\1"
REPORT = struct.Struct("=IIiIQ")
SYNC_BREAKPOINT = 4


class Launch:
    """One process on its way through a plan.

    After run(): `pid`, `pidfd` (the caller closes it) and `fds`, what steps handed out by name (the caller closes
    them). On failure the process is dead, reaped if it was ours, and nothing is left open.
    """

    def __init__(
        self,
        plan: Plan,
        fds: Mapping[str, int],
        *,
        cgroup_fd: int = -1,
        clone_parent: bool = False,
    ) -> None:
        """
        Args:
            plan: what to do.
            fds: the descriptors that the plan names (not closed here).
            cgroup_fd: a directory of the cgroup2 file system to be born in, or -1.
            clone_parent: make the process our parent's child (the monitor's, when we are its worker).
        """
        self.plan = _with_breakpoint(plan)
        self.pid = -1
        self.pidfd = -1
        self.fds: dict[str, int] = {}
        self._given = fds
        self._cgroup_fd = cgroup_fd
        self._clone_parent = clone_parent
        self._exec_announced = False

    def run(
        self,
        on_sync: Mapping[int, Callable[[Launch], None]],
        on_fd: Mapping[str, Callable[[Launch], None]] | None = None,
    ) -> None:
        """Starts the process and answers it until the user's program runs, or READY.

        `on_sync` has a function for every sync point of the plan; `on_fd` may act as soon as a descriptor arrives.
        Raises StartError for a failed step, and whatever the functions raise.
        """
        from _socket import socket, socketpair  # the socket module adds 7 ms for nothing used here

        wire = Wire()
        for step in self.plan.steps:
            wire.add(step.op, step.args())
        encoded = wire.finish(trace=events.active())
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        try:
            plan_fd = spawn.sealed_memfd("pyrun-plan", encoded)
            try:
                self._spawn([theirs.fileno(), plan_fd, *(self._given[name] for name in wire.fd_names)])
            finally:
                os.close(plan_fd)
                theirs.close()
            self._converse(ours, on_sync, on_fd or {})
        except BaseException:
            self.abort()
            raise
        finally:
            ours.close()
        assert isinstance(ours, socket)

    def _spawn(self, fds: list[int]) -> None:
        flags = self.plan.clone_flags
        words = s.namespace_words(flags) or "no new namespaces"
        with events.step("process", f"clone3 {words}{' into cgroup' if self._cgroup_fd >= 0 else ''}; exec pyrun-init"):
            self.pid, self.pidfd = spawn.spawn(
                flags | (CLONE_PARENT if self._clone_parent else 0), self._cgroup_fd, fds
            )

    def abort(self) -> None:
        """Kills the process if there is one, reaps it if it is our child, and closes every descriptor."""
        if self.pidfd >= 0:
            try:
                pidfd_send_signal(self.pidfd, SIGKILL)
            except ProcessLookupError:
                pass
            try:
                wait_pidfd(self.pidfd)
            except OSError:
                pass  # the monitor's child: it reaps
            os.close(self.pidfd)
            self.pidfd = -1
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def _converse(
        self,
        sock: object,
        on_sync: Mapping[int, Callable[[Launch], None]],
        on_fd: Mapping[str, Callable[[Launch], None]],
    ) -> None:
        from _socket import CMSG_SPACE

        space = CMSG_SPACE(4)
        while True:
            try:
                data, control, _, _ = sock.recvmsg(REPORT.size + 4608, space, MSG_CMSG_CLOEXEC)  # type: ignore[attr-defined]
            except ConnectionResetError:  # it ended with an answer of ours unread: killed
                data = b""
            received = [struct.unpack("=i", c[2][:4])[0] for c in control if c[0] == SOL_SOCKET and c[1] == SCM_RIGHTS]
            if not data:
                self._ended()
                return
            kind, index, errno, value, nanoseconds = REPORT.unpack_from(data)
            text = data[REPORT.size :]
            if kind == wire.REPORT_TRACE:
                self._traced(index, nanoseconds)
            elif kind == wire.REPORT_SYNC:
                if value == SYNC_BREAKPOINT:
                    breakpoints.stop("container", f"{self.plan.steps[index - 1].describe()} (pyrun-init {self.pid})")
                else:
                    on_sync[value](self)
                self._go(sock)
            elif kind == wire.REPORT_FD:
                name = text.decode("ascii")
                self.fds[name] = received[0]
                if name in on_fd:
                    on_fd[name](self)
            elif kind == wire.REPORT_PID:
                self._forked(value, received[0])
                self._go(sock)
            elif kind == wire.REPORT_READY:
                return
            elif kind == wire.REPORT_EXEC:
                self._exec_announced = True
            elif kind == wire.REPORT_ERROR:
                self._failed(index, errno, text)

    def _go(self, sock: object) -> None:
        try:
            sock.send(GO)  # type: ignore[attr-defined]
        except (BrokenPipeError, ConnectionResetError):
            self._ended()

    def _forked(self, pid: int, pidfd: int) -> None:
        """The first process ended after FORK; its child is the one that counts."""
        try:
            wait_pidfd(self.pidfd)
        except OSError:
            pass  # the monitor's child: it reaps
        os.close(self.pidfd)
        self.pid, self.pidfd = pid, pidfd

    def _traced(self, index: int, nanoseconds: int) -> None:
        step = self.plan.steps[index]
        events.emit(events.Event("container", _area(step), step.describe(), nanoseconds / 1000))

    def _ended(self) -> None:
        """End of file: execve worked, or the process is gone without a word."""
        if self._exec_announced:
            if events.active():
                events.emit(events.Event("container", "exec", self.plan.steps[-1].describe(), 0.0))
            return
        raise StartError(
            "start", "the process was killed before it could run the program", hint="out of memory? see dmesg"
        )

    def _failed(self, index: int, errno: int, text: bytes) -> None:
        what, path, head = [*text.split(b"\0", 2), b"", b"", b""][:3]
        step = self.plan.steps[index] if index < len(self.plan.steps) else None
        last = self.plan.steps[-1]
        program = last.argv[0] if isinstance(last, s.Exec) else ""
        error = hints.start_error(step, errno, os.fsdecode(what), os.fsdecode(path), head, program)
        if step is not None and events.active():
            events.emit(events.Event("container", _area(step), step.describe(), 0.0, str(error)))
        raise error


def _area(step: s.Step) -> str:
    """The step's name in events."""
    return step.op.lower().replace("_", "-")


def _with_breakpoint(plan: Plan) -> Plan:
    """The plan with a sync point where PYRUN_BREAK wants to look at the container."""
    number = breakpoints.position([_area(step) for step in plan.steps]) if breakpoints.wanted("container") else 0
    if not number:
        return plan
    return plan.replace(steps=(*plan.steps[:number], s.Sync(SYNC_BREAKPOINT), *plan.steps[number:]))


def write_id_maps(pid: int, uid_map: str, gid_map: str) -> None:
    """Maps the ids of process `pid`'s new user namespace. user_namespaces(7): lines "inside outside count".

    Raises StartError: a range that this user may not map, or maps that overlap.
    """
    for name, value in (("uid_map", uid_map), ("gid_map", gid_map)):
        with events.step("userns", f"echo '{value.strip()}' > /proc/{pid}/{name}"):
            try:
                fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, value.encode("ascii"))
                finally:
                    os.close(fd)
            except OSError as error:
                raise StartError(
                    f"write {name}", os.strerror(error.errno or 0).lower(), errno=error.errno or 0,
                    hint="root, or newuidmap with ranges of /etc/subuid, may map other ids than one's own",
                ) from None  # fmt: skip
