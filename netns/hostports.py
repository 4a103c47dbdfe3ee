# SPDX-License-Identifier: Apache-2.0
"""Ports of the host: taking those that were asked for, or free ones; and saying who has a port that is taken.

Every published port is held by a bound socket (in the monitor, as long as the container runs): the kernel then refuses
it to everybody else, and two starts that want one port at once cannot both get it. An IPv4 socket is never read:
the firewall leads packets away before they reach it, and a TCP socket that does not listen answers nothing. An IPv6
socket listens: netns/relay.py forwards what arrives.
"""

from __future__ import annotations

import errno
import os
import socket

from pyrun.netns import published
from pyrun.netns.ports import ANY_IPV4, ANY_IPV6, PortMapping, host_port
from pyrun.netns.socketowners import closing, owner
from pyrun.runtime.errors import Conflict, PyrunError, Unsupported
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Any, Self

    from pyrun.netns.ports import PortSpec
    from pyrun.runtime.paths import Paths

KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),  # IPPROTO_SCTP, which not every libc names
}
NO_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT)
BACKLOG = 512
FREE_PORT_TRIES = 64


class Held(Record):
    """A published port and the socket that holds it; None for SCTP on a kernel without it, where only our map does."""

    mapping: PortMapping
    socket: socket.socket | None


class Reservation:
    """The ports that a container got. A context manager that closes the sockets; hand them to the monitor before."""

    def __init__(self, held: Sequence[Held] = ()) -> None:
        self.held = tuple(held)

    @property
    def mappings(self) -> tuple[PortMapping, ...]:
        return tuple(h.mapping for h in self.held)

    @property
    def fds(self) -> list[int]:
        """What the monitor is to hold."""
        return [h.socket.fileno() for h in self.held if h.socket is not None]

    def targets(self, ip: str) -> list[dict[str, Any] | None]:
        """For each of `fds`, what relay.make() needs to know: where to forward to, or None for a port that is merely
        held. JSON values. `ip` is the container's address."""
        return [_target(h.mapping, ip) for h in self.held if h.socket is not None]

    def close(self) -> None:
        for h in self.held:
            if h.socket is not None:
                h.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def reserve(
    paths: Paths, specs: Iterable[PortSpec], *, name_of: Callable[[str], str] = lambda i: i[:12]
) -> Reservation:
    """Takes a host port for each spec, on every address it asks for, all or none.

    `name_of` turns a container id into the name for messages. Raises Conflict that says who holds the port,
    Unsupported for SCTP on an IPv6 address, PyrunError for an address that is not the host's, OSError.
    """
    held: list[Held] = []
    try:
        for spec in specs:
            _refuse_twice(spec, held)
            held += _take(paths, spec, name_of)
    except BaseException:
        Reservation(held).close()
        raise
    return Reservation(held)


def reopen(mappings: Iterable[PortMapping]) -> Reservation:
    """Takes the ports of a container that runs, for a monitor that has lost the sockets; those that somebody has
    meanwhile taken are left out (the IPv4 ones work on without: the firewall does not ask the socket)."""
    held = []
    for mapping in mappings:
        try:
            held.append(Held(mapping, _open(mapping.proto, mapping.host_ip, mapping.host_port)))
        except OSError:
            pass
    return Reservation(held)


def is_free(proto: str, host_ip: str, port: int) -> bool:
    """Whether the port could be taken on this address right now ("" is all of IPv4)."""
    try:
        sock = _open(proto, host_ip or ANY_IPV4, port)
    except OSError:
        return False
    if sock is not None:
        sock.close()
    return True


