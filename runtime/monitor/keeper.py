# SPDX-License-Identifier: Apache-2.0
"""The monitor's side of pyrun-keeper (runtime/kernel/keeper.c): a second copy of every fd, safe from kill -9.

A put does not wait for its answer: a message that is in the socket, with its fds, outlives this process, so that when
put() returns, no kill of the monitor can lose it. If the keeper itself is killed, a new one is started and gets
everything again.
"""

from __future__ import annotations

import os
from collections import deque
from select import POLLIN, POLLOUT, poll

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.monitor import sockets
from pyrun.runtime.monitor.loop import READ, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence

MESSAGE = 32 * 1024  # keeper.c: MESSAGE
FDS = 253  # keeper.c: FDS
PATIENCE_MS = 5000


class Kept:
    """What a name stands for: `data` says what the fds are."""

    __slots__ = ("data", "fds", "name")

    def __init__(self, name: str, data: bytes, fds: Sequence[int]) -> None:
        self.name = name
        self.data = data
        self.fds = tuple(fds)


class Keeper:
    """put(), drop() and, at the start, everything() that a former monitor left.

    on_new() is called when the keeper was lost and a new one is there: it must put again all that is to be kept.
    """

    def __init__(self, loop: Loop, run_root: str, on_new: Callable[[], object], note: Callable[[str], object]) -> None:
        self.path = f"{run_root}/keeper.sock"
        self._loop = loop
        self._on_new = on_new
        self._note = note
        self._reviving = False
        self._unanswered: deque[str] = deque()
        self._connect_or_start()

    def everything(self) -> list[Kept]:
        """All names with new copies of their fds, which are the caller's. Raises OSError."""
        self._send(b"G", ())
        found: list[Kept] = []
        while True:
            answer, fds = self._receive()
            if answer[:1] == b".":
                return found
            if answer[:1] == b"E":
                length = answer[1]
                found.append(Kept(os.fsdecode(answer[2 : 2 + length]), answer[2 + length :], fds))

    def put(self, name: str, data: bytes, fds: Sequence[int]) -> None:
        """Keeps copies of `fds` under `name`, instead of what that had. Raises PyrunError when they are too many."""
        message = self._message(b"P", name) + data
        if len(message) > MESSAGE or len(fds) > FDS:
            raise PyrunError(f"keep {name}", f"{len(fds)} descriptors and {len(data)} bytes are too many")
        self._command(name, message, fds)

    def drop(self, name: str) -> None:
        """Closes the keeper's copies. A name that is not there is fine."""
        self._command(name, self._message(b"D", name), ())

    def close(self) -> None:
        """Lets go of the keeper; it ends by itself if it holds nothing."""
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()

    def _revive(self) -> None:
        """Connects to a new keeper, which then gets everything. Raises OSError or PyrunError."""
        self.close()
        self._unanswered.clear()
        self._connect_or_start()
        self._reviving = True
        try:
            self._on_new()
        finally:
            self._reviving = False

    def _readable(self, _events: int) -> None:
        try:
            while data := self._sock.recv(1):
                name = self._unanswered.popleft() if self._unanswered else ""
                if data == b"-":
                    self._note(f"pyrun-keeper has no room for {name}: a killed monitor would lose it")
        except BlockingIOError:
            return
        except OSError:
            pass
        self._note("pyrun-keeper is gone; starting a new one")
        self._revive()

    @staticmethod
    def _message(command: bytes, name: str) -> bytes:
        raw = os.fsencode(name)
        return command + bytes([len(raw)]) + raw

    def _command(self, name: str, message: bytes, fds: Sequence[int]) -> None:
        try:
            self._send(message, fds)
        except OSError:
            if self._reviving:
                raise
            self._revive()
        else:
            self._unanswered.append(name)

    def _send(self, message: bytes, fds: Sequence[int]) -> None:
        while True:
            try:
                sockets.send(self._sock, message, fds)
                return
            except BlockingIOError:
                self._wait(POLLOUT)

    def _receive(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, fds = sockets.receive(self._sock, MESSAGE, FDS)
            except BlockingIOError:
                self._wait(POLLIN)
                continue
            if not data:
                raise ConnectionResetError("pyrun-keeper is gone")
            return data, fds

    def _wait(self, events: int) -> None:
        waiter = poll()
        waiter.register(self._sock.fileno(), events)
        if not waiter.poll(PATIENCE_MS):
            raise TimeoutError("pyrun-keeper does not answer")

    def _connect_or_start(self) -> None:
        try:
            sock = sockets.connect(self.path, sockets.SEQPACKET)
        except (FileNotFoundError, ConnectionRefusedError):
            listener = sockets.listen(self.path, sockets.SEQPACKET)
            try:
                start(listener.fileno())
                sock = sockets.connect(self.path, sockets.SEQPACKET)
            finally:
                listener.close()
        sock.setblocking(False)
        self._sock: _socket.socket = sock
        self._loop.watch(sock.fileno(), READ, self._readable)


def start(listener_fd: int) -> None:
    """Starts pyrun-keeper on a listening socket, in a session of its own. Raises PyrunError if it is not installed."""
    from pyrun.runtime import kernel

    program = os.path.join(os.path.dirname(os.path.abspath(kernel.__file__)), "pyrun-keeper")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    dup2 = os.POSIX_SPAWN_DUP2
    actions = [(dup2, null, 0), (dup2, null, 1), (dup2, null, 2), (dup2, listener_fd, 3)]
    try:
        os.posix_spawn(program, ["pyrun-keeper"], {}, file_actions=actions, setsid=True)
    except OSError as error:
        raise PyrunError(f"start {program}", error.strerror or "", hint="the installation is incomplete") from error
    finally:
        os.close(null)
