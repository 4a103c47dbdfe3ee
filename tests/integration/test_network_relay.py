# SPDX-License-Identifier: Apache-2.0
"""Ports on [::1] and [::]: the relay in the monitor's loop."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from netlab import HOST_IP, TIMEOUT_S, Lab, ask, ask_udp, eventually
from pyrun.netns import firewall, hostports, relay
from pyrun.netns.ports import parse_publish
from pyrun.runtime.monitor.loop import READ, Loop
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from netlab import Container

pytestmark = requires(root=True, tools=("ip",))

MEGABYTE = 1 << 20


class Relays:
    """The monitor's loop in a thread, with the relays of one container in it."""

    def __init__(self, lab: Lab, container: Container, *texts: str) -> None:
        self.errors: list[BaseException] = []
        self.loop = Loop(self.errors.append)
        specs = [spec for text in texts for spec in parse_publish(text)]
        self.reservation = hostports.reserve(lab.paths, specs)
        firewall.publish(lab.paths, container.id, self.reservation.mappings, container.ip)
        targets = self.reservation.targets(container.ip)
        made = [relay.make(fd, to, self.loop) for fd, to in zip(self.reservation.fds, targets, strict=True)]
        self.relays = [one for one in made if one is not None]
        self._wake, self._waker = os.pipe()
        self.loop.watch(self._wake, READ, lambda _events: self.loop.stop())
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def stop(self) -> None:
        """Ends the loop; the relays can be looked at from here then."""
        if self.thread.is_alive():
            os.write(self._waker, b"x")
            self.thread.join(TIMEOUT_S)

    def close(self) -> None:
        self.stop()
        for one in self.relays:
            one.close()
        self.reservation.close()
        os.close(self._wake)
        os.close(self._waker)
        assert self.errors == []


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        yield made


@contextlib.contextmanager
def relayed(lab: Lab, container: Container, *texts: str) -> Iterator[Relays]:
    made = Relays(lab, container, *texts)
    try:
        yield made
    finally:
        made.close()


def test_ipv6_localhost_answers(lab: Lab) -> None:
    """-p 5000:80 answers on [::1] and on the host's other IPv6 addresses as well as on 127.0.0.1."""
    web = lab.connected()
    lab.serve(web, 80)
    assert web.endpoint is not None
    address, _ = lab.ipv6()
    with relayed(lab, web, "5000:80"):
        assert ask(lab.host, "::1", 5000) == web.endpoint.gateway
        assert ask(lab.host, address, 5000) == web.endpoint.gateway
        assert ask(lab.lan, address, 5000) == web.endpoint.gateway
        assert ask(lab.host, "127.0.0.1", 5000) == web.endpoint.gateway
        assert ask(lab.lan, HOST_IP, 5000)


def test_only_ipv6_localhost(lab: Lab) -> None:
    """-p [::1]:5000:80 answers there and nowhere else."""
    web = lab.connected()
    lab.serve(web, 80)
    with relayed(lab, web, "[::1]:5000:80"):
        assert ask(lab.host, "::1", 5000)
        with pytest.raises(ConnectionRefusedError):
            ask(lab.host, "127.0.0.1", 5000)


def test_udp(lab: Lab) -> None:
    """Datagrams go both ways, and the answer comes from the address that was asked."""
    dns = lab.connected()
    lab.serve(dns, 53, kind=socket.SOCK_DGRAM)
    addresses = lab.ipv6()
    with relayed(lab, dns, "5353:53/udp"):
        for _ in range(3):
            assert ask_udp(lab.host, "::1", 5353)
        # a connected socket takes answers from this address only
        for address in addresses:
            assert ask_udp(lab.lan, address, 5353)


