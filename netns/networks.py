# SPDX-License-Identifier: Apache-2.0
"""Networks as they are kept: one readable JSON file each, <data>/networks/<name>.json.

A network is a bridge device with a subnet. The default one, "bridge", is made when first needed, on a subnet that no
route and no address of the machine overlaps.
"""

from __future__ import annotations

import os

from pyrun.netns import subnets
from pyrun.netns.rtnl import RTM_GETADDR, RTM_GETROUTE, Rtnl
from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.files import Lock, private_dir, read_json, write_json
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrun.netns.subnets import Subnet
    from pyrun.runtime.paths import Paths

DEFAULT = "bridge"
AF_INET = 2
RT_TABLE_LOCAL = 255


class Network(Record):
    """A bridge network. `subnet` is "10.213.0.0/20", `gateway` the bridge's own address."""

    name: str
    id: str  # 64 hex digits
    bridge: str  # the device
    subnet: str
    gateway: str
    created: str  # RFC 3339, UTC
    driver: str = "bridge"

    @property
    def range(self) -> Subnet:
        return subnets.parse(self.subnet)


def file_of(paths: Paths, name: str) -> str:
    """<data>/networks/<name>.json. Raises NotFound for a name that could not be one."""
    if not name or not name[0].isalnum() or not all(ch.isascii() and (ch.isalnum() or ch in "_.-") for ch in name):
        raise NotFound(f"network '{name}'", "no such network")
    return f"{paths.data}/networks/{name}.json"


def load(paths: Paths, name: str) -> Network:
    """The network of this name. Raises NotFound, PyrunError when its file is damaged."""
    path = file_of(paths, name)
    try:
        return Network(**read_json(path))
    except FileNotFoundError:
        raise NotFound(f"network '{name}'", "no such network", hint="`pyrun network ls` lists them") from None
    except (ValueError, TypeError) as error:
        raise PyrunError(f"network '{name}'", f"{path} is damaged: {error}", hint="remove the file") from None


def names(paths: Paths) -> list[str]:
    """The names of all networks that have been made."""
    try:
        found = os.listdir(f"{paths.data}/networks")
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))


def ensure_default(paths: Paths, host: Rtnl) -> Network:
    """The default network, chosen and written down if it is not there yet. Raises PyrunError, OSError."""
    try:
        return load(paths, DEFAULT)
    except NotFound:
        pass
    with networks_lock(paths):
        try:
            return load(paths, DEFAULT)
        except NotFound:
            return write_default(paths, host)


def networks_lock(paths: Paths) -> Lock:
    """Held by whoever makes or changes a network or its bridge."""
    private_dir(paths.run)
    return Lock(f"{paths.run}/networks.lock")


def write_default(paths: Paths, host: Rtnl, *, avoid: tuple[Subnet, ...] = ()) -> Network:
    """Chooses the default network's subnet and writes its file; the caller holds networks_lock()."""
    from datetime import UTC, datetime  # once in the life of a data root

    instance = paths.instance
    bridge = f"pyrun0-{instance}" if instance else "pyrun0"
    offset = int(instance, 16) if instance else 0
    subnet = subnets.choose([*in_use(host, bridge), *avoid], offset)
    network = Network(
        name=DEFAULT,
        id=os.urandom(32).hex(),
        bridge=bridge,
        subnet=str(subnet),
        gateway=subnet.gateway,
        created=datetime.now(UTC).isoformat(),
    )
    private_dir(f"{paths.data}/networks")
    write_json(file_of(paths, DEFAULT), network.asdict())
    return network


def in_use(host: Rtnl, but_bridge: str) -> Iterator[Subnet]:
    """What a new network must not overlap: the machine's addresses, routes and name servers.

    Default routes do not count, nor does what is on the link `but_bridge` (our own). Other pyrun instances show up
    here by their bridges.
    """
    try:
        own = host.link_index(but_bridge)
    except PyrunError:
        own = 0
    for message in host.dump(RTM_GETADDR, AF_INET):
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if address and message["index"] != own:
            yield _around(address, message["prefixlen"])
    for message in host.dump(RTM_GETROUTE, AF_INET):
        address = message.get_attr("RTA_DST")
        if address and message["dst_len"] and message.get_attr("RTA_OIF") != own:
            yield _around(address, message["dst_len"])
    for address in name_servers():
        yield _around(address, 32)


def _around(address: str, prefix: int) -> Subnet:
    size = 1 << (32 - prefix)
    return subnets.Subnet(subnets.to_number(address) & ~(size - 1), prefix)


def name_servers() -> list[str]:
    """The IPv4 name servers of the host's /etc/resolv.conf: a route to them may be the default route only."""
    from pyrun.netns.files import nameservers

    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return [address for address in nameservers(file.read()) if ":" not in address]
    except OSError:
        return []
