# SPDX-License-Identifier: Apache-2.0
"""IPv4 subnets as numbers, and the choice of one that is not in use on this machine."""

from __future__ import annotations

import socket

from pyrun.runtime.errors import Conflict, UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Subnet(Record):
    """A network address as a number, and its prefix length."""

    base: int
    prefix: int

    @property
    def size(self) -> int:
        """How many addresses it has, network and broadcast address included."""
        return 1 << (32 - self.prefix)

    @property
    def gateway(self) -> str:
        """The first usable address: the bridge's."""
        return to_text(self.base + 1)

    @property
    def broadcast(self) -> str:
        return to_text(self.base + self.size - 1)

    def overlaps(self, other: Subnet) -> bool:
        return self.base < other.base + other.size and other.base < self.base + self.size

    def __contains__(self, address: str) -> bool:
        return self.base <= to_number(address) < self.base + self.size

    def __str__(self) -> str:
        return f"{to_text(self.base)}/{self.prefix}"


def to_number(address: str) -> int:
    """The number of an address: 167772161 for 10.0.0.1. Raises UsageError for what is not a dotted IPv4 address."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
    except (OSError, ValueError):
        raise UsageError(f"invalid IPv4 address '{address}'") from None


def to_text(number: int) -> str:
    """The address of a number: 10.0.0.1 for 167772161."""
    return socket.inet_ntop(socket.AF_INET, number.to_bytes(4, "big"))


def parse(text: str) -> Subnet:
    """The Subnet of "10.0.0.0/24". Raises UsageError; host bits must be zero."""
    address, slash, prefix = text.partition("/")
    if not slash or not (prefix.isascii() and prefix.isdigit()) or len(prefix) > 2 or int(prefix) > 32:
        raise UsageError(f"invalid subnet '{text}'", "not an IPv4 address with a prefix length, such as 10.0.0.0/24")
    subnet = Subnet(to_number(address), int(prefix))
    if subnet.base & (subnet.size - 1):
        raise UsageError(f"invalid subnet '{text}'", "bits beyond the prefix are set")
    return subnet


# Where networks are made, /20 each (a Linux bridge has at most 1023 ports): away from what docker (172.17.0.0/16 and
# up, 192.168.0.0/16), podman (10.88.0.0/16 and up), libvirt (192.168.122.0/24) and Kubernetes' network plug-ins
# (10.42, 10.43, 10.96, 10.244) take by default. The later pools serve machines whose VPN routes all of 10.0.0.0/8.
POOLS = ("10.213.0.0/16", "10.214.0.0/16", "10.215.0.0/16", "172.30.0.0/16", "192.168.208.0/20", "198.18.208.0/20")
NETWORK_PREFIX = 20


def candidates(offset: int) -> Iterator[Subnet]:
    """Every subnet of the pools, those of the first pool rotated by `offset`: two instances seldom try the same one."""
    for number, pool in enumerate(map(parse, POOLS)):
        count = 1 << (NETWORK_PREFIX - pool.prefix)
        size = pool.size // count
        for i in range(count):
            yield Subnet(pool.base + size * ((i + offset) % count if number == 0 else i), NETWORK_PREFIX)


def choose(taken: Iterable[Subnet], offset: int = 0) -> Subnet:
    """The first candidate that overlaps nothing in `taken`. Raises Conflict when there is none."""
    taken = list(taken)
    for candidate in candidates(offset):
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    why = "every candidate overlaps a route or an address of this machine"
    raise Conflict("choose a subnet", why, hint=f"the candidates are in {', '.join(POOLS)}; see `ip route`")
