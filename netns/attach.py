# SPDX-License-Identifier: Apache-2.0
"""Plugs a container into a network, from outside; and out again.

    host:   ip link add pv<id> type veth master pyrun0 peer name eth0 netns <the container's>
            ip link set pv<id> up, hairpin on
    inside: ip link set eth0 up; ip address add …; ip route add default …     (by the socket that pyrun-init opened)

The pair dies with the container's network namespace, so detach() has little to do but give the address back.
"""

from __future__ import annotations

import os

from pyrun.netns import bridge, leases
from pyrun.netns.rtnl import NetlinkFailure, Rtnl, addr_add, default_route_add, link_add, link_set
from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.netns.networks import Network
    from pyrun.netns.rtnl import Attrs, Request
    from pyrun.runtime.paths import Paths

EEXIST = 17


class Endpoint(Record):
    """A container's place on a network. Empty strings and 0 where there is no IPv6."""

    network: str
    interface: str  # inside
    host_interface: str
    ip: str
    prefix: int
    gateway: str
    mac: str
    ipv6: str = ""
    ipv6_prefix: int = 0
    ipv6_gateway: str = ""


def host_interface(paths: Paths, container_id: str) -> str:
    """The name of the host's end of the pair: 15 characters at most (IFNAMSIZ), the instance's suffix in it."""
    instance = paths.instance
    return f"pv{container_id[: 7 if instance else 12]}{instance}"


def alias(paths: Paths, container_id: str) -> str:
    """What `ip link` shows as the host end's alias: whose it is, for people and for recover()."""
    return f"{bridge.ALIAS}:{paths.instance}:{container_id}"


def attach(
    paths: Paths, network: Network, netlink_fd: int, container_id: str, *, ip: str = "", mac: str = "",
    interface: str = "eth0", host: Rtnl | None = None,
) -> Endpoint:  # fmt: skip
    """Connects the network namespace in which `netlink_fd` (NETLINK_ROUTE, SOCK_DGRAM) was opened to the network.

    The network's bridge must be there (bridge.ensure()), and the container's loopback is its own business. `ip` and
    `mac` are "" for whatever is free, and for the address that goes with the IP. Raises PyrunError (NetlinkFailure
    with the request and the kernel's reason, Conflict, UsageError), OSError; then nothing is left behind.
    """
    subnet = network.range
    mac = check_mac(mac) if mac else ""
    own = host is None
    outside = host if host is not None else Rtnl.host()
    try:
        with Undo() as undo, Rtnl.of_fd(netlink_fd) as inside:
            address = leases.acquire(paths, network, container_id, ip)
            undo.on_failure(leases.release, paths, network.name, container_id)
            mac = mac or bridge.mac_of(address)
            name = _add_pair(paths, outside, inside, network, container_id, mac, interface)
            undo.on_failure(bridge.delete_link, outside, name)
            index = inside.link_index(interface)
            inside.call(
                link_set(f"ip link set {interface} up", interface, up=True),
                addr_add(index, interface, address, subnet.prefix, subnet.broadcast),
                default_route_add(index, interface, network.gateway),
            )
    finally:
        if own:
            outside.close()
    return Endpoint(network.name, interface, name, address, subnet.prefix, network.gateway, mac)


def detach(paths: Paths, network_name: str, container_id: str) -> None:
    """Takes the container off the network: removes the pair if it is still there, and gives its address back.

    Fine when either is gone already. The pair of a container that has ended goes by itself; removing it here, before
    the kernel has come to it, takes 20 ms (RCU grace periods). Raises PyrunError, OSError.
    """
    with Rtnl.host() as host:
        bridge.delete_link(host, host_interface(paths, container_id))  # first: while it is there, the address is in use
    leases.release(paths, network_name, container_id)


def check_mac(text: str) -> str:
    """--mac-address in lower case. Raises UsageError for what is not the address of one interface."""
    what = f"invalid MAC address '{text}'"
    octets = text.lower().replace("-", ":").split(":")
    if len(octets) != 6 or not all(len(o) == 2 and all(ch in "0123456789abcdef" for ch in o) for o in octets):
        raise UsageError(what, "six hexadecimal octets are needed, such as 02:42:0a:00:00:02")
    if int(octets[0], 16) & 1:
        raise UsageError(what, "a multicast address: the lowest bit of the first octet must be 0")
    if octets == ["00"] * 6:
        raise UsageError(what, "all zero")
    return ":".join(octets)


def _add_pair(
    paths: Paths, outside: Rtnl, inside: Rtnl, network: Network, container_id: str, mac: str, interface: str
) -> str:
    """Creates the veth pair, one end in the container; the name of the host's end."""
    name = host_interface(paths, container_id)
    netns_fd = inside.netns_fd()
    try:
        add = _veth(outside, network, name, mac, interface, netns_fd)
        port = bridge.hairpin_port(name, ["IFLA_IFALIAS", alias(paths, container_id)], *bridge.no_ipv6_address())
        try:
            outside.call(add)
        except NetlinkFailure as error:
            if error.errno != EEXIST:
                raise
            # Ours, from a start that was killed: names are made of container ids. (The other cause of EEXIST, an
            # interface of this name inside, fails the second time as well.)
            bridge.delete_link(outside, name)
            outside.call(add)
        with Undo() as undo:
            undo.on_failure(bridge.delete_link, outside, name)
            outside.call(port)
    finally:
        os.close(netns_fd)
    return name


def _veth(outside: Rtnl, network: Network, name: str, mac: str, interface: str, netns_fd: int) -> Request:
    mtu = bridge.mtu(network)
    inner: Attrs = [
        ["IFLA_IFNAME", interface],
        ["IFLA_ADDRESS", mac],
        ["IFLA_MTU", mtu],
        ["IFLA_NET_NS_FD", netns_fd],
    ]
    peer: Attrs = [["VETH_INFO_PEER", {"attrs": inner}]]
    attrs: Attrs = [
        ["IFLA_IFNAME", name],
        ["IFLA_MTU", mtu],
        ["IFLA_MASTER", outside.link_index(network.bridge)],
        ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", {"attrs": peer}]]}],
    ]
    text = f"ip link add {name} type veth master {network.bridge} peer name {interface} address {mac} netns container"
    return link_add(text, attrs)
