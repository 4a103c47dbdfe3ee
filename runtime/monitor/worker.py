# SPDX-License-Identifier: Apache-2.0
"""Workers: forks of the warm monitor that do one request each; and the link by which they speak to it.

A worker never returns into the monitor's code: whatever happens in it ends in os._exit().
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from _thread import allocate_lock

from pyrun.runtime.monitor import protocol, sockets
from pyrun.runtime.monitor.answers import describe_error, error_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    Body = Callable[["WorkerLink"], int]

ALL_SIGNALS = signal.valid_signals()
POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # become SystemExit: clean-ups run
LINK_FD = 3


class WorkerLink:
    """The worker's side of its socketpair with the monitor. Every method blocks until the monitor has answered.

    Where the monitor refuses, a PyrunError is raised; where it is gone, ConnectionError: then undo what was begun.
    A worker with several threads (`build`) may ask from any of them.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._one_at_a_time = allocate_lock()
        self._parser = protocol.Parser()

    def adopt(self, session: dict[str, Any], fds: Mapping[str, int]) -> None:
        """Hands a process to the monitor, which from now on owns it: reads its output, reaps it, calls exited().

        Call it before the process runs the user's program: when this returns, the session is also in the keeper, so
        that no kill -9 can lose it. The fds stay the caller's to close.

        Args:
            session: {"id", "kind": "container" | "exec", "tty": bool,
                "pid": int (for `sessions`; optional),
                "log": {"dir", "max_size_bytes", "max_files"} or None,
                "stdin": "none" | "open" (stays open when a client goes) | "once" (closed with its first client),
                "attach": None, or {"stdin", "stdout", "stderr", "sig_proxy": bool, "detach_keys": str} to connect the
                    client of this request: output from now on, stdin and signals as soon as this worker calls
                    started() or exits with 0; with "leash": True the process is killed when its last client goes}
            fds: "pidfd"; and either "tty" (the pty master) or "stdout", "stderr" (read ends), "stdin" (write end,
                optional).
        """
        names = list(fds)
        self._ask("adopt", {"session": session, "names": names}, [fds[name] for name in names])

    def started(self, session_id: str) -> None:
        """The program runs: the client that adopt() or attach() connected gets stdin and signals now, not at this
        worker's exit."""
        self.request("started", id=session_id)

    def attach(
        self, session_id: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True,
        sig_proxy: bool = True, detach_keys: bytes = protocol.DETACH_KEYS,
    ) -> None:  # fmt: skip
        """Connects the client of this request to a running session; stdin and signals once this worker has exited
        with 0. The client's exit code is then the session's. Raises NotFound."""
        self.request(
            "attach", id=session_id, stdin=stdin, stdout=stdout, stderr=stderr, sig_proxy=sig_proxy,
            detach_keys=detach_keys.decode("latin-1"),
        )  # fmt: skip

    def hold_sockets(self, session_id: str, fds: Sequence[int], targets: Sequence[Any]) -> None:
        """Keeps the sockets (reserved or listening: published ports) open until the session has ended.

        targets[i] (JSON) is given to handlers.make_relay() with fds[i]. The fds stay the caller's to close. May be
        called before adopt(); then the sockets go if this worker ends without having adopted the session.
        """
        for start in range(0, len(fds), 100):
            some = slice(start, start + 100)
            self._ask("hold-sockets", {"id": session_id, "targets": list(targets[some])}, fds[some])

    def wait(self, session_id: str) -> int:
        """The exit code of a session, when it has finished. Raises NotFound at once if there is no such session."""
        return int(self.request("wait", id=session_id)["code"])

    def request(self, name: str, **args: Any) -> Any:
        """Any call that the monitor answers itself (see pyrun.runtime.monitor)."""
        return self._ask(name, args, ())

    def tell(self, name: str, **args: Any) -> None:
        """A call that has no answer ("result", "error")."""
        self._send(protocol.LINK, protocol.pack_json({"call": name, **args}), ())

    def exiting(self, code: int) -> None:
        """The last word: what this worker is about to exit with. Ending a process of 30 MB takes milliseconds for
        which nobody should wait."""
        try:
            self._send(protocol.EXIT, code.to_bytes(4, "little"), ())
        except OSError:
            pass  # the monitor is gone

    def _send(self, kind: int, payload: bytes, fds: Sequence[int]) -> None:
        data = protocol.frame(kind, payload)
        view = memoryview(data)[sockets.send(self._sock, data, fds) :]
        while view:
            view = view[self._sock.send(view) :]

    def _ask(self, name: str, args: dict[str, Any], fds: Sequence[int]) -> Any:
        with self._one_at_a_time:
            self._send(protocol.LINK, protocol.pack_json({"call": name, **args}), fds)
            while True:
                received = self._sock.recv(65536)
                if not received:
                    raise ConnectionResetError("the monitor is gone")
                for kind, payload in self._parser.feed(received):
                    answer = protocol.unpack_json(payload)
                    if kind == protocol.ERROR:
                        raise error_of(answer)
                    return answer["value"]