def has_ipv6() -> bool:
    """Whether the host has IPv6 at all: /proc/net/if_inet6 lists at least ::1."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            return bool(file.readline())
    except OSError:
        return False


def in_use(paths: Paths, proto: str, host_ip: str, port: int, name_of: Callable[[str], str]) -> Conflict:
    """The error for a port that is taken, with its holder: a container of this instance, else a process."""
    where = f"port {port}/{proto}" if host_ip in (ANY_IPV4, ANY_IPV6) else f"port {host_port(host_ip, port)}/{proto}"
    container = published.holder(paths, proto, host_ip, port)
    if container:
        who = f" by container {name_of(container)}"
    else:
        process = owner(proto, host_ip, port)
        if process is not None:
            who = f" by process {process.name} (pid {process.pid})"
        else:
            who = " by connections that have just ended: it is free within a minute" if closing(proto, port) else ""
    hint = f"stop it, or publish another host port, such as -p {port + 1 if port < 65535 else port - 1}:…"
    return Conflict(f"publish {port}/{proto}", f"{where} is in use{who}", hint=hint)


def _refuse_twice(spec: PortSpec, held: list[Held]) -> None:
    """Says so when one command asks for one host port twice: else the holder would be this very process."""
    addresses = set(_addresses(spec))
    mine = {h.mapping.host_port for h in held if h.mapping.proto == spec.proto and h.mapping.host_ip in addresses}
    if spec.host_first == spec.host_last and spec.host_first in mine:
        why = f"port {spec.host_first}/{spec.proto} is asked for twice"
        raise Conflict(f"publish {spec.host_first}/{spec.proto}", why)


def _take(paths: Paths, spec: PortSpec, name_of: Callable[[str], str]) -> list[Held]:
    addresses = _addresses(spec)
    if not spec.host_first:
        return _take_free(spec, addresses)
    busy = ""
    for port in range(spec.host_first, spec.host_last + 1):
        held, busy = _take_port(spec, addresses, port)
        if held:
            return held
    if spec.host_first < spec.host_last:
        why = f"none of the ports {spec.host_first}-{spec.host_last}/{spec.proto} is free"
        raise Conflict(f"publish {spec.container_port}/{spec.proto}", why)
    raise in_use(paths, spec.proto, busy, spec.host_first, name_of)


def _take_free(spec: PortSpec, addresses: list[str]) -> list[Held]:
    for _ in range(FREE_PORT_TRIES):
        # the kernel chooses from net.ipv4.ip_local_port_range; the other addresses must have the same one free
        with _open_any(spec.proto, addresses[0]) as probe:
            port = probe.getsockname()[1]
        held, _busy = _take_port(spec, addresses, port)
        if held:
            return held
    why = "no free port: see net.ipv4.ip_local_port_range"
    raise Conflict(f"publish {spec.container_port}/{spec.proto}", why)


def _open_any(proto: str, address: str) -> socket.socket:
    """A socket on any free port. SCTP's ports are asked for with TCP where the kernel has no SCTP."""
    try:
        sock = _open(proto, address, 0, listen=False)
    except OSError as error:
        raise _cannot_bind(address, 0, proto, error) from None
    return sock if sock is not None else _open_any("tcp", address)


def _take_port(spec: PortSpec, addresses: list[str], port: int) -> tuple[list[Held], str]:
    """The port on all addresses; or ([], the address on which it is taken)."""
    held: list[Held] = []
    for address in addresses:
        try:
            with step("ports", f"bind {host_port(address, port)}/{spec.proto}"):
                sock = _open(spec.proto, address, port)
        except OSError as error:
            Reservation(held).close()
            if error.errno == errno.EADDRINUSE:
                return [], address
            raise _cannot_bind(address, port, spec.proto, error) from None
        held.append(Held(PortMapping(spec.proto, address, port, spec.container_port), sock))
    return held, ""


def _addresses(spec: PortSpec) -> list[str]:
    if spec.proto == "sctp" and ":" in spec.host_ip:
        what = f"publish {spec.container_port}/sctp on [{spec.host_ip}]"
        raise Unsupported(what, "SCTP is published on IPv4 addresses only")
    if spec.host_ip:
        return [spec.host_ip]
    return [ANY_IPV4, ANY_IPV6] if spec.proto != "sctp" and has_ipv6() else [ANY_IPV4]


def _open(proto: str, address: str, port: int, *, listen: bool = True) -> socket.socket | None:
    """A bound socket; an IPv6 one of TCP listens. None for SCTP where the kernel has none. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind, number = KINDS[proto]
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if proto == "sctp" and error.errno in NO_PROTOCOL:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if proto == "tcp":
                # inherited by what it accepts: a container that is started again finds its own connections of before in
                # TIME_WAIT. Nobody can listen beside a socket that does, whatever this option says.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif proto == "udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the kernel's minimum: nobody will read it
        _bind(sock, address, port, proto)
        if listen and family == socket.AF_INET6 and proto == "tcp":
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, address: str, port: int, proto: str) -> None:
    """bind(2); over connections of an earlier server that are only waiting to be forgotten (TIME_WAIT), for TCP."""
    try:
        sock.bind((address, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or proto != "tcp" or not port or ":" in address:
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # so that nobody listens here with the same trick


def _target(mapping: PortMapping, ip: str) -> dict[str, Any] | None:
    if ":" not in mapping.host_ip:
        return None
    return {"proto": mapping.proto, "ip": ip, "port": mapping.container_port}


def _cannot_bind(address: str, port: int, proto: str, error: OSError) -> PyrunError:
    what = f"publish {host_port(address, port)}/{proto}"
    if error.errno == errno.EADDRNOTAVAIL:
        hint = "`ip address` shows the host's addresses"
        return PyrunError(what, f"{address} is not an address of this host", hint=hint)
    if error.errno in NO_PROTOCOL and ":" in address:
        return Unsupported(what, "this host has no IPv6")
    if error.errno == errno.EACCES:
        return PyrunError(what, "permission denied", hint="ports below net.ipv4.ip_unprivileged_port_start need root")
    return PyrunError(what, os.strerror(error.errno or 0).lower())
