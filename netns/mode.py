# SPDX-License-Identifier: Apache-2.0
"""--network: which network namespace a container gets, and what cannot be said with which."""

from __future__ import annotations

import fcntl
import os
import stat

from pyrun.runtime.errors import NotFound, UsageError
from pyrun.runtime.record import Record

BRIDGE, NONE, HOST, CONTAINER, NS = "bridge", "none", "host", "container", "ns"

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2), since Linux 4.11


class NetworkMode(Record):
    """`kind` is one of the words above; `value` the network's name (bridge), a container's name or id, or a path."""

    kind: str
    value: str = ""

    @property
    def own(self) -> bool:
        """Whether the container gets a network namespace of its own."""
        return self.kind in (BRIDGE, NONE)

    def __str__(self) -> str:
        """As in --network."""
        return {BRIDGE: self.value, NONE: NONE, HOST: HOST}.get(self.kind, f"{self.kind}:{self.value}")


def parse(text: str) -> NetworkMode:
    """What --network says: bridge (or default), none, host, container:NAME, ns:PATH, or the name of a network.

    Whether the network or container exists is not looked at. Raises UsageError.
    """
    what = f"invalid network '{text}'"
    if text in ("", "default", BRIDGE):
        return NetworkMode(BRIDGE, BRIDGE)
    if text in (NONE, HOST):
        return NetworkMode(text)
    kind, colon, value = text.partition(":")
    if colon and kind in (CONTAINER, NS):
        if not value:
            raise UsageError(what, f"nothing after '{kind}:'", hint="write container:NAME or ns:/path/to/namespace")
        if kind == NS and not value.startswith("/"):
            raise UsageError(what, "the path of a namespace must be absolute")
        if "\0" in value:
            raise UsageError(what, "a NUL character")
        return NetworkMode(kind, value)
    if not (
        text[0].isascii() and text[0].isalnum() and all(ch.isascii() and (ch.isalnum() or ch in "_.-") for ch in text)
    ):
        raise UsageError(what, "not a network's name", hint="use bridge, none, host, container:NAME or ns:PATH")
    return NetworkMode(BRIDGE, text)


def check(
    mode: NetworkMode, *, hostname: str = "", published: bool = False, exposed: bool = False, dns: bool = False,
    added_hosts: bool = False, mac_address: str = "", ip: str = "",
) -> tuple[str, ...]:  # fmt: skip
    """Refuses what contradicts the network mode, as docker does; returns warnings for what has no effect.

    The flags say whether the option was given. Raises UsageError.
    """
    shared = {
        "--hostname": bool(hostname),
        "--publish": published,
        "--expose": exposed,
        "--dns": dns,
        "--add-host": added_hosts,
    }
    for option, given in shared.items():
        if given and mode.kind == CONTAINER:
            why = "the container shares the network of another one, and its names and ports with it"
            raise UsageError(f"conflicting options {option} and --network {mode}", why)
    for option, given in (("--mac-address", bool(mac_address)), ("--ip", bool(ip))):
        if given and mode.kind != BRIDGE:
            raise UsageError(
                f"conflicting options {option} and --network {mode}", "there is no interface to give it to"
            )
    if published and mode.kind != BRIDGE:
        return (f"published ports are discarded with --network {mode}",)
    return ()


def open_netns(path: str) -> int:
    """An fd of the network namespace at `path` (ns:PATH), such as /run/netns/lab or /proc/PID/ns/net.

    Raises NotFound, UsageError when it is something else, OSError.
    """
    what = f"network namespace '{path}'"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(what, "no such file", hint="`ip netns list` shows the named ones, in /run/netns") from None
    try:
        # regular first: an ioctl on whatever device this may be could mean anything
        if not stat.S_ISREG(os.fstat(fd).st_mode) or fcntl.ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET:
            raise OSError
    except OSError:
        os.close(fd)
        raise UsageError(what, "not a network namespace") from None
    return fd
