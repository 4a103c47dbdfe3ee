# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and routes by rtnetlink(7), several requests in one sendmsg(2).

pyroute2 encodes the messages (its classes know every attribute's type); the socket is ours. Its IPRoute runs an event
loop per socket, and every worker would pay 5 to 12 ms for the two sockets of a start; a plain socket takes 0.1. And it
may be any socket: pyrun-init hands out one that was opened in the container's network namespace, and with that the
inside is configured without anybody entering it.

    with Rtnl.host() as host:
        host.call(link_add("pv0", kind="veth"), link_set(ifname="pv0", up=True))
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    Attrs = list[list[Any]]  # [[name, value], …] as pyroute2 takes them

# <linux/rtnetlink.h>, <linux/netlink.h>
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
SIOCGSKNS = 0x894C  # <linux/sockios.h>: the network namespace of a socket, as an fd (since 4.10)
IFF_UP = 1
ANSWER_BYTES = 64 * 1024  # a dump arrives in pieces of at most 32 KiB

_header = struct.Struct("=IHHII")  # struct nlmsghdr
_int = struct.Struct("=i")

HINTS = {
    1: "configuring networks needs root (CAP_NET_ADMIN)",
    95: "the kernel needs bridge and veth: `modprobe bridge veth`",
    105: "too many links or neighbours: see net.ipv4.neigh.default.gc_thresh3",
}


class Request(Record):
    """One message: its words in ip(8), its type and flags, and its body as pyroute2 has encoded it or will."""

    text: str
    kind: int
    flags: int
    body: Any


class NetlinkFailure(PyrunError):
    """The kernel refused a request: `what` is the request in ip(8)'s words, `errno` the kernel's answer."""

    def __init__(self, text: str, errno: int, said: str) -> None:
        reason = os.strerror(errno).lower()
        super().__init__(text, f"{reason} ({said})" if said else reason, hint=HINTS.get(errno, ""))
        self.errno = errno


class Rtnl:
    """A route netlink socket of one network namespace. A context manager; close() ends it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sequence = 0
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):  # the kernel's own words with an error, without the echo
            sock.setsockopt(SOL_NETLINK, option, 1)

    @classmethod
    def host(cls) -> Self:
        """A socket in the network namespace of the calling thread. Raises OSError."""
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE))

    @classmethod
    def of_fd(cls, fd: int) -> Self:
        """A copy of an open route netlink socket, in whatever network namespace that one was made. Raises OSError."""
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE, fileno=copy))

    def netns_fd(self) -> int:
        """A new fd of the socket's network namespace: no pid is involved that could be reused. Raises OSError."""
        return fcntl.ioctl(self._socket.fileno(), SIOCGSKNS)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def call(self, *requests: Request) -> None:
        """Has all requests done, in order, in one sendmsg(2).

        The kernel goes on after a request that fails; the first failure is raised as NetlinkFailure when all are
        answered, and what the others did is the caller's to undo.
        """
        with step("netns", "; ".join(request.text for request in requests)):
            first = self._send(*requests)
            waiting = dict(enumerate(requests, first))
            failure: NetlinkFailure | None = None
            while waiting:
                for sequence, kind, flags, payload in self._receive():
                    request = waiting.pop(sequence, None) if kind == NLMSG_ERROR else None
                    error = -_int.unpack_from(payload)[0] if request else 0
                    if request and error and failure is None:
                        failure = NetlinkFailure(request.text, error, _said(flags, payload))
            if failure is not None:
                raise failure

    def link_index(self, ifname: str) -> int:
        """The index of a link. Raises NetlinkFailure (ENODEV) when there is none of this name."""
        body = _message(ifinfmsg(), attrs=[["IFLA_IFNAME", ifname]])
        answer = self._get(Request(f"ip link show {ifname}", RTM_GETLINK, 0, body))
        return int(_int.unpack_from(answer, 4)[0])  # struct ifinfomsg: ifi_index

    def _get(self, request: Request) -> bytes:
        """The one message that answers a request. Raises NetlinkFailure."""
        sequence = self._send(request)
        answer = b""
        while True:
            for answered, kind, flags, payload in self._receive():
                if answered != sequence:
                    continue
                if kind == NLMSG_ERROR:
                    error = -_int.unpack_from(payload)[0]
                    if error:
                        raise NetlinkFailure(request.text, error, _said(flags, payload))
                    return answer
                answer = payload

    def dump(self, kind: int, family: int = socket.AF_UNSPEC) -> list[Any]:
        """All links, addresses or routes (RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE), as pyroute2's messages."""
        decoder, text = _DUMPS[kind]
        body = _message(decoder(), fields={"family": family})
        sequence = self._send(Request(text, kind, NLM_F_DUMP, body))
        found: list[Any] = []
        while True:
            for answered, answer, _flags, payload in self._receive(whole=True):
                if answered != sequence:
                    continue
                if answer == NLMSG_ERROR:
                    error = -_int.unpack_from(payload, 16)[0]
                    raise NetlinkFailure(text, error, "")
                if answer == NLMSG_DONE:
                    return found
                message = decoder(payload)
                message.decode()
                found.append(message)

    def _send(self, *requests: Request) -> int:
        """Sends the requests; gives the sequence number of the first."""
        first = self._sequence + 1
        batch = bytearray()
        for request in requests:
            self._sequence += 1
            body = request.body
            flags = NLM_F_REQUEST | request.flags
            flags |= 0 if request.flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK
            body["header"] = {"type": request.kind, "flags": flags, "sequence_number": self._sequence, "pid": 0}
            body.reset()
            body.encode()
            batch += body.data
            batch += bytes(-len(batch) % 4)
        self._socket.send(batch)
        return first

    def _receive(self, *, whole: bool = False) -> list[tuple[int, int, int, bytes]]:
        """(sequence, type, flags, payload) of the messages in one datagram; `whole` keeps the header in the payload."""
        data = self._socket.recv(ANSWER_BYTES)
        messages = []
        at = 0
        while at + 16 <= len(data):
            length, kind, flags, sequence, _pid = _header.unpack_from(data, at)
            if length < 16:
                break
            messages.append((sequence, kind, flags, data[at if whole else at + 16 : at + length]))
            at += length + (-length % 4)
        return messages


def _said(flags: int, payload: bytes) -> str:
    """The kernel's own explanation in an NLMSG_ERROR (struct nlmsgerr, then attributes), or ""."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    at = 20 if flags & NLM_F_CAPPED else 4 + _int.unpack_from(payload, 4)[0]
    while at + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        if length < 4:
            break
        if kind == NLMSGERR_ATTR_MSG:
            return payload[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += length + (-length % 4)
    return ""


def _message(message: Any, *, fields: dict[str, int] | None = None, attrs: Attrs | None = None) -> Any:
    for name, value in (fields or {}).items():
        message[name] = value
    message["attrs"] = attrs or []
    return message


_DUMPS: dict[int, tuple[Any, str]] = {
    RTM_GETLINK: (ifinfmsg, "ip link show"),
    RTM_GETADDR: (ifaddrmsg, "ip address show"),
    RTM_GETROUTE: (rtmsg, "ip route show"),
}


# --- requests, in the words of ip(8) ----------------------------------------------------------------------------


def link_add(text: str, attrs: Attrs, *, up: bool = False) -> Request:
    """`ip link add …`: fails with EEXIST when there is a link of the name."""
    flags = {"flags": IFF_UP, "change": IFF_UP} if up else {}
    return Request(text, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _message(ifinfmsg(), fields=flags, attrs=attrs))


def link_set(text: str, ifname: str, attrs: Attrs | None = None, *, up: bool = False) -> Request:
    """`ip link set …` of the link with this name."""
    flags = {"flags": IFF_UP, "change": IFF_UP} if up else {}
    named: Attrs = [["IFLA_IFNAME", ifname], *(attrs or [])]
    return Request(text, RTM_NEWLINK, 0, _message(ifinfmsg(), fields=flags, attrs=named))


def link_delete(ifname: str) -> Request:
    """`ip link delete IFNAME`"""
    body = _message(ifinfmsg(), attrs=[["IFLA_IFNAME", ifname]])
    return Request(f"ip link delete {ifname}", RTM_DELLINK, 0, body)


def addr_add(index: int, ifname: str, address: str, prefix: int, broadcast: str, *, replace: bool = False) -> Request:
    """`ip address add ADDRESS/PREFIX broadcast … dev IFNAME`; `replace` is content with an address that is there."""
    fields = {"family": socket.AF_INET, "prefixlen": prefix, "index": index}
    attrs: Attrs = [["IFA_LOCAL", address], ["IFA_ADDRESS", address], ["IFA_BROADCAST", broadcast]]
    text = f"ip address {'replace' if replace else 'add'} {address}/{prefix} dev {ifname}"
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return Request(text, RTM_NEWADDR, flags, _message(ifaddrmsg(), fields=fields, attrs=attrs))


def default_route_add(index: int, ifname: str, gateway: str) -> Request:
    """`ip route add default via GATEWAY dev IFNAME`"""
    # table main, protocol boot, scope global, type unicast: what ip(8) sends
    fields = {"family": socket.AF_INET, "table": 254, "proto": 3, "scope": 0, "type": 1}
    attrs: Attrs = [["RTA_GATEWAY", gateway], ["RTA_OIF", index]]
    text = f"ip route add default via {gateway} dev {ifname}"
    return Request(text, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _message(rtmsg(), fields=fields, attrs=attrs))
