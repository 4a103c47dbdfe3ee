# SPDX-License-Identifier: Apache-2.0
"""Which process has a port of the host: from /proc/net, sock_diag(7) and /proc/PID/fd."""

from __future__ import annotations

import os
import socket
import struct

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TCP_TIME_WAIT = 6
TCP_BOUND_INACTIVE = 13  # bound, neither listening nor connected: in no file of /proc/net; since Linux 6.8
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300


class Process(Record):
    """A process: its id, and its name as ps(1) shows it."""

    pid: int
    name: str


def owner(proto: str, host_ip: str, port: int) -> Process | None:
    """The process whose socket is in the way of binding this address and port; None when it cannot be told.

    It cannot be told for sockets that are nobody's (the kernel's own), and for other users' when not root.
    """
    for inode in _inodes(proto, host_ip, port):
        process = _process_with(inode)
        if process is not None:
            return process
    return None


def closing(proto: str, port: int) -> bool:
    """Whether connections that have ended, and wait for stray packets (TIME_WAIT, a minute), have the port."""
    if proto != "tcp":
        return False
    rows = (row for name in ("tcp", "tcp6") for row in _proc_net(name))
    return any(local == port and state == TCP_TIME_WAIT for _, local, state, _ in rows)


def _inodes(proto: str, host_ip: str, port: int) -> Iterator[int]:
    """The inode numbers of the sockets on this port that are in the way of an address."""
    families = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6"), "sctp": ("sctp/eps",)}[proto]
    for name in families:
        for address, local, state, inode in _proc_net(name):
            if local == port and inode and state != TCP_TIME_WAIT and _clash(address, host_ip):
                yield inode
    if proto == "tcp":
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from (inode for address, inode in _bound(family, port) if _clash(address, host_ip))


def _clash(one: str, other: str) -> bool:
    # [::] without IPV6_V6ONLY takes the IPv4 port too; whether it is set cannot be seen from here
    return one == other or "::" in (one, other) or ("0.0.0.0" in (one, other) and (":" in one) == (":" in other))


def _proc_net(name: str) -> Iterator[tuple[str, int, int, int]]:
    """(local address, local port, state, inode) of each line of /proc/net/tcp, tcp6, udp or udp6 (proc(5))."""
    try:
        with open(f"/proc/net/{name}", encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split()
        address, colon, port = words[1].partition(":") if len(words) > 9 else ("", "", "")
        if colon:
            yield _address(address), int(port, 16), int(words[3], 16), int(words[9])


def _address(text: str) -> str:
    """The address of /proc/net's hexadecimal 32-bit words, each in the machine's byte order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return socket.inet_ntop(
        socket.AF_INET if len(words) == 1 else socket.AF_INET6, struct.pack(f"={len(words)}I", *words)
    )


def _bound(family: int, port: int) -> Iterator[tuple[str, int]]:
    """(local address, inode) of TCP sockets that are only bound to the port: other instances hold theirs that way."""
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 1 << TCP_BOUND_INACTIVE) + bytes(48)
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    size = 4 if family == socket.AF_INET else 16
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as sock:
            sock.send(header + request)
            while True:
                data = sock.recv(64 * 1024)
                at = 0
                while at + 16 <= len(data):
                    length, kind = struct.unpack_from("=IH", data, at)
                    if kind != SOCK_DIAG_BY_FAMILY or length < 16 + 72:
                        return
                    # struct inet_diag_msg: 4 bytes, sport and dport, source; the inode is its last word
                    if struct.unpack_from("!H", data, at + 20)[0] == port:
                        address = socket.inet_ntop(family, data[at + 24 : at + 24 + size])
                        yield address, struct.unpack_from("=I", data, at + 16 + 68)[0]
                    at += length + (-length % 4)
    except OSError:
        return


def _process_with(inode: int) -> Process | None:
    """The first process that has the socket among its fds."""
    wanted = f"socket:[{inode}]"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(_link(f"/proc/{pid}/fd/{fd}") == wanted for fd in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    return Process(int(pid), file.read().strip())
        except OSError:  # gone, or not ours to look at
            continue
    return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed meanwhile
        return ""
