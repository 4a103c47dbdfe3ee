# SPDX-License-Identifier: Apache-2.0
"""Takes away what containers have left on the network that are gone without having been cleaned up after."""

from __future__ import annotations

from pyrun.netns import bridge, firewall, leases, networks
from pyrun.netns.bridge import ALIAS
from pyrun.netns.rtnl import RTM_GETLINK, Rtnl
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pyrun.runtime.paths import Paths


class Recovered(Record):
    """What was found and removed: container ids by what they had left, and names of links."""

    ports: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    leases: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ports or self.links or self.leases)


def recover(paths: Paths, live_ids: Collection[str]) -> Recovered:
    """Frees ports, veth pairs and addresses of this instance's containers that are not in `live_ids`.

    In that order: an address must not be given out again while anything leads to it. The caller must make sure that no
    container is being started meanwhile, or that its id is in `live_ids`. Raises PyrunError, OSError.
    """
    ports = firewall.recover(paths, live_ids)
    with Rtnl.host() as host:
        links = stray_links(paths, host, live_ids)
        for name in links:
            bridge.delete_link(host, name)
    freed = [gone for name in leases.networks_with_leases(paths) for gone in leases.prune(paths, name, live_ids)]
    return Recovered(tuple(ports), tuple(links), tuple(freed))


def dismantle(paths: Paths) -> None:
    """Removes everything of this instance from the host's network: ports, rules, links, bridges, leases.

    For the end of an instance (tests, removing pyrun); containers that run lose their network. The networks' files
    stay: the next start makes everything again. Raises PyrunError, OSError.
    """
    recover(paths, ())
    firewall.remove(paths)
    with Rtnl.host() as host:
        for name in networks.names(paths):
            bridge.remove(host, networks.load(paths, name))


def stray_links(paths: Paths, host: Rtnl, live_ids: Collection[str]) -> list[str]:
    """The host's ends of veth pairs that are ours by their alias and belong to no live container."""
    stray = []
    for link in host.dump(RTM_GETLINK):
        owner, _, rest = (link.get_attr("IFLA_IFALIAS") or "").partition(":")
        instance, _, container_id = rest.partition(":")
        if owner == ALIAS and instance == paths.instance and container_id and container_id not in live_ids:
            stray.append(link.get_attr("IFLA_IFNAME"))
    return stray
