# SPDX-License-Identifier: Apache-2.0
"""A laboratory of network namespaces: a host of its own, a neighbour on its LAN, and containers.

All of it is made by this process and belongs to it by fds, so that everything disappears with them, and nothing of the
machine's own network is touched. While a test runs, its thread is in the laboratory's host: what it calls (Rtnl,
libnftables, sysctls, child processes) works there. A socket stays in the namespace in which it was opened, so servers
and clients are plain sockets and threads of the test.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import machine
from pyrun.netns import attach, bridge, firewall, networks
from pyrun.netns.rtnl import Rtnl
from pyrun.runtime.kernel import syscalls
from pyrun.runtime.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrun.netns.attach import Endpoint
    from pyrun.netns.networks import Network

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
HOST_IP, LAN_IP = "198.51.100.1", "198.51.100.2"
TIMEOUT_S = 5.0 * machine.slowness()
REFUSAL_S = 0.7 * machine.slowness()  # how long to wait before a packet counts as dropped


class Namespace:
    """A network namespace that lives as long as this object's fd is open."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(CLONE_NEWNET)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            syscalls.setns(before, CLONE_NEWNET)
            os.close(before)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace while the block runs."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(self.fd, CLONE_NEWNET)
            try:
                yield
            finally:
                syscalls.setns(before, CLONE_NEWNET)
        finally:
            os.close(before)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket in this namespace, with a timeout."""
        with self.entered():
            sock = socket.socket(family, kind)
        sock.settimeout(TIMEOUT_S)
        return sock

    def run(self, *command: str) -> str:
        """The output of a command in this namespace."""
        with self.entered():
            return shell(*command)

    def loopback_up(self) -> None:
        with self.socket(kind=socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def shell(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Container(Namespace):
    """What pyrun-init leaves to Python: a namespace with loopback up and a route netlink socket opened inside."""

    def __init__(self) -> None:
        super().__init__()
        self.id = secrets.token_hex(32)
        self.loopback_up()
        with self.entered():
            self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
        self.endpoint: Endpoint | None = None

    @property
    def ip(self) -> str:
        assert self.endpoint is not None
        return self.endpoint.ip

    def close(self) -> None:
        self.netlink.close()
        super().close()


class Lab:
    """The host (entered by start()), the LAN behind its link lan0, and what the test adds."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(str(directory / "data"), str(directory / "run"))
        self._stack = contextlib.ExitStack()
        self.host = self._own(Namespace())
        self.lan = self._own(Namespace())

    def _own(self, namespace: Namespace) -> Namespace:
        self._stack.callback(namespace.close)
        return namespace

    def __enter__(self) -> Lab:
        self._stack.enter_context(self.host.entered())
        self.host.loopback_up()
        peer = f"/proc/{os.getpid()}/fd/{self.lan.fd}"
        shell("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "wire0", "netns", peer)
        shell("ip", "address", "add", f"{HOST_IP}/24", "dev", "lan0")
        shell("ip", "link", "set", "lan0", "up")
        shell("ip", "route", "add", "default", "via", LAN_IP)
        self.lan.run("ip", "address", "add", f"{LAN_IP}/24", "dev", "wire0")
        self.lan.run("ip", "link", "set", "wire0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ipv6(self) -> tuple[str, str]:
        """Gives the host two IPv6 addresses on the LAN, and the neighbour one; the host's, when they can be used."""
        ours, more, theirs = (f"2001:db8::{number}" for number in (1, 7, 2))
        for address in (ours, more):
            shell("ip", "address", "add", f"{address}/64", "dev", "lan0", "nodad")
        self.lan.run("ip", "address", "add", f"{theirs}/64", "dev", "wire0", "nodad")
        # routes to addresses come when the kernel has noticed that the link has a carrier
        assert eventually(
            lambda: all(_has_route(ns, to) for ns in (self.host, self.lan) for to in (ours, more, theirs))
        )
        return ours, more

    def container(self) -> Container:
        """A container that is not connected yet."""
        made = Container()
        self._own(made)
        return made

    def network(self) -> Network:
        """The default network with its bridge and rules in place."""
        with Rtnl.host() as host:
            network = bridge.ensure(self.paths, host, networks.ensure_default(self.paths, host))
        firewall.ensure(self.paths, network)
        return network

    def connected(self) -> Container:
        """A container on the default network."""
        network = self.network()
        made = self.container()
        made.endpoint = attach.attach(self.paths, network, made.netlink.fileno(), made.id)
        return made

    def serve(self, namespace: Namespace, port: int, *, kind: int = socket.SOCK_STREAM, address: str = "") -> None:
        """Answers on a port until the end: TCP with the client's address and an echo, UDP with both in one datagram."""
        sock = namespace.socket(kind=kind)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        self._stack.callback(sock.close)
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
            self._stack.callback(sock.shutdown, socket.SHUT_RDWR)
            target: Callable[[socket.socket], None] = _serve_tcp
        else:
            sock.settimeout(0.2)
            target = _serve_udp
        thread = threading.Thread(target=target, args=(sock,), daemon=True)
        thread.start()


def _serve_tcp(listener: socket.socket) -> None:
    while True:
        try:
            connection, address = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection, address[0]), daemon=True).start()


def _echo(connection: socket.socket, address: str) -> None:
    with connection, contextlib.suppress(OSError):
        connection.sendall(f"{address}\n".encode())
        while data := connection.recv(65536):
            connection.sendall(data)


def _serve_udp(sock: socket.socket) -> None:
    while sock.fileno() >= 0:
        try:
            data, address = sock.recvfrom(65536)
            sock.sendto(f"{address[0]}\n".encode() + data, address)
        except TimeoutError:
            continue
        except OSError:
            return


def ask(namespace: Namespace, address: str, port: int, *, timeout_s: float = TIMEOUT_S) -> str:
    """Connects, sends a line, and returns the client's address as the server saw it. Raises OSError."""
    with namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        sock.sendall(b"ping")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(4096):
            answer += data
    seen, _, echoed = answer.partition(b"\n")
    assert echoed == b"ping"
    return seen.decode()


def ask_udp(namespace: Namespace, address: str, port: int, *, timeout_s: float = TIMEOUT_S) -> str:
    """Sends a datagram, and returns the client's address as the server saw it. Raises OSError (TimeoutError)."""
    with namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        sock.send(b"ping")
        seen, _, echoed = sock.recv(4096).partition(b"\n")
    assert echoed == b"ping"
    return seen.decode()


def _has_route(namespace: Namespace, address: str) -> bool:
    with namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        return sock.connect_ex((address, 9)) == 0


def reachable(namespace: Namespace, address: str, port: int) -> bool:
    """Whether a TCP server answers there; a drop shows as silence."""
    try:
        ask(namespace, address, port, timeout_s=REFUSAL_S)
    except OSError:
        return False
    return True


def eventually(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the condition comes true in time: namespaces are taken down by the kernel in its own time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def links() -> set[str]:
    """The names of the links in the namespace of the calling thread."""
    return {name for _, name in socket.if_nameindex()}
