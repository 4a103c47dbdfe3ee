# SPDX-License-Identifier: Apache-2.0
"""The thin client: sends a request to the monitor (starting one if there is none) and relays stdio and signals.

Every command pays for what is imported here: os, _socket, _signal, select and struct, all compiled into the
interpreter or loaded by it anyway; json only for calls, termios only for a terminal.
"""

from __future__ import annotations

import _signal  # the C module: `signal` builds enums, 4 ms
import os
import select
import time

from pyrun.runtime import __version__
from pyrun.runtime.monitor import protocol, sockets, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pyrun.runtime.errors import PyrunError
    from pyrun.runtime.monitor.terminal import DetachKeys, RawTerminal
    from pyrun.runtime.paths import Paths

ATTEMPTS = 5  # to reach a monitor that is just ending
CHUNK = 4096  # PIPE_BUF: what a pipe that is ready takes without blocking (poll(2), pipe(7))
READ, WRITE = select.POLLIN, select.POLLOUT

#: signals that go to the worker while it works for us
EARLY = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT)
#: signals that are never forwarded: those that cannot be caught, tell of our own faults, stop us, or are ours
OWN = frozenset(
    getattr(_signal, f"SIG{name}")
    for name in (
        "KILL",
        "STOP",
        "CHLD",
        "PIPE",
        "CONT",
        "TTIN",
        "TTOU",
        "TSTP",
        "URG",
        "WINCH",
        "SEGV",
        "BUS",
        "FPE",
        "ILL",
        "TRAP",
        "SYS",
        "ABRT",
    )
)
IMPATIENT, IMPATIENT_S = 3, 2.0  # so many SIGINTs or SIGTERMs in so many seconds, and the client goes at once
STILL_RUNNING = b"""
pyrun: the program goes on: as PID 1 it gets only signals that it handles
hint: pyrun stop ends it; with --init it would have got the signal
"""


def forward(argv: Sequence[str], paths: Paths) -> int:
    """Runs the command line `argv` (without the program's name) in a worker of the monitor; returns its exit code.

    If the command leaves this client attached to a container, relays stdin, output, signals and the window size until
    that ends, or the detach keys are typed (0). Raises PyrunError when the monitor refuses, cannot be started, or ends
    meanwhile. If nobody reads our output any more, this process ends by SIGPIPE, as any filter does.
    """
    _fill_stdio()
    words = [os.fsencode(word) for word in argv]
    environ = [name + b"=" + value for name, value in os.environb.items()]
    umask = os.umask(0o077)
    os.umask(umask)
    cwd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection = Connection.accepted(
            paths, protocol.COMMAND, protocol.pack_command(words, environ, umask), (0, 1, 2, cwd)
        )
    finally:
        os.close(cwd)
    return _Relay(connection).run()


def attach(
    paths: Paths, session_id: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True,
    sig_proxy: bool = True, detach_keys: bytes = protocol.DETACH_KEYS,
) -> int:  # fmt: skip
    """Connects this process's stdio to a running container; returns its exit code, or 0 after the detach keys.

    Raises NotFound when it does not run.
    """
    _fill_stdio()
    call = {
        "call": "attach", "id": session_id, "stdin": stdin, "stdout": stdout, "stderr": stderr,
        "sig_proxy": sig_proxy, "detach_keys": detach_keys.decode("latin-1"),
    }  # fmt: skip
    return _Relay(Connection.accepted(paths, protocol.CALL, protocol.pack_json(call))).run()


def request(paths: Paths, call: dict[str, Any], fds: Sequence[int] = (), *, start: bool = True) -> Any:
    """The value of {"call": name, …arguments}. Raises the PyrunError that the monitor or the engine raised.

    start=False: NotFound when no monitor runs, instead of starting one.
    """
    connection = Connection.accepted(paths, protocol.CALL, protocol.pack_json(call), fds, start=start)
    with connection:
        for kind, payload in connection.frames():
            if kind == protocol.RESULT:
                return protocol.unpack_json(payload)["value"]
            if kind == protocol.ERROR:
                raise _error(payload)
    raise _monitor_ended()


