# SPDX-License-Identifier: Apache-2.0
"""Getting a connection to the monitor, and starting one when there is none, as tmux starts its server.

Of several clients that find none, one starts it, under a lock; the others wait for the lock and then find it.
"""

from __future__ import annotations

import os
import sys

from pyrun.runtime.files import Lock
from pyrun.runtime.monitor import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence
    from typing import NoReturn

    from pyrun.runtime.paths import Paths

ENTRY = "pyrun.runtime.cli.monitor"  # its main() builds the Handlers and calls server.serve()
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ")  # and XDG_*, PYRUN_*: a monitor outlives whoever started it
READY_FD = 3


def connect(paths: Paths, *, start: bool = True) -> _socket.socket | None:
    """A connection to the monitor of these roots; starts one if there is none, or returns None with start=False.

    Raises PyrunError when it cannot be started or the run root is not to be used, BlockingIOError for a full backlog.
    """
    try:
        return _connect(paths, start)
    except BlockingIOError:
        raise
    except OSError as error:
        from pyrun.runtime.errors import PyrunError

        denied = isinstance(error, PermissionError)
        hint = "sudo pyrun …, or a run root of your own: --run-root" if denied else "--run-root names another directory"
        why = (error.strerror or str(error)).lower()
        raise PyrunError(f"use the run root {paths.run}", why, hint=hint) from None


def _connect(paths: Paths, start: bool) -> _socket.socket | None:
    try:
        return sockets.connect(paths.monitor_socket)
    except (FileNotFoundError, ConnectionRefusedError):
        if not start:
            return None
    _check_run_root(paths.run)
    with Lock(f"{paths.run}/monitor.lock"):
        try:
            return sockets.connect(paths.monitor_socket)
        except (FileNotFoundError, ConnectionRefusedError):
            start_monitor(paths)
        return sockets.connect(paths.monitor_socket)


def arguments(argv: Sequence[str]) -> tuple[Paths, int]:
    """What the entry's main() finds in sys.argv: the roots, and the fd for server.serve(ready_fd=)."""
    from pyrun.runtime.paths import Paths

    return Paths(argv[1], argv[2]), int(argv[3])


def start_monitor(paths: Paths) -> None:
    """Starts a monitor and returns when clients can connect to it. The caller holds the lock. Raises PyrunError."""
    ready, ready_writer = os.pipe2(os.O_CLOEXEC)
    command = _command(paths)  # before the fork: nothing may fail in between
    try:
        child = os.fork()
        if child == 0:
            _detach_and_exec(command, _environment(), f"{paths.run}/monitor.log", ready_writer)
        os.close(ready_writer)
        ready_writer = -1
        os.waitpid(child, 0)
        if os.read(ready, 1) == b"+":
            return
    finally:
        os.close(ready)
        if ready_writer >= 0:
            os.close(ready_writer)
    from pyrun.runtime.errors import PyrunError

    raise PyrunError("start the monitor", _last_words(paths), hint=f"all it said is in {paths.run}/monitor.log")


def _check_run_root(run_root: str) -> None:
    os.makedirs(run_root, mode=0o700, exist_ok=True)
    status = os.stat(run_root)
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to uid {status.st_uid}")
    if status.st_mode & 0o077:
        os.chmod(run_root, 0o700)


def _command(paths: Paths) -> list[str]:
    """The interpreter and its arguments: the same modules from the same places as here, whatever made our sys.path, and
    nothing from the current directory or PYTHON*."""
    interpreter = sys.executable or os.readlink("/proc/self/exe")  # '' when argv[0] could not be looked up in PATH
    flags = "-IS" if sys.flags.no_site else "-I"
    # Not '' and other relative ones; but the finder of an editable install marks its place with what is no path.
    path = [entry for entry in sys.path if os.path.isabs(entry) or entry.startswith("__editable__")]
    code = f"import sys; sys.path[:] = {path!r}; import {ENTRY} as entry; entry.main()"
    return [interpreter, flags, "-c", code, paths.data, paths.run, str(READY_FD)]


def _environment() -> dict[bytes, bytes]:
    kept = [name.encode() for name in KEPT_ENVIRONMENT]
    return {name: value for name, value in os.environb.items() if name in kept or name.startswith((b"XDG_", b"PYRUN_"))}


def _detach_and_exec(command: list[str], environ: dict[bytes, bytes], log: str, ready: int) -> NoReturn:
    """In the child: a session of its own, no controlling terminal, none of the caller's fds, then exec."""
    try:
        os.setsid()
        if os.fork():  # so that no session leader is left that could get a controlling terminal
            os._exit(0)
        os.chdir("/")
        os.umask(0o022)
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        saved = os.dup(ready)  # which may be any of 0 to 3
        for source, target in ((null, 0), (null, 1), (log_fd, 2), (saved, READY_FD)):
            os.dup2(source, target)
        os.closerange(READY_FD + 1, 0x7FFFFFFF)
        _default_signals()
        os.execve(command[0], command, environ)
    finally:
        os._exit(127)


def _default_signals() -> None:
    """What a shell's `&`, nohup or a cautious parent ignored or blocked must not be inherited for good."""
    import _signal  # the C module: `signal` builds enums, 4 ms

    for number in range(1, 65):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL, SIGSTOP, and those that libc keeps for itself
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _last_words(paths: Paths) -> str:
    try:
        with open(f"{paths.run}/monitor.log", "rb") as file:
            lines = file.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
    except OSError as error:
        return f"it ended at once ({error})"
    return lines[-1] if lines else "it ended at once"