def test_megabytes_both_ways_at_once(lab: Lab) -> None:
    """Twenty connections at once, each echoing two megabytes, lose and mix nothing."""
    web = lab.connected()
    lab.serve(web, 80)
    failures: list[str] = []

    def send(client: socket.socket, data: bytes) -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    def exchange(number: int) -> None:
        sent = bytes([number]) * (2 * MEGABYTE)
        with lab.host.socket(socket.AF_INET6) as client:
            client.connect(("::1", 5000))
            writer = threading.Thread(target=send, args=(client, sent))
            writer.start()
            got = bytearray()
            while data := client.recv(MEGABYTE):
                got += data
            writer.join(TIMEOUT_S)
        if got.partition(b"\n")[2] != sent:
            failures.append(f"connection {number}: {len(got)} bytes")

    with relayed(lab, web, "[::1]:5000:80"):
        threads = [threading.Thread(target=exchange, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []


def test_a_half_closed_connection_goes_on(lab: Lab) -> None:
    """The end of one direction is passed on, and the other direction lives until its own end."""
    web = lab.connected()
    with web.socket() as server:
        server.bind(("", 80))
        server.listen()
        with relayed(lab, web, "[::1]:5000:80"), lab.host.socket(socket.AF_INET6) as client:
            client.connect(("::1", 5000))
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(TIMEOUT_S)
                assert connection.recv(100) == b"question"
                assert connection.recv(100) == b""
                connection.sendall(b"answer")
                assert client.recv(100) == b"answer"
            assert client.recv(100) == b""


def test_nobody_listens_inside(lab: Lab) -> None:
    """A connection to a port on which nothing listens in the container is reset."""
    web = lab.connected()
    sock = lab.host.socket(socket.AF_INET6)
    with relayed(lab, web, "[::1]:5000:80"), sock as client, pytest.raises(ConnectionResetError):
        connect_and_read(client, "::1", 5000)


def connect_and_read(client: socket.socket, address: str, port: int) -> bytes:
    client.connect((address, port))  # the reset may be there before this returns
    return client.recv(1)


def test_a_reset_is_passed_on(lab: Lab) -> None:
    """When the container's side breaks the connection, the client's breaks too, and the pair is gone."""
    web = lab.connected()
    with web.socket() as server:
        server.bind(("", 80))
        server.listen()
        with relayed(lab, web, "[::1]:5000:80") as relays, lab.host.socket(socket.AF_INET6) as client:
            client.connect(("::1", 5000))
            connection, _ = server.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            tcp = relays.relays[0]
            assert isinstance(tcp, relay.TcpRelay)
            assert eventually(lambda: not tcp._pairs)


def fill(connection: socket.socket, limit: int) -> int:
    """Sends until nothing more is taken, or the limit is reached; how many bytes that were."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < limit:
            sent += connection.send(bytes(64 * 1024))
    return sent


def test_a_slow_reader_holds_up_nobody_and_nothing_piles_up(lab: Lab) -> None:
    """A client that reads nothing stops its own sender after what the kernel's buffers hold; others are served."""
    web = lab.connected()
    lab.serve(web, 8080)
    with web.socket() as server:
        server.bind(("", 80))
        server.listen()
        with relayed(lab, web, "[::1]:5000:80", "[::1]:5001:8080"), lab.host.socket(socket.AF_INET6) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            slow.connect(("::1", 5000))
            connection, _ = server.accept()
            with connection:
                connection.settimeout(0.5)
                assert fill(connection, 256 * MEGABYTE) < 64 * MEGABYTE
                assert ask(lab.host, "::1", 5001)
                slow.settimeout(TIMEOUT_S)
                assert slow.recv(100) == bytes(100)


def test_closing_drops_connections_and_frees_the_port(lab: Lab) -> None:
    """After close() connections are gone, no fd is left, and the port can be taken again."""
    web = lab.connected()
    lab.serve(web, 80)
    before = len(os.listdir("/proc/self/fd"))
    relays = Relays(lab, web, "[::1]:5000:80", "[::1]:5000:80/udp")
    client = lab.host.socket(socket.AF_INET6)
    client.connect(("::1", 5000))
    assert client.recv(100).endswith(b"\n")
    relays.close()
    assert client.recv(100) == b""
    client.close()
    del relays
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 4)  # the loop's own, until it is collected
    firewall.unpublish(lab.paths, web.id)
    assert hostports.is_free("tcp", "::1", 5000)