class Connection:
    """A connection to the monitor, blocking: send() frames, frames() to read them."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self._parser = protocol.Parser()
        self._ready: list[tuple[int, bytes]] = []

    @classmethod
    def accepted(
        cls, paths: Paths, kind: bytes, body: bytes, fds: Sequence[int] = (), *, start: bool = True
    ) -> Connection:
        """Sends a REQUEST and waits until it is accepted, starting a monitor if need be.

        A connection that is lost before that was made to a monitor about to end: it has done nothing, so try again.
        """
        payload = protocol.pack_request(kind, __version__, paths.data, body)
        for attempt in range(ATTEMPTS):
            try:
                sock = spawn.connect(paths, start=start)
            except BlockingIOError:  # its backlog is full
                select.poll().poll(50 << attempt)
                continue
            if sock is None:
                from pyrun.runtime.errors import NotFound

                raise NotFound("call the monitor", "none is running")
            connection = cls(sock)
            try:
                connection.send(protocol.REQUEST, payload, fds)
                answer, first = next(connection.frames(), (0, b""))
            except OSError:
                answer = 0
            if answer == protocol.ACCEPTED:
                return connection
            sock.close()
            if answer == protocol.ERROR:
                raise _error(first)
        raise _monitor_ended()

    def send(self, kind: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Sends one frame, with copies of `fds`. Raises OSError when the monitor is gone."""
        view = memoryview(protocol.frame(kind, payload))
        while view:
            try:
                view = view[sockets.send(self.sock, bytes(view), fds) :]
                fds = ()
            except BlockingIOError:
                waiter = select.poll()
                waiter.register(self.sock.fileno(), WRITE)
                waiter.poll()

    def receive(self) -> list[tuple[int, bytes]] | None:
        """The frames that one read completes (possibly none); None at the end."""
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        try:
            data = self.sock.recv(protocol.SMALL + 1024)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._parser.feed(data) if data else None

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """All frames until the end of the connection. What is not consumed stays for receive()."""
        while (received := self.receive()) is not None:
            while received:
                first = received.pop(0)
                self._ready = received
                yield first
                received = self._ready
            self._ready = []

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


