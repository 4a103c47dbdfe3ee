# SPDX-License-Identifier: Apache-2.0
"""The bridge device of a network: made when first needed, put right when somebody has changed or deleted it.

ensure() is called by every start, so what it does when all is well is a handful of ioctls and two reads of /proc,
40 µs. Otherwise it takes a lock (starts run in parallel), looks again, and does what is missing.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from pyrun.netns import leases, networks
from pyrun.netns.rtnl import (
    RTM_GETLINK,
    RTM_GETROUTE,
    NetlinkFailure,
    Rtnl,
    addr_add,
    link_add,
    link_delete,
    link_set,
)
from pyrun.runtime.errors import Conflict, PyrunError
from pyrun.runtime.events import step
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.netns.networks import Network
    from pyrun.netns.rtnl import Attrs, Request
    from pyrun.netns.subnets import Subnet
    from pyrun.runtime.paths import Paths

# netdevice(7)
SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFMTU = 0x8913, 0x8915, 0x891B, 0x8921
IFF_UP = 1
ALIAS = "pyrun"  # links of containers have the alias pyrun:<instance>:<container id>
USUAL_MTU = 1500
IN6_ADDR_GEN_MODE_NONE = 1


def sysctls(bridge: str) -> tuple[tuple[str, str], ...]:
    """(path, value) of the settings that the network needs."""
    return (
        # the host routes between the bridge and the rest
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        # a packet from 127.0.0.1 may leave by the bridge: published ports on localhost (the firewall masquerades it)
        (f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "1"),
        *(pair for pair in deaf_to_routers(bridge) if os.path.exists(pair[0])),
    )


def deaf_to_routers(bridge: str) -> tuple[tuple[str, str], ...]:
    """(path, value) of what keeps containers from acting as the host's router: by a router advertisement, which any of
    them can send, the host would get an address and a default route through it (CVE-2020-13401, CVE-2020-10749).

    Not there before the bridge is, nor on a kernel without IPv6.
    """
    ipv6, ipv4 = f"/proc/sys/net/ipv6/conf/{bridge}", f"/proc/sys/net/ipv4/conf/{bridge}"
    return ((f"{ipv6}/accept_ra", "0"), (f"{ipv6}/accept_redirects", "0"), (f"{ipv4}/accept_redirects", "0"))


def ensure(paths: Paths, host: Rtnl, network: Network) -> Network:
    """Makes sure that the network's bridge is there, up, with its address; safe when many do it at once.

    Returns the network: the default one may have moved to another subnet, if its old one has meanwhile come to overlap
    one of the host's routes and no container uses it. Raises PyrunError (Conflict when the subnet cannot be used or
    a link of another kind has the bridge's name), OSError.
    """
    if is_ready(network):
        return network
    with networks.networks_lock(paths):
        network = networks.load(paths, network.name)  # somebody may have moved it while we waited
        if is_ready(network):
            return network
        return _put_right(paths, host, network)


def is_ready(network: Network) -> bool:
    """Whether the bridge is up with the network's address, and the host forwards."""
    subnet = network.range
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as query:
        flags = _ioctl(query, SIOCGIFFLAGS, network.bridge)
        if not flags or not struct.unpack_from("=H", flags)[0] & IFF_UP:
            return False
        address = _ioctl(query, SIOCGIFADDR, network.bridge)[4:8]  # struct sockaddr_in: family, port, address
        mask = _ioctl(query, SIOCGIFNETMASK, network.bridge)[4:8]
    wanted = (0xFFFFFFFF << (32 - subnet.prefix) & 0xFFFFFFFF).to_bytes(4, "big")
    if address != socket.inet_aton(network.gateway) or mask != wanted:
        return False
    return all(_read(path) == value for path, value in sysctls(network.bridge))


def mtu(network: Network) -> int:
    """The bridge's MTU, for the veth pairs on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as query:
        answer = _ioctl(query, SIOCGIFMTU, network.bridge)
    return int(struct.unpack_from("=i", answer)[0]) if answer else USUAL_MTU


def plug_in(paths: Paths, host: Rtnl, network: Network) -> list[str]:
    """Makes the containers' pairs that lost their bridge ports of it again; their names. Raises PyrunError."""
    index = host.link_index(network.bridge)
    mine = {f"{ALIAS}:{paths.instance}:{container_id}" for container_id in leases.held(paths, network.name).values()}
    loose = [
        str(link.get_attr("IFLA_IFNAME"))
        for link in host.dump(RTM_GETLINK)
        if link.get_attr("IFLA_IFALIAS") in mine and link.get_attr("IFLA_MASTER") != index
    ]
    for name in loose:
        host.call(link_set(f"ip link set {name} master {network.bridge}", name, [["IFLA_MASTER", index]], up=True))
        host.call(hairpin_port(name))
    return loose


def hairpin_port(name: str, *attrs: list[object]) -> Request:
    """`ip link set NAME up type bridge_slave hairpin on`, and further attributes.

    With br_netfilter a container that reaches itself by a published port is bridged back where it came from.
    """
    hairpin: Attrs = [["IFLA_BRPORT_MODE", 1]]
    info: Attrs = [["IFLA_INFO_SLAVE_KIND", "bridge"], ["IFLA_INFO_SLAVE_DATA", {"attrs": hairpin}]]
    text = f"ip link set {name} up type bridge_slave hairpin on"
    return link_set(text, name, [["IFLA_LINKINFO", {"attrs": info}], *attrs], up=True)


