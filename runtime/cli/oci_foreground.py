# SPDX-License-Identifier: Apache-2.0
"""A process in the foreground of `exec` and `run`: it gets our signals and our terminal, and its exit code is ours."""

from __future__ import annotations

import os

from pyrun.runtime.kernel.syscalls import pidfd_send_signal, wait_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

SIGWINCH = 28
#: HUP INT QUIT USR1 USR2 ALRM TERM CONT and real-time ones: whoever sends them means the program. WINCH is added for
#: a program without a terminal of its own; faults of our own stay ours, and so do CHLD, PIPE and URG, as with runc.
FORWARDED = (1, 2, 3, 10, 12, 14, 15, 18, SIGWINCH, *range(34, 65))


class Foreground:
    """Signals are caught from __enter__ on, before the process is there; those that come early are sent later."""

    def __init__(self) -> None:
        self._early: list[int] = []
        self._pidfd = -1
        self._console = -1
        self._pending = b""
        self._wake, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        from _signal import set_wakeup_fd, signal  # the signal module builds enums: 4 ms

        set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        from _signal import SIG_DFL, set_wakeup_fd, signal

        set_wakeup_fd(-1)
        for number in FORWARDED:
            signal(number, SIG_DFL)
        for fd in (self._wake, self._wake_in, self._console):
            if fd >= 0:
                os.close(fd)

    def _caught(self, number: int, _frame: object) -> None:
        if number == SIGWINCH and self._console >= 0:
            self._resize()
        elif self._pidfd < 0:
            self._early.append(number)
        else:
            try:
                pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def console(self, fd: int) -> None:
        """Takes (a copy of) the master end of the process's terminal, and gives it the size of ours."""
        self._console = os.dup(fd)
        os.set_blocking(self._console, False)
        self._resize()

    def _resize(self) -> None:
        from fcntl import ioctl
        from termios import TIOCGWINSZ, TIOCSWINSZ

        try:
            ioctl(self._console, TIOCSWINSZ, ioctl(0, TIOCGWINSZ, bytes(8)))
        except OSError:
            pass  # our stdin is no terminal

    def wait(self, pidfd: int) -> int:
        """Until the process, our child behind `pidfd`, ends: its exit code, or 128 and the signal."""
        self._pidfd = pidfd
        for number in self._early:
            self._caught(number, None)
        if self._console >= 0:
            from pyrun.runtime.monitor.terminal import RawTerminal

            terminal = RawTerminal(0)
            if os.isatty(0):
                terminal.enter()
            try:
                self._relay()
            finally:
                terminal.leave()
        else:
            self._sleep()
        code = os.waitstatus_to_exitcode(wait_pidfd(pidfd) or 0)
        return code if code >= 0 else 128 - code

    def _sleep(self) -> None:
        from select import POLLIN, poll

        waiter = poll()
        waiter.register(self._pidfd, POLLIN)
        waiter.register(self._wake, POLLIN)
        # A signal between two lines of Python is seen here: its handler runs when poll() returns.
        while all(fd != self._pidfd for fd, _ in waiter.poll()):
            self._drain_wake()

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake, 512)
        except BlockingIOError:
            pass

    def _relay(self) -> None:
        """Ours to the process's terminal and back, until the process has ended and nothing is left to read."""
        from select import POLLIN, POLLOUT, poll

        stdin = True
        while True:
            waiter = poll()
            waiter.register(self._wake, POLLIN)
            waiter.register(self._pidfd, POLLIN)
            waiter.register(self._console, POLLIN | (POLLOUT if self._pending else 0))
            if stdin and not self._pending:
                waiter.register(0, POLLIN)
            ready = dict(waiter.poll())
            if self._wake in ready:
                self._drain_wake()
            if 0 in ready:
                self._pending = os.read(0, 4096)
                stdin = bool(self._pending)
            if self._pending and ready.get(self._console, 0) & POLLOUT:
                self._pending = self._pending[os.write(self._console, self._pending) :]
            if self._console in ready and self._output() == 0 and self._pidfd in ready:
                return
            if self._pidfd in ready and self._console not in ready:
                return

    def _output(self) -> int:
        """Copies what there is to read, and returns how much that was."""
        try:
            data = os.read(self._console, 65536)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: nobody has the other end open; a last writer may still come
            if self._pidfd >= 0:
                from select import POLLIN, poll

                waiter = poll()
                waiter.register(self._pidfd, POLLIN)
                waiter.poll(20)
            return 0
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        return len(data)