def answering(function: Callable[[WorkerLink], Any]) -> Body:
    """The body of a worker that answers with function(link)'s JSON value, or with the error it raises."""

    def body(link: WorkerLink) -> int:
        from pyrun.runtime.errors import PyrunError

        try:
            value = function(link)
        except Exception as error:
            link.tell("error", error=describe_error(error))
            if isinstance(error, PyrunError):
                return 1
            raise  # a traceback in monitor.log
        link.tell("result", value=value)
        return 0

    return body


class Setup:
    """What a worker's process is to be: its stdio and other fds, directory, umask, environment, and name."""

    def __init__(
        self, name: str, *, stdio: Sequence[int] = (), cwd_fd: int = -1, umask: int = 0o022,
        environ: Sequence[bytes] | None = None, keep: Sequence[int] = (),
        limits: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.stdio = stdio
        self.cwd_fd = cwd_fd
        self.umask = umask
        self.environ = environ
        self.keep = keep
        self.limits = limits


def fork(setup: Setup, body: Body) -> tuple[int, _socket.socket]:
    """Forks a worker that runs body(link) and exits with what it returns; (pid, our end of its link).

    Raises OSError (EAGAIN, ENOMEM).
    """
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    # A signal that reached the child before it has its own handlers would be taken for the monitor's, whose wake-up
    # pipe it still shares.
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _run(setup, theirs, parent, body)
    except BaseException:
        if os.getpid() != parent:
            os._exit(125)  # a signal at the very end of _run(): still, a child never returns
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        theirs.close()
    return pid, ours


def _run(setup: Setup, sock: _socket.socket, parent: int, body: Body) -> NoReturn:
    code = 125
    log = os.dup(2)
    link = WorkerLink(sock)
    try:
        _become_worker(setup, sock, parent, log)
        code = body(link)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 125
    except BaseException:
        _log_failure(setup.name, log)
    finally:
        _leave(link, code & 0xFF)


def _log_failure(name: str, log: int) -> None:
    import traceback

    text = f"{time.strftime('%F %T')} worker {name!r} failed:\n{traceback.format_exc()}"
    os.write(log, text.encode("utf-8", "backslashreplace"))


def _leave(link: WorkerLink, code: int) -> NoReturn:
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    pass  # the client's terminal or pipe is gone
            link.exiting(code)
            os._exit(code)
        except BaseException:  # SystemExit of a signal that came just before: the decision to leave stands
            continue


def _become_worker(setup: Setup, sock: _socket.socket, parent: int, log: int) -> None:
    import prctl

    gc.enable()
    prctl.set_pdeathsig(signal.SIGTERM)  # nobody would adopt what it starts; its clean-ups run
    if os.getppid() != parent:
        os._exit(125)
    prctl.set_name("pyrun-worker")
    _reset_signals()
    os.setsid()
    for target, fd in enumerate(setup.stdio):
        os.dup2(fd, target)
    if setup.cwd_fd >= 0:
        os.fchdir(setup.cwd_fd)
    close_all_but([sock.fileno(), log, *setup.keep])
    if setup.limits:
        import resource

        for what, values in setup.limits.items():
            resource.setrlimit(what, values)
    os.umask(setup.umask)
    if setup.environ is not None:
        _replace_environment(setup.environ)
    _reopen_streams()
    prctl.set_proctitle(f"pyrun: worker: {setup.name}")


def close_all_but(keep: Sequence[int]) -> None:
    """Closes every fd above 2 that is not in `keep`. close_range(2)."""
    start = 3
    for fd in sorted({fd for fd in keep if fd > 2}):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 0x7FFFFFFF)


def _ignore_polite_signals() -> None:
    for number in POLITE:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: object) -> None:
    _ignore_polite_signals()  # whoever asks twice must not interrupt the clean-ups
    raise SystemExit(128 + number)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    for number in POLITE:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _replace_environment(environ: Sequence[bytes]) -> None:
    os.environ.clear()
    for item in environ:
        name, separator, value = item.partition(b"=")
        if name and separator:
            os.environb[name] = value
    time.tzset()


def _reopen_streams() -> None:
    """sys.stdin, stdout, stderr over what fds 0, 1, 2 are now; the old objects were made for the monitor's."""
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        buffering = 1 if mode == "w" and (fd == 2 or os.isatty(fd)) else -1
        stream = open(fd, mode, buffering, encoding="utf-8", errors="surrogateescape", closefd=False)
        setattr(sys, name, stream)
