# SPDX-License-Identifier: Apache-2.0
"""UDP ports published on IPv6 addresses: one socket per client towards the container, as long as it is used.

Answers leave from the address that the client had sent to (IPV6_PKTINFO, ipv6(7)), which for [::] may be any.
"""

from __future__ import annotations

import select
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.netns.relay import Loop, Timer

READ = select.EPOLLIN
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50  # <linux/in6.h>; the socket module has them only where libc's headers do
MAX_DATAGRAM = 65535
DATAGRAMS_PER_EVENT = 16
IDLE_S = 90.0  # docker's proxy forgets a client after the same time
MAX_CLIENTS = 1024


class _Client:
    __slots__ = ("address", "last_used", "local", "socket")

    def __init__(self, address: Any, local: bytes, sock: socket.socket) -> None:
        self.address = address
        self.local = local  # struct in6_pktinfo: our address and the link
        self.socket = sock
        self.last_used = time.monotonic()


class UdpRelay:
    """Forwards datagrams from one IPv6 socket to an IPv4 address, and the answers back."""

    def __init__(self, fd: int, target: tuple[str, int], loop: Loop) -> None:
        self._socket = socket.socket(fileno=socket.dup(fd))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        self._target = target
        self._loop = loop
        self._clients: dict[tuple[Any, bytes], _Client] = {}
        self._sweeper: Timer | None = None
        loop.watch(self._socket.fileno(), READ, self._from_clients)

    def close(self) -> None:
        """Stops forwarding."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for key in list(self._clients):
            self._forget(key)

    def _from_clients(self, _events: int) -> None:
        for _ in range(DATAGRAMS_PER_EVENT):
            try:
                data, control, _flags, address = self._socket.recvmsg(MAX_DATAGRAM, socket.CMSG_SPACE(20))
            except OSError:  # nothing left; or an earlier answer could not be delivered
                return
            local = next((value for level, kind, value in control if kind == IPV6_PKTINFO), bytes(20))
            client = self._client(address, local)
            if client is not None:
                client.last_used = time.monotonic()
                try:
                    client.socket.send(data)
                except OSError:  # a full queue or a port that nobody listens on: UDP loses what it cannot deliver
                    pass

    def _client(self, address: Any, local: bytes) -> _Client | None:
        key = (address, local)
        client = self._clients.get(key)
        if client is not None:
            return client
        if len(self._clients) >= MAX_CLIENTS:
            self._forget(min(self._clients, key=lambda k: self._clients[k].last_used))
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:  # out of fds: this datagram is lost, the next may find one
            return None
        client = _Client(address, local, sock)
        try:
            sock.connect(self._target)
        except OSError:
            sock.close()
            return None
        self._clients[key] = client
        self._loop.watch(sock.fileno(), READ, lambda _events: self._from_container(client))
        if self._sweeper is None:
            self._sweeper = self._loop.after(IDLE_S, self._sweep)
        return client

    def _from_container(self, client: _Client) -> None:
        for _ in range(DATAGRAMS_PER_EVENT):
            try:
                data = client.socket.recv(MAX_DATAGRAM)
            except OSError:  # nothing left; or ECONNREFUSED for what was sent before
                return
            client.last_used = time.monotonic()
            # the link only matters for link-local addresses, where it is in the client's address as well
            source = client.local[:16] + struct.pack("=I", 0)
            try:
                self._socket.sendmsg([data], [(socket.IPPROTO_IPV6, IPV6_PKTINFO, source)], 0, client.address)
            except OSError:
                pass

    def _sweep(self) -> None:
        """Forgets the clients that have been silent."""
        limit = time.monotonic() - IDLE_S
        for key in [key for key, client in self._clients.items() if client.last_used < limit]:
            self._forget(key)
        self._sweeper = self._loop.after(IDLE_S, self._sweep) if self._clients else None

    def _forget(self, key: tuple[Any, bytes]) -> None:
        client = self._clients.pop(key)
        self._loop.unwatch(client.socket.fileno())
        client.socket.close()
