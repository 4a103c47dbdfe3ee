# SPDX-License-Identifier: Apache-2.0
"""Containers on the bridge: addresses, the bridge that repairs itself, nothing left behind."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

import netlab
from netlab import Lab, links, shell
from pyrun.netns import attach, bridge, leases, networks, recover
from pyrun.netns.rtnl import NetlinkFailure, Rtnl
from pyrun.runtime.errors import Conflict, PyrunError, UsageError
from pyrun.runtime.kernel import nftables
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = requires(root=True, tools=("ip",))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        yield made


def test_host_and_container_reach_each_other(lab: Lab) -> None:
    """A connected container answers the host, reaches the host by its gateway, and its sibling by its address."""
    web, client = lab.connected(), lab.connected()
    lab.serve(web, 80)
    lab.serve(lab.host, 8080)
    assert web.endpoint is not None
    assert netlab.ask(lab.host, web.ip, 80) == web.endpoint.gateway
    assert netlab.ask(client, web.ip, 80) == client.ip
    assert netlab.ask(client, web.endpoint.gateway, 8080) == client.ip


def test_endpoint_is_what_the_kernel_has(lab: Lab) -> None:
    """The endpoint's names, addresses and MAC are those that ip(8) shows, outside and inside."""
    web = lab.connected()
    end = web.endpoint
    assert end is not None
    (inside,) = json.loads(web.run("ip", "-json", "address", "show", "eth0"))
    (ipv4,) = [a for a in inside["addr_info"] if a["family"] == "inet"]
    assert (inside["address"], ipv4["local"], ipv4["prefixlen"]) == (end.mac, end.ip, end.prefix)
    assert end.mac == "02:42:" + ":".join(f"{int(part):02x}" for part in end.ip.split("."))
    assert f"default via {end.gateway} dev eth0" in web.run("ip", "route")
    (outside,) = json.loads(shell("ip", "-json", "-details", "link", "show", end.host_interface))
    assert outside["ifalias"] == f"pyrun:{lab.paths.instance}:{web.id}"
    assert outside["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert len(end.host_interface) <= 15
    assert lab.paths.instance in end.host_interface


def test_pair_dies_with_the_container_and_detach_is_content(lab: Lab) -> None:
    """When the namespace goes, so does the host's end; detach() gives the address back, as often as it is called."""
    web = lab.connected()
    assert web.endpoint is not None
    name = web.endpoint.host_interface
    assert name in links()
    web.close()
    assert netlab.eventually(lambda: name not in links())
    for _ in range(2):
        attach.detach(lab.paths, "bridge", web.id)
        assert leases.held(lab.paths, "bridge") == {}


def test_detach_removes_a_pair_that_is_still_there(lab: Lab) -> None:
    """A container that lives on loses its interface when it is taken off the network."""
    web = lab.connected()
    attach.detach(lab.paths, "bridge", web.id)
    assert "eth0" not in web.run("ip", "link")
    assert leases.held(lab.paths, "bridge") == {}


def test_failed_attach_leaves_nothing(lab: Lab) -> None:
    """With an eth0 inside already, the error names the request and the reason, and neither link nor lease remain."""
    network = lab.network()
    before = links()
    web = lab.container()
    web.run("ip", "link", "add", "eth0", "type", "bridge")
    with pytest.raises(NetlinkFailure, match=r"ip link add pv.* type veth .*: file exists"):
        attach.attach(lab.paths, network, web.netlink.fileno(), web.id)
    assert links() == before
    assert leases.held(lab.paths, "bridge") == {}


def test_failure_inside_is_undone_outside(lab: Lab) -> None:
    """When the default route inside is there already, the pair that was made by then is removed again."""
    network = lab.network()
    before = links()
    web = lab.container()
    web.run("ip", "link", "add", "other", "up", "type", "bridge")
    web.run("ip", "route", "add", "default", "dev", "other")
    with pytest.raises(NetlinkFailure, match="ip route add default"):
        attach.attach(lab.paths, network, web.netlink.fileno(), web.id)
    assert links() == before
    assert "eth0" not in web.run("ip", "link")
    assert leases.held(lab.paths, "bridge") == {}


def test_a_pair_from_a_killed_start_is_replaced(lab: Lab) -> None:
    """The host's end of an earlier start of this container does not stop the next one."""
    network = lab.network()
    web = lab.container()
    name = attach.host_interface(lab.paths, web.id)
    shell("ip", "link", "add", name, "type", "veth", "peer", "name", "stale0")
    attach.attach(lab.paths, network, web.netlink.fileno(), web.id)
    assert "stale0" not in links()
    assert "eth0" in web.run("ip", "link")


def test_chosen_address_and_mac(lab: Lab) -> None:
    """--ip and --mac-address are taken as they are; a taken or impossible one is refused with the reason."""
    network = lab.network()
    base = network.gateway.rpartition(".")[0]
    wanted = f"{base}.77"
    web = lab.container()
    end = attach.attach(lab.paths, network, web.netlink.fileno(), web.id, ip=wanted, mac="0E-00-00-00-00-07")
    assert (end.ip, end.mac) == (wanted, "0e:00:00:00:00:07")
    other = lab.container()
    for ip, mac, kind, reason in (
        (wanted, "", Conflict, f"in use by container {web.id[:12]}"),
        ("192.0.2.1", "", UsageError, "not in its subnet"),
        (network.gateway, "", UsageError, "reserved"),
        ("1.2.3", "", UsageError, "invalid IPv4 address"),
        ("", "01:00:00:00:00:01", UsageError, "multicast"),
        ("", "0e:00", UsageError, "six hexadecimal octets"),
    ):
        with pytest.raises(kind, match=reason):
            attach.attach(lab.paths, network, other.netlink.fileno(), other.id, ip=ip, mac=mac)
    assert list(leases.held(lab.paths, "bridge").values()) == [web.id]


def test_twenty_at_once(lab: Lab) -> None:
    """Twenty processes that each connect a container at the same moment all succeed, with twenty addresses."""
    containers = [lab.container() for _ in range(20)]
    gate_read, gate_write = os.pipe()
    children = []
    for container in containers:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(gate_write)
                os.read(gate_read, 1)  # ends for all at once
                container.endpoint = attach.attach(lab.paths, lab.network(), container.netlink.fileno(), container.id)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    os.close(gate_read)
    os.close(gate_write)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 20
    held = leases.held(lab.paths, "bridge")
    assert set(held.values()) == {c.id for c in containers}
    assert sum(name.startswith("pv") for name in links()) == 20
    for container in containers:
        (inside,) = json.loads(container.run("ip", "-json", "-4", "address", "show", "eth0"))
        assert held[inside["addr_info"][0]["local"]] == container.id


@pytest.mark.parametrize(
    "damage",
    [
        ("ip", "link", "delete", "{bridge}"),
        ("ip", "address", "flush", "dev", "{bridge}"),
        ("ip", "link", "set", "{bridge}", "down"),
        ("sysctl", "-w", "net.ipv4.ip_forward=0"),
        ("sysctl", "-w", "net.ipv4.conf.{bridge}.route_localnet=0"),
    ],
    ids=lambda damage: " ".join(damage[:3]),
)
def test_the_bridge_repairs_itself(lab: Lab, damage: tuple[str, ...]) -> None:
    """Whatever somebody did to the bridge, the next start puts it right."""
    network = lab.network()
    assert bridge.is_ready(network)
    shell(*(word.format(bridge=network.bridge) for word in damage))
    assert not bridge.is_ready(network)
    assert lab.network() == network
    assert bridge.is_ready(network)


def test_a_link_of_another_kind_is_not_taken_over(lab: Lab) -> None:
    """A veth link with the bridge's name is left alone, and named in the error."""
    with Rtnl.host() as host:
        network = networks.ensure_default(lab.paths, host)
        shell("ip", "link", "add", network.bridge, "type", "veth", "peer", "name", "other0")
        with pytest.raises(Conflict, match="a link of kind 'veth' has this name"):
            bridge.ensure(lab.paths, host, network)
    assert '"veth"' in shell("ip", "-json", "-details", "link", "show", network.bridge)


def test_subnet_avoids_the_hosts_routes(lab: Lab) -> None:
    """The default network's subnet is one to which the host has no route and in which it has no address."""
    shell("ip", "route", "add", "10.208.0.0/12", "via", netlab.LAN_IP)
    shell("ip", "address", "add", "172.30.5.1/16", "dev", "lan0")
    assert lab.network().subnet == "192.168.208.0/20"


def test_default_network_moves_out_of_the_way_when_it_is_free_to(lab: Lab) -> None:
    """A route that later overlaps the subnet makes the unused network move; with containers on it, it is an error."""
    first = lab.network()
    shell("ip", "link", "delete", first.bridge)
    shell("ip", "route", "add", "10.208.0.0/12", "via", netlab.LAN_IP)
    second = lab.network()
    assert second.subnet != first.subnet
    assert networks.load(lab.paths, "bridge") == second
    lab.connected()
    shell("ip", "link", "delete", second.bridge)
    shell("ip", "route", "add", second.subnet, "via", netlab.LAN_IP)
    with pytest.raises(Conflict, match="the host has a route to"):
        lab.network()


def test_mtu_follows_a_smaller_uplink(lab: Lab) -> None:
    """Behind a link with a small MTU the bridge and the containers have it too."""
    shell("ip", "link", "set", "lan0", "mtu", "1400")
    web = lab.connected()
    assert "mtu 1400" in web.run("ip", "link", "show", "eth0")


def test_addresses_rotate(lab: Lab) -> None:
    """A freed address is not the next one to be given out."""
    network = lab.network()
    first = leases.acquire(lab.paths, network, "a" * 64)
    leases.release(lab.paths, "bridge", "a" * 64)
    second = leases.acquire(lab.paths, network, "b" * 64)
    assert second != first
    assert leases.acquire(lab.paths, network, "b" * 64) == second


def test_recover_frees_what_dead_containers_left(lab: Lab) -> None:
    """recover() frees the addresses and the pairs of containers that are not alive, and nothing of those that are."""
    dead, alive = lab.connected(), lab.connected()
    assert dead.endpoint is not None
    assert alive.endpoint is not None
    done = recover.recover(lab.paths, {alive.id})
    assert (done.leases, done.links) == ((dead.id,), (dead.endpoint.host_interface,))
    assert leases.held(lab.paths, "bridge") == {alive.ip: alive.id}
    assert "eth0" in alive.run("ip", "link")
    assert not recover.recover(lab.paths, {alive.id})


def test_a_full_network_says_so(lab: Lab) -> None:
    """When every address is leased, the error says how many there are."""
    network = lab.network().replace(subnet="10.1.1.0/29", gateway="10.1.1.1")
    for i in range(5):
        leases.acquire(lab.paths, network, str(i) * 64)
    with pytest.raises(PyrunError, match=r"all 5 addresses of 10\.1\.1\.0/29 are in use"):
        leases.acquire(lab.paths, network, "f" * 64)


def test_without_privileges_the_error_says_what_is_needed(lab: Lab) -> None:
    """EPERM becomes a hint about CAP_NET_ADMIN."""
    web = lab.container()
    network = lab.network()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setresuid(65534, 65534, 65534)
            with Rtnl(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)) as host:
                bridge.delete_link(host, network.bridge)
        except NetlinkFailure as error:
            code = 0 if "CAP_NET_ADMIN" in error.hint and "not permitted" in error.why else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert network.bridge in links()
    assert web.fd >= 0


def test_dismantling_leaves_no_trace(lab: Lab) -> None:
    """dismantle() takes links, bridge, rules and leases away, twice if need be; the next start makes them again."""
    before = links()
    web = lab.connected()
    for _ in range(2):
        recover.dismantle(lab.paths)
        assert links() == before
        assert nftables.run("list ruleset") == ""
        assert leases.held(lab.paths, "bridge") == {}
    assert "eth0" not in web.run("ip", "link")
    web = lab.connected()
    assert web.endpoint is not None
    assert "eth0" in web.run("ip", "link")
