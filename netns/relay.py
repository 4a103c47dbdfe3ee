# SPDX-License-Identifier: Apache-2.0
"""Ports published on IPv6 addresses: what arrives on [::1]:5000 is forwarded to the container's IPv4 address.

Containers have no IPv6 addresses, and the kernel cannot lead packets for ::1 anywhere else. So the socket that holds
the port listens, and the monitor's loop passes the bytes on: 64 KiB at most per event and direction, nothing is read
before what was read is written, so that a slow reader slows its peer and nobody else.
"""

from __future__ import annotations

import errno
import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Timer(Protocol):
        def cancel(self) -> None: ...

    class Loop(Protocol):
        """What is used of the monitor's event loop."""

        def watch(self, fd: int, events: int, callback: Callable[[int], object]) -> None: ...
        def unwatch(self, fd: int) -> None: ...
        def after(self, seconds: float, callback: Callable[[], object]) -> Timer: ...

    class Relay(Protocol):
        def close(self) -> None: ...


READ, WRITE = select.EPOLLIN, select.EPOLLOUT
BROKEN = select.EPOLLHUP | select.EPOLLERR
CHUNK = 64 * 1024
MAX_CONNECTIONS = 1024  # per published port; more wait in the kernel's backlog
CONNECT_TIMEOUT_S = 30.0
ACCEPTS_PER_EVENT = 16
_LINGER_RESET = struct.pack("ii", 1, 0)


def make(fd: int, target: dict[str, object] | None, loop: Loop) -> Relay | None:
    """Forwards from the listening (TCP) or bound (UDP) socket `fd` to `target`: {"proto", "ip", "port"}.

    None for a target of None, where the socket merely holds a port, and when there are no fds to be had for more. The
    fd stays the caller's. Never blocks, never raises.
    """
    if target is None:
        return None
    destination = (str(target["ip"]), int(str(target["port"])))
    try:
        if target["proto"] == "udp":
            from pyrun.netns.udprelay import UdpRelay  # most relays are for TCP

            return UdpRelay(fd, destination, loop)
        return TcpRelay(fd, destination, loop)
    except OSError:
        return None


class TcpRelay:
    """Accepts on one socket, and keeps the pairs of connections that came of it."""

    def __init__(self, fd: int, target: tuple[str, int], loop: Loop) -> None:
        # a copy: the caller may close its own at any time; and one that cannot be accept()ed from twice is no loss
        self._listener = socket.socket(fileno=socket.dup(fd))
        self._listener.setblocking(False)
        self._target = target
        self._loop = loop
        self._pairs: set[_Pair] = set()
        self._paused: Timer | None = None
        loop.watch(self._listener.fileno(), READ, self._accept)

    def close(self) -> None:
        """Stops listening and drops every connection."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for pair in list(self._pairs):
            pair.close()

    def _accept(self, _events: int) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            if len(self._pairs) >= MAX_CONNECTIONS:
                self._loop.unwatch(self._listener.fileno())  # until one of them ends
                return
            try:
                client, _address = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # the connection stays in the backlog and would be reported again at once
                    self._loop.unwatch(self._listener.fileno())
                    self._paused = self._loop.after(1.0, self._resume)
                return  # nothing left; or a connection that has gone already
            try:
                self._pairs.add(_Pair(client, self._target, self._loop, self._ended))
            except OSError:  # out of fds for the second half
                client.close()
                return

    def _resume(self) -> None:
        self._paused = None
        self._loop.watch(self._listener.fileno(), READ, self._accept)

    def _ended(self, pair: _Pair) -> None:
        full = len(self._pairs) >= MAX_CONNECTIONS
        self._pairs.discard(pair)
        if full and self._listener.fileno() >= 0:
            self._resume()


class _Side:
    """One connection of a pair: its socket, and what was read from the other one and is still to be written here."""

    __slots__ = ("at_end", "pending", "shut", "socket", "watched")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.pending = memoryview(b"")
        self.at_end = False  # nothing more will come from here
        self.shut = False  # nothing more will be sent to here
        self.watched = 0


class _Pair:
    """A client's connection and the one to the container."""

    def __init__(self, client: socket.socket, target: tuple[str, int], loop: Loop, ended: Callable[[_Pair], None]):
        self._loop = loop
        self._ended = ended
        self._client = _Side(client)
        self._container = _Side(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        self._timeout: Timer | None = loop.after(CONNECT_TIMEOUT_S, self._reset)
        self._closed = False
        for side in (self._client, self._container):
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that vanished frees its pair
        result = self._container.socket.connect_ex(target)
        if result not in (0, errno.EINPROGRESS):
            self._timeout.cancel()
            self._timeout = loop.after(0, self._reset)  # not now: the caller does not know this pair yet
            return
        loop.watch(self._container.socket.fileno(), WRITE, self._connected)
        self._container.watched = WRITE

    def close(self) -> None:
        """Closes both connections."""
        if self._closed:
            return
        self._closed = True
        if self._timeout is not None:
            self._timeout.cancel()
        for side in (self._client, self._container):
            self._loop.unwatch(side.socket.fileno())
            side.socket.close()
        self._ended(self)

    def _reset(self) -> None:
        """Closes both so that the other ends see a reset: what was under way is lost, and they must know."""
        if not self._closed:
            for side in (self._client, self._container):
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self.close()

    def _connected(self, _events: int) -> None:
        if self._container.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._reset()
            return
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        self._watch()

    def _watch(self) -> None:
        """Asks for what can be used now: input where the other side has nothing waiting, output where there is some."""
        for side, other, callback in (
            (self._client, self._container, self._client_event),
            (self._container, self._client, self._container_event),
        ):
            wanted = READ if not side.at_end and not other.pending and not other.shut else 0
            wanted |= WRITE if side.pending else 0
            if wanted != side.watched:
                if wanted:
                    self._loop.watch(side.socket.fileno(), wanted, callback)
                else:  # with no event asked for, a hang-up would be reported over and over
                    self._loop.unwatch(side.socket.fileno())
                side.watched = wanted

    def _client_event(self, events: int) -> None:
        self._event(self._client, self._container, events)

    def _container_event(self, events: int) -> None:
        self._event(self._container, self._client, events)

    def _event(self, side: _Side, other: _Side, events: int) -> None:
        try:
            if events & WRITE and side.pending:
                self._write(side)
            # an error is reported by recv() or send(), whichever is asked for
            if events & (READ | BROKEN) and not side.at_end and not other.pending:
                self._read(side, other)
            elif events & select.EPOLLERR:
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self._reset()
            return
        self._pass_on_ends()

    def _read(self, side: _Side, other: _Side) -> None:
        data = side.socket.recv(CHUNK)
        if not data:
            side.at_end = True
            return
        other.pending = memoryview(data)
        self._write(other)

    @staticmethod
    def _write(side: _Side) -> None:
        try:
            side.pending = side.pending[side.socket.send(side.pending) :]
        except BlockingIOError:
            pass

    def _pass_on_ends(self) -> None:
        """Half-close: the end of one direction is passed on when all its bytes are; the pair ends with the second."""
        for side, other in ((self._client, self._container), (self._container, self._client)):
            if side.at_end and not other.pending and not other.shut:
                other.shut = True
                try:
                    other.socket.shutdown(socket.SHUT_WR)
                except OSError:  # it has gone meanwhile: its own event will tell
                    pass
        if self._client.shut and self._container.shut:
            self.close()
        else:
            self._watch()