class _Relay:
    """Stdio and signals of this process, to and from the monitor, until EXIT."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._interest: dict[int, int] = {}
        self._signals = _Signals()
        self._output: list[tuple[int, memoryview]] = []  # what is to be written before more is received
        self._attached = False
        self._stdin = False
        self._stdin_at_end = False
        self._credit = 0
        self._sig_proxy = True
        self._interrupts: list[float] = []
        self._terminal: RawTerminal | None = None
        self._keys: DetachKeys | None = None
        self._code: int | None = None

    def run(self) -> int:
        """The exit code."""
        connection = self._connection
        connection.sock.setblocking(False)
        try:
            with connection, self._signals:
                self._signals.catch(EARLY)
                ended = not self._take(connection.receive())
                while self._code is None or self._output:
                    if ended and not self._output:
                        raise _monitor_ended()
                    self._watch(connection.sock.fileno(), 0 if self._output or ended else READ)
                    self._watch(0, READ if self._stdin and self._credit > 0 and self._code is None else 0)
                    for fd in (1, 2):
                        self._watch(fd, WRITE if self._output and self._output[0][0] == fd else 0)
                    self._watch(self._signals.fd, READ)
                    ready = dict(self._poll.poll())
                    if self._signals.fd in ready:
                        self._forward_signals()
                    if self._output and self._output[0][0] in ready:
                        self._write_output()
                    if 0 in ready and self._interest.get(0):
                        self._read_stdin()
                    if connection.sock.fileno() in ready and not self._output:
                        ended = not self._take(connection.receive())
        finally:
            if self._terminal is not None:
                self._terminal.leave()
        return self._code

    def _watch(self, fd: int, events: int) -> None:
        if self._interest.get(fd, 0) == events:
            return
        if events:
            self._poll.register(fd, events)
        else:  # not events=0: poll(2) would go on reporting a hang-up
            self._poll.unregister(fd)
        self._interest[fd] = events

    # ---- from the monitor

    def _take(self, frames: list[tuple[int, bytes]] | None) -> bool:
        """Handles what was received; False at the end of the connection."""
        if frames is None:
            return False
        for kind, payload in frames:
            if kind == protocol.STDOUT or kind == protocol.STDERR:
                self._output.append((1 if kind == protocol.STDOUT else 2, memoryview(payload)))
            elif kind == protocol.CREDIT:
                self._credit += protocol.numbers("<I", payload)[0]
            elif kind == protocol.ATTACHED:
                self._become_attached(payload)
            elif kind == protocol.EXIT:
                (self._code,) = protocol.numbers("<i", payload)
            elif kind == protocol.DETACHED:
                self._code = 0
            elif kind == protocol.ERROR:
                raise _error(payload)
        return True

    def _become_attached(self, payload: bytes) -> None:
        flags, self._credit, keys = protocol.unpack_attached(payload)
        self._attached = True
        self._stdin = bool(flags & protocol.WANTS_STDIN)
        self._sig_proxy = bool(flags & protocol.SIG_PROXY)
        if self._sig_proxy:
            self._signals.catch([number for number in range(1, 65) if number not in OWN])
        if flags & protocol.TTY and os.isatty(0):
            from pyrun.runtime.monitor.terminal import DetachKeys, RawTerminal

            self._terminal = RawTerminal(0)
            if self._stdin:
                self._keys = DetachKeys(keys)
                self._terminal.enter()
            self._signals.catch((_signal.SIGWINCH, _signal.SIGTSTP))
            self._send_size()

    def _write_output(self) -> None:
        fd, data = self._output[0]
        try:
            written = os.write(fd, data[:CHUNK])
        except BlockingIOError:  # somebody made the description non-blocking, and it is not ready after all
            return
        except BrokenPipeError:
            self._die(_signal.SIGPIPE)
            return
        if written == len(data):
            del self._output[0]
        else:
            self._output[0] = (fd, data[written:])

    # ---- to the monitor

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, min(self._credit, protocol.SMALL))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # EIO: the terminal has hung up, or we are a background job of a dead session
            data = b""
        if not data:
            self._stdin = False
            self._send(protocol.STDIN_EOF)
            return
        detach = False
        if self._keys is not None:
            data, detach = self._keys.feed(data)
        if data:
            self._credit -= len(data)
            self._send(protocol.STDIN, data)
        if detach:
            self._stdin = False
            self._send(protocol.DETACH)

    def _send(self, kind: int, payload: bytes = b"") -> None:
        try:
            self._connection.send(kind, payload)
        except OSError:
            pass  # the monitor is gone: the next receive says so

    def _send_size(self) -> None:
        if self._terminal is not None:
            rows, columns = self._terminal.size()
            if rows and columns:
                self._send(protocol.RESIZE, rows.to_bytes(2, "little") + columns.to_bytes(2, "little"))

    def _forward_signals(self) -> None:
        for number in self._signals.arrived():
            if number == _signal.SIGWINCH:
                self._send_size()
            elif number == _signal.SIGTSTP:
                self._stop_for_a_while()
            elif self._attached and not self._sig_proxy:
                self._die(number)
            else:
                if number in (_signal.SIGINT, _signal.SIGTERM):
                    self._count_interrupts(number)
                self._send(protocol.SIGNAL, bytes([number]))

    def _count_interrupts(self, number: int) -> None:
        """Three in two seconds, and the client goes, as docker's does. The usual cause is a program that is PID 1 and
        does not handle the signal: for PID 1 the kernel then does nothing at all (pid_namespaces(7))."""
        now = time.monotonic()
        self._interrupts = [then for then in self._interrupts if now - then < IMPATIENT_S] + [now]
        if len(self._interrupts) >= IMPATIENT:
            if self._attached:
                os.write(2, STILL_RUNNING)
            self._die(number)

    def _stop_for_a_while(self) -> None:
        """SIGTSTP while the terminal is raw (it was sent with kill: ctrl-Z goes to the process)."""
        assert self._terminal is not None
        self._terminal.leave()
        os.kill(os.getpid(), _signal.SIGSTOP)
        if self._keys is not None:  # SIGCONT
            self._terminal.enter()
        self._send_size()

    def _die(self, number: int) -> None:
        """Ends this process by the signal, as it would have ended without a handler."""
        if self._terminal is not None:
            self._terminal.leave()
        _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)


class _Signals:
    """Signals as bytes on a pipe, between __enter__ and __exit__; what was ignored before stays ignored (nohup)."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._former: dict[int, Any] = {}
        self._former_wakeup = -1

    def __enter__(self) -> _Signals:
        self._former_wakeup = _signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        return self

    def catch(self, numbers: Sequence[int]) -> None:
        """From now on these are reported."""
        for number in numbers:
            if number in self._former:
                continue
            try:
                former = _signal.getsignal(number)
                if former is not _signal.SIG_IGN and former != _signal.SIG_IGN:
                    self._former[number] = _signal.signal(number, _nothing)
            except (OSError, ValueError):
                pass  # not to be caught, or libc's own

    def arrived(self) -> bytes:
        """The numbers of the signals that came since."""
        try:
            return os.read(self.fd, 512)
        except BlockingIOError:
            return b""

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            if former is not None:
                _signal.signal(number, former)
        _signal.set_wakeup_fd(self._former_wakeup)
        os.close(self.fd)
        os.close(self._write_fd)


def _nothing(_number: int, _frame: object) -> None:
    """The wake-up pipe has the signal."""


def _fill_stdio() -> None:
    """/dev/null in place of a closed stdin, stdout or stderr, before another file gets that number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDONLY if fd == 0 else os.O_WRONLY)
            os.set_inheritable(fd, True)


def _error(payload: bytes) -> Exception:
    from pyrun.runtime.monitor.answers import error_of

    return error_of(protocol.unpack_json(payload))


def _monitor_ended() -> PyrunError:
    from pyrun.runtime.errors import MonitorEnded

    return MonitorEnded(
        "the monitor ended",
        "a container that was started goes on",
        hint="`pyrun ps` shows it, `pyrun attach` connects to it again",
    )
