# SPDX-License-Identifier: Apache-2.0
"""Reads of nftables and conntrack over a netlink socket of our own, for what nft(8) is too slow at.

`nft list chain` fetches every element of every set of the table first: 5 ms with 2000 published ports. The questions
here ("are our rules still there?", asked by every start) take 50 µs however many ports are published.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/netfilter/nfnetlink.h>, nf_tables.h, nfnetlink_conntrack.h
NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES = 1, 10
NFT_MSG_GETCHAIN, NFT_MSG_GETRULE = 4, 7
NFTA_RULE_TABLE, NFTA_RULE_CHAIN = 1, 2
NFTA_CHAIN_TABLE, NFTA_CHAIN_HANDLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 1, 2, 3, 4, 5
NFTA_HOOK_HOOKNUM = 1
NF_INET_FORWARD, NF_DROP = 2, 0
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_TUPLE_PROTO = 1, 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_TYPE_MASK = 0x3FFF

FAMILIES = {"ip": 2, "ip6": 10, "inet": 1}
FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}

_header = struct.Struct("=IHHII")


def rules(family: str, table: str, chain: str = "") -> list[bytes]:
    """The rules of a chain, or of a whole table, as the kernel encodes them (comments are in them as text).

    An empty list when there is no such table. Raises OSError.
    """
    attributes = _attribute(NFTA_RULE_TABLE, table.encode() + b"\0")
    attributes += _attribute(NFTA_RULE_CHAIN, chain.encode() + b"\0") if chain else b""
    return _dump(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE, FAMILIES[family], attributes)


class BaseChain(Record):
    """A chain on the forward hook, in the words of nft(8): family and policy ("accept", "drop") are names."""

    family: str
    table: str
    name: str
    handle: int
    policy: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def forward_chains() -> list[BaseChain]:
    """All base chains on the forward hook that see IPv4 packets (families ip and inet). Raises OSError."""
    found = []
    for message in _dump(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0, b""):
        family = FAMILY_NAMES.get(message[0])
        chain = _attributes(message)
        hook = _attributes(chain.get(NFTA_CHAIN_HOOK, b""), 0).get(NFTA_HOOK_HOOKNUM, b"")
        if family not in ("ip", "inet") or int.from_bytes(hook, "big") != NF_INET_FORWARD:
            continue
        table, name = (chain[kind].rstrip(b"\0").decode() for kind in (NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME))
        handle = int.from_bytes(chain[NFTA_CHAIN_HANDLE], "big")
        policy = int.from_bytes(chain.get(NFTA_CHAIN_POLICY, b"\1"), "big")
        found.append(BaseChain(family, table, name, handle, "drop" if policy == NF_DROP else "accept"))
    return found


def forget_flows(proto: str, ports: set[int]) -> int:
    """Deletes the conntrack entries of flows that were sent to one of `ports` of this host; how many there were.

    A flow that is older than the port map keeps the destination it had (none, or a container that is gone) for as long
    as packets go on coming: UDP clients never notice, and never reach the new container. Raises OSError.
    """
    wanted = [
        tuple_
        for message in _dump(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, FAMILIES["ip"], b"")
        if (tuple_ := _attributes(message).get(CTA_TUPLE_ORIG)) and _goes_to(tuple_, PROTOCOL_NUMBERS[proto], ports)
    ]
    for tuple_ in wanted:
        body = _attribute(CTA_TUPLE_ORIG | 0x8000, tuple_)  # NLA_F_NESTED
        kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
        sock = _socket()
        sock.send(_message(kind, NLM_F_ACK, FAMILIES["ip"], body))
        sock.recv(4096)  # ENOENT: the flow ended by itself
    return len(wanted)


def _goes_to(tuple_: bytes, protocol: int, ports: set[int]) -> bool:
    inner = _attributes(_attributes(tuple_, 0).get(CTA_TUPLE_PROTO, b""), 0)
    number, port = inner.get(CTA_PROTO_NUM, b"\0"), inner.get(CTA_PROTO_DST_PORT, b"\0\0")
    return number[0] == protocol and int.from_bytes(port, "big") in ports


_open: tuple[tuple[int, int], socket.socket] | None = None  # ((process, network namespace), its socket)


def _socket() -> socket.socket:
    """This process's socket in the network namespace of the calling thread.

    Kept open: closing one takes 5 to 20 ms whenever anybody has deleted something from nftables just before.
    """
    global _open
    here = (os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino)
    if _open is not None and _open[0] == here:
        return _open[1]
    if _open is not None and _open[0][0] != here[0]:
        _open[1].detach()  # inherited by a fork: the number may be somebody else's by now
    _open = here, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    return _open[1]


def _dump(kind: int, family: int, attributes: bytes) -> list[bytes]:
    """The messages (without nlmsghdr, with nfgenmsg) that answer a dump request. Raises OSError."""
    global _open
    try:
        return list(_answers(_socket(), kind, family, attributes))
    except OSError:
        _open = None  # what is left of the answer must not be taken for the next one's
        raise


def _answers(sock: socket.socket, kind: int, family: int, attributes: bytes) -> Iterator[bytes]:
    sock.send(_message(kind, NLM_F_DUMP, family, attributes))
    while True:
        data = sock.recv(64 * 1024)
        at = 0
        while at + 16 <= len(data):
            length, answer, _flags, _sequence, _pid = _header.unpack_from(data, at)
            if answer == NLMSG_DONE or length < 16:
                return
            if answer == NLMSG_ERROR:
                error = -struct.unpack_from("=i", data, at + 16)[0]
                if error == errno.ENOENT:  # no such table
                    return
                if error == errno.EINVAL and kind >> 8 == NFNL_SUBSYS_NFTABLES:
                    error = errno.EPROTONOSUPPORT  # nobody serves these messages: a kernel without nf_tables
                raise OSError(error, os.strerror(error))
            yield data[at + 16 : at + length]
            at += length + (-length % 4)


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + attributes  # struct nfgenmsg
    return _header.pack(16 + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes, start: int = 4) -> dict[int, bytes]:
    """type -> value of the attributes in `data`, which begin after the nfgenmsg."""
    found = {}
    at = start
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[at + 4 : at + length]
        at += length + (-length % 4)
    return found
