# SPDX-License-Identifier: Apache-2.0
"""Notices when somebody changes the machine's firewall while containers run, and says when that broke them.

`nft flush ruleset`, `firewall-cmd --reload`, a docker that starts and sets FORWARD to DROP: without this the containers
that run would be cut off until the next start repairs the rules. The kernel announces changes on a netlink multicast
group; nothing is done as long as nobody changes anything.

    watch = Watch(paths, loop, broken)      in the monitor: calls broken() when there is something to repair
    repair(paths)                           in a worker
"""

from __future__ import annotations

import errno
import socket
import struct

from pyrun.netns import bridge, firewall, leases, networks
from pyrun.netns.nfnetlink import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES
from pyrun.netns.rtnl import Rtnl
from pyrun.runtime.errors import NotFound, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrun.netns.networks import Network
    from pyrun.netns.relay import Loop, Timer
    from pyrun.runtime.paths import Paths

NFNLGRP_NFTABLES = 7  # <linux/netfilter/nfnetlink.h>
EPOLLIN = 1
# NFT_MSG_NEWTABLE DELTABLE NEWCHAIN DELCHAIN NEWRULE DELRULE: elements come and go with every container
TELLING = {NFNL_SUBSYS_NFTABLES << 8 | message for message in (0, 2, 3, 5, 6, 8)}
SETTLE_S = 0.3  # a reload is many changes: look when it is over
DATAGRAMS_PER_EVENT = 64


def networks_in_use(paths: Paths) -> Iterator[Network]:
    """The networks on which containers have addresses."""
    for name in leases.networks_with_leases(paths):
        try:
            if leases.held(paths, name):
                yield networks.load(paths, name)
        except NotFound:
            continue


def is_intact(paths: Paths) -> bool:
    """Whether bridges and rules of all networks in use are as they should be. Reads only; never waits."""
    return all(bridge.is_ready(n) and firewall.is_intact(paths, n) for n in networks_in_use(paths))


def repair(paths: Paths) -> tuple[str, ...]:
    """Puts bridges and rules of all networks in use right; notes on what was opened of other tools' chains.

    A bridge that somebody deleted comes back, and the containers' wires are plugged into it again.
    Raises PyrunError, OSError.
    """
    notes: list[str] = []
    with Rtnl.host() as host:
        for network in list(networks_in_use(paths)):
            present = bridge.ensure(paths, host, network)
            bridge.plug_in(paths, host, present)
            notes += firewall.ensure(paths, present)
    return tuple(notes)


class Watch:
    """Listens for changes of nftables on the monitor's loop. close() ends it. Raises OSError when it cannot listen."""

    def __init__(self, paths: Paths, loop: Loop, broken: Callable[[], object]) -> None:
        self._paths = paths
        self._loop = loop
        self._broken = broken
        self._timer: Timer | None = None
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        loop.watch(self._socket.fileno(), EPOLLIN, self._event)

    def close(self) -> None:
        """Stops listening."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    def _event(self, _events: int) -> None:
        telling = False
        for _ in range(DATAGRAMS_PER_EVENT):
            try:
                data = self._socket.recv(64 * 1024)
            except OSError as error:
                telling = telling or error.errno == errno.ENOBUFS  # more happened than fitted
                break
            telling = telling or struct.unpack_from("=H", data, 4)[0] in TELLING
        if telling and self._timer is None:
            self._timer = self._loop.after(SETTLE_S, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            if is_intact(self._paths):
                return
        except (PyrunError, OSError):
            pass  # cannot be read: repair() will say why
        self._broken()