def remove(host: Rtnl, network: Network) -> None:
    """Deletes the bridge; one that is gone already is fine. Raises NetlinkFailure."""
    delete_link(host, network.bridge)


def delete_link(host: Rtnl, ifname: str) -> None:
    """`ip link delete`, content when there is no such link. Raises NetlinkFailure."""
    try:
        host.call(link_delete(ifname))
    except NetlinkFailure as error:
        if error.errno != 19:  # ENODEV
            raise


def mac_of(address: str) -> str:
    """The MAC address for an IPv4 address, as docker makes it: a reused address then meets no stale ARP entry."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in socket.inet_aton(address))


def no_ipv6_address() -> Attrs:
    """Attributes for `ip link set … addrgenmode none`: host-side links talk no IPv6; [] on a kernel without it."""
    if not os.path.exists("/proc/net/if_inet6"):
        return []
    mode = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE]]}
    return [["IFLA_AF_SPEC", {"attrs": [["AF_INET6", mode]]}]]


def _put_right(paths: Paths, host: Rtnl, network: Network) -> Network:
    kind = _link_kind(host, network.bridge)
    if kind is not None and kind != "bridge":
        why = f"a link of kind '{kind or 'physical'}' has this name"
        raise Conflict(f"create bridge {network.bridge}", why, hint=f"rename it: ip link set {network.bridge} name …")
    network = _on_free_subnet(paths, host, network)
    with Undo() as undo:
        if kind is None:
            attrs: Attrs = [
                ["IFLA_IFNAME", network.bridge],
                # without an address of its own a bridge takes the lowest of its ports', which changes as they come
                ["IFLA_ADDRESS", mac_of(network.gateway)],
                ["IFLA_MTU", _uplink_mtu(host)],
                ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "bridge"]]}],
            ]
            host.call(link_add(f"ip link add {network.bridge} type bridge", attrs))
            undo.on_failure(delete_link, host, network.bridge)
        for path, value in sysctls(network.bridge):
            _set_sysctl(path, value)
        host.call(
            link_set(f"ip link set {network.bridge} up addrgenmode none", network.bridge, no_ipv6_address(), up=True),
            _gateway_address(host, network),
        )
        clash = _overlapping(host, network)
        if clash:  # somebody took the same subnet at the same moment
            raise _taken(network, clash)
    return network


def _gateway_address(host: Rtnl, network: Network) -> Request:
    subnet = network.range
    index = host.link_index(network.bridge)
    return addr_add(index, network.bridge, network.gateway, subnet.prefix, subnet.broadcast, replace=True)


def _on_free_subnet(paths: Paths, host: Rtnl, network: Network) -> Network:
    clash = _overlapping(host, network)
    if clash is None:
        return network
    if network.name != networks.DEFAULT or leases.held(paths, network.name):
        raise _taken(network, clash)
    return networks.write_default(paths, host)


def _overlapping(host: Rtnl, network: Network) -> Subnet | None:
    subnet = network.range
    return next((other for other in networks.in_use(host, network.bridge) if subnet.overlaps(other)), None)


def _taken(network: Network, clash: Subnet) -> Conflict:
    hint = f"remove that route (`ip route show to root {clash}`), or stop the network's containers so that it can move"
    return Conflict(f"network {network.name} on {network.subnet}", f"the host has a route to {clash}", hint=hint)


def _link_kind(host: Rtnl, ifname: str) -> str | None:
    """The kind of the link with this name, "" for one without a kind, None when there is none."""
    for link in host.dump(RTM_GETLINK):
        if link.get_attr("IFLA_IFNAME") == ifname:
            info = link.get_attr("IFLA_LINKINFO")
            return (info.get_attr("IFLA_INFO_KIND") or "") if info else ""
    return None


def _uplink_mtu(host: Rtnl) -> int:
    """The MTU of the link with the default route when it is below the usual one: larger packets would be lost there."""
    default = {r.get_attr("RTA_OIF") for r in host.dump(RTM_GETROUTE, socket.AF_INET) if r["dst_len"] == 0}
    mtus = [link.get_attr("IFLA_MTU") for link in host.dump(RTM_GETLINK) if link["index"] in default]
    return min([USUAL_MTU, *(int(value) for value in mtus if value)])


def _set_sysctl(path: str, value: str) -> None:
    if _read(path) == value:
        return
    name = path.removeprefix("/proc/sys/").replace("/", ".")
    with step("netns", f"sysctl {name}={value}"):
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(value)
        except OSError as error:
            hint = f"the host must allow it: sysctl -w {name}={value}"
            raise PyrunError(f"set {name}={value}", (error.strerror or "").lower(), hint=hint) from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _ioctl(query: socket.socket, request: int, ifname: str) -> bytes:
    """What follows the name in struct ifreq, b"" when the kernel refuses (no such link, no address)."""
    try:
        return fcntl.ioctl(query.fileno(), request, struct.pack("16s24x", ifname.encode()))[16:]
    except OSError:
        return b""
