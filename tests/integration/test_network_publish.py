# SPDX-License-Identifier: Apache-2.0
"""Published ports: from where they answer, from where they must not, and what other firewalls have to say."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

import machine
from netlab import HOST_IP, LAN_IP, Container, Lab, ask, ask_udp, reachable, shell
from pyrun.netns import firewall, hostports, networks, published, recover, watch
from pyrun.netns.ports import PortMapping, parse_publish
from pyrun.runtime.errors import Conflict, PyrunError
from pyrun.runtime.kernel import nftables
from pyrun.runtime.monitor.loop import Loop
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = requires(root=True, tools=("ip",))

BRIDGE_NF = "/proc/sys/net/bridge/bridge-nf-call-iptables"  # this namespace's own; there with br_netfilter


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        yield made


@pytest.fixture(params=["0", "1"], ids=["bridge-nf off", "bridge-nf on"])
def any_lab(lab: Lab, request: pytest.FixtureRequest) -> Lab:
    """The laboratory without and with bridged packets going through the firewall (docker turns that on)."""
    if not os.path.exists(BRIDGE_NF):
        if request.param == "0":
            return lab
        pytest.skip("requires kernel: br_netfilter is not loaded")
    with open(BRIDGE_NF, "w", encoding="ascii") as file:
        file.write(request.param)
    return lab


def publish(lab: Lab, container: Container, *texts: str) -> hostports.Reservation:
    """-p TEXT … of a connected container, with the sockets held as the monitor does."""
    specs = [spec for text in texts for spec in parse_publish(text)]
    reservation = hostports.reserve(lab.paths, specs)
    firewall.publish(lab.paths, container.id, reservation.mappings, container.ip)
    return reservation


def listen(sock: socket.socket, address: str, port: int) -> None:
    """What a server does: some kernels refuse a second one at bind(2), some at listen(2)."""
    sock.bind((address, port))
    sock.listen()


def test_answers_from_everywhere(any_lab: Lab) -> None:
    """-p 5000:80 answers on 127.0.0.1 and the host's addresses, to the LAN, a sibling and the container itself."""
    lab = any_lab
    web, sibling = lab.connected(), lab.connected()
    assert web.endpoint is not None
    gateway = web.endpoint.gateway
    lab.serve(web, 80)
    with publish(lab, web, "5000:80"):
        assert ask(lab.host, "127.0.0.1", 5000) == gateway
        assert ask(lab.host, "127.1.2.3", 5000) == gateway
        assert ask(lab.host, HOST_IP, 5000) == HOST_IP
        assert ask(lab.host, gateway, 5000) == gateway
        assert ask(lab.lan, HOST_IP, 5000) == LAN_IP
        assert ask(sibling, HOST_IP, 5000) == gateway
        assert ask(sibling, gateway, 5000) == gateway
        assert ask(web, HOST_IP, 5000) == gateway
        assert ask(web, gateway, 5000) == gateway
        assert ask(sibling, web.ip, 80) == sibling.ip


def test_udp_answers_from_everywhere(any_lab: Lab) -> None:
    """The same for -p 5353:53/udp."""
    lab = any_lab
    dns, sibling = lab.connected(), lab.connected()
    lab.serve(dns, 53, kind=socket.SOCK_DGRAM)
    with publish(lab, dns, "5353:53/udp"):
        assert dns.endpoint is not None
        gateway = dns.endpoint.gateway
        assert ask_udp(lab.host, "127.0.0.1", 5353) == gateway
        assert ask_udp(lab.host, HOST_IP, 5353) == HOST_IP
        assert ask_udp(lab.lan, HOST_IP, 5353) == LAN_IP
        assert ask_udp(sibling, HOST_IP, 5353) == gateway
        assert ask_udp(dns, HOST_IP, 5353) == gateway


def test_one_address_only(lab: Lab) -> None:
    """-p 127.0.0.1:… answers there only, -p HOST_IP:… only there; two containers can share a port number so."""
    inner, outer = lab.connected(), lab.connected()
    lab.serve(inner, 80)
    lab.serve(outer, 81)
    with publish(lab, inner, "127.0.0.1:5000:80"), publish(lab, outer, f"{HOST_IP}:5000:81"):
        assert ask(lab.host, "127.0.0.1", 5000)
        assert not reachable(lab.host, "127.0.0.2", 5000)
        firewall.unpublish(lab.paths, inner.id)
        assert not reachable(lab.host, "127.0.0.1", 5000)
        assert ask(lab.host, HOST_IP, 5000)
        assert ask(lab.lan, HOST_IP, 5000)


def test_a_neighbour_cannot_reach_localhost(lab: Lab) -> None:
    """CVE-2020-8558: a neighbour that sends packets for 127.0.0.1 to the host's MAC gets no answer; the rule is why."""
    web = lab.connected()
    lab.serve(web, 80)
    # the attacker's side: 127.0.0.1 is an address like any other (its loopback is down), and the host is the way there
    lab.lan.run("sysctl", "-w", "net.ipv4.conf.wire0.route_localnet=1")
    lab.lan.run("ip", "route", "add", "127.0.0.1", "via", HOST_IP, "src", LAN_IP)
    with publish(lab, web, "127.0.0.1:5000:80"):
        assert not reachable(lab.lan, "127.0.0.1", 5000)
        assert ask(lab.host, "127.0.0.1", 5000)
        nftables.run(f"flush chain ip {firewall.table_name(lab.paths)} raw_prerouting")
        assert ask(lab.lan, "127.0.0.1", 5000)  # so the attack is one
        lab.network()
        assert not reachable(lab.lan, "127.0.0.1", 5000)


def test_an_unpublished_port_is_not_reachable_from_outside(lab: Lab) -> None:
    """A neighbour with a route to the containers' subnet reaches published ports only; the forward chain is why."""
    web = lab.connected()
    lab.serve(web, 80)
    lab.lan.run("ip", "route", "add", f"{web.ip}/32", "via", HOST_IP)
    assert not reachable(lab.lan, web.ip, 80)
    assert ask(lab.host, web.ip, 80)
    nftables.run(f"flush chain ip {firewall.table_name(lab.paths)} forward")
    assert ask(lab.lan, web.ip, 80)


def test_the_way_out_is_masqueraded(lab: Lab) -> None:
    """What a container sends to the LAN comes from the host's address: the LAN has no route to containers."""
    web = lab.connected()
    lab.serve(lab.lan, 8080)
    lab.serve(lab.lan, 5353, kind=socket.SOCK_DGRAM)
    assert ask(web, LAN_IP, 8080) == HOST_IP
    assert ask_udp(web, LAN_IP, 5353) == HOST_IP


@requires(tools=("iptables",))
@pytest.mark.parametrize("bridge_nf", ["0", "1"])
def test_a_forward_policy_drop_is_opened(lab: Lab, bridge_nf: str) -> None:
    """Behind docker's `iptables -P FORWARD DROP` containers still get out, and their ports are reached from the LAN."""
    web, sibling = lab.connected(), lab.connected()
    lab.serve(web, 80)
    lab.serve(lab.lan, 8080)
    if os.path.exists(BRIDGE_NF):
        shell("sysctl", "-w", f"net.bridge.bridge-nf-call-iptables={bridge_nf}")
    shell("iptables", "-P", "FORWARD", "DROP")
    with publish(lab, web, "5000:80"):
        assert not reachable(web, LAN_IP, 8080)
        assert not reachable(lab.lan, HOST_IP, 5000)
        network = networks.load(lab.paths, "bridge")
        (note,) = firewall.ensure(lab.paths, network)
        assert note.startswith(f"opened the forward chain 'ip filter FORWARD' for {network.bridge}")
        assert firewall.ensure(lab.paths, network) == ()
        assert ask(web, LAN_IP, 8080) == HOST_IP
        assert ask(lab.lan, HOST_IP, 5000) == LAN_IP
        assert ask(sibling, web.ip, 80)
        # iptables can still read its chain, and our rules are in it, marked
        listed = shell("iptables", "-S", "FORWARD")
        assert f'-A FORWARD -i {network.bridge} -m comment --comment "pyrun: {network.bridge}" -j ACCEPT' in listed
        shell("iptables", "-F", "FORWARD")
        assert len(firewall.ensure(lab.paths, network)) == 1  # flushed by somebody: opened again
        assert ask(web, LAN_IP, 8080) == HOST_IP
    firewall.remove(lab.paths)
    assert "pyrun" not in shell("iptables", "-S", "FORWARD")


@requires(tools=("iptables-legacy",))
def test_the_old_iptables_is_opened_too(lab: Lab) -> None:
    """A FORWARD policy DROP of iptables-legacy, which nftables cannot see, is found and opened, and closed again."""
    shell("iptables-legacy", "-P", "FORWARD", "DROP")
    web = lab.connected()
    lab.serve(lab.lan, 8080)
    assert ask(web, LAN_IP, 8080) == HOST_IP
    assert shell("iptables-legacy", "-S", "FORWARD").count("pyrun: ") == 2
    lab.network()
    assert shell("iptables-legacy", "-S", "FORWARD").count("pyrun: ") == 2
    firewall.remove(lab.paths)
    assert shell("iptables-legacy", "-S", "FORWARD") == "-P FORWARD DROP\n"


def test_a_final_reject_is_opened(lab: Lab) -> None:
    """Behind a chain that ends in a reject, as firewalld's, our rules go before it and after what else it says."""
    nftables.run("add table inet fence; add chain inet fence passing { type filter hook forward priority 10; }")
    nftables.run(
        f"add rule inet fence passing ip daddr {LAN_IP} tcp dport 8081 drop; add rule inet fence passing counter reject"
    )
    web = lab.connected()
    lab.serve(lab.lan, 8080)
    lab.serve(lab.lan, 8081)
    assert ask(web, LAN_IP, 8080) == HOST_IP
    assert not reachable(web, LAN_IP, 8081)
    firewall.remove(lab.paths)
    assert "pyrun" not in nftables.run("list ruleset")


def test_a_chain_that_begins_to_refuse_is_opened(lab: Lab) -> None:
    """A chain that was harmless when it was first seen is looked at again when a rule is added to it."""
    nftables.run("add table inet fence; add chain inet fence passing { type filter hook forward priority 10; }")
    web = lab.connected()
    lab.serve(lab.lan, 8080)
    nftables.run("add rule inet fence passing reject")
    assert not reachable(web, LAN_IP, 8080)
    lab.network()
    assert ask(web, LAN_IP, 8080) == HOST_IP
    assert nftables.run("list table inet fence").count("counter accept") == 2
    lab.network()
    assert nftables.run("list table inet fence").count("counter accept") == 2


def test_a_chain_that_refuses_nothing_is_left_alone(lab: Lab) -> None:
    """No rule is added to a forward chain that would not stop containers."""
    nftables.run("add table inet calm; add chain inet calm passing { type filter hook forward priority 10; }")
    nftables.run("add rule inet calm passing tcp dport 1 drop")
    lab.connected()
    assert "pyrun" not in nftables.run("list table inet calm")


@pytest.mark.parametrize(
    "damage",
    ["flush ruleset", "flush table ip {table}", "delete table ip {table}", "flush chain ip {table} postrouting"],
)
def test_the_rules_repair_themselves(lab: Lab, damage: str) -> None:
    """After somebody flushed the rules, the next start brings everything back, published ports included."""
    web = lab.connected()
    lab.serve(web, 80)
    with publish(lab, web, "5000:80", "127.0.0.2:5001:80"):
        nftables.run(damage.format(table=firewall.table_name(lab.paths)))
        assert not (reachable(lab.lan, HOST_IP, 5000) and reachable(lab.host, "127.0.0.1", 5000))
        lab.network()
        assert ask(lab.lan, HOST_IP, 5000)
        assert ask(lab.host, "127.0.0.1", 5000)
        assert ask(lab.host, "127.0.0.2", 5001)


def test_a_taken_port_names_the_container(lab: Lab) -> None:
    """The second container on a port is refused with the name of the first; nothing of the request is kept."""
    web, other = lab.connected(), lab.connected()
    with publish(lab, web, "5000:80"):
        for text in ("5000:80", "127.0.0.1:5000:80", "[::1]:5000:80", "6000-6001:80-81"):
            specs = [*parse_publish("7000:80"), *parse_publish(text), *parse_publish("5000:81")]
            with pytest.raises(Conflict, match=r"port .*5000/tcp is in use by container web$"):
                hostports.reserve(lab.paths, specs, name_of={web.id: "web"}.__getitem__)
            assert hostports.is_free("tcp", "", 7000)
        # even without the sockets (a monitor that was killed) the firewall lets nobody take it
    with pytest.raises(Conflict, match=f"in use by container {web.id[:12]}"):
        firewall.publish(lab.paths, other.id, [PortMapping("tcp", "0.0.0.0", 5000, 80)], other.ip)
    assert published.read(lab.paths, other.id) is None
    firewall.unpublish(lab.paths, web.id)
    with publish(lab, other, "5000:80"):
        assert published.holder(lab.paths, "tcp", "0.0.0.0", 5000) == other.id


def test_a_taken_port_names_the_process(lab: Lab) -> None:
    """A port that a program of the host has is refused with the program's name and pid."""
    with open("/proc/self/comm", encoding="ascii") as file:
        name = file.read().strip()
    who = rf"is in use by process {name} \(pid {os.getpid()}\)$"
    for kind, proto in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
        with lab.host.socket(kind=kind) as sock:
            sock.bind(("127.0.0.1", 5000))
            if proto == "tcp":
                sock.listen()
            for where in ("", "127.0.0.1:"):
                with pytest.raises(Conflict, match=who):
                    hostports.reserve(lab.paths, parse_publish(f"{where}5000:80/{proto}"))
            with hostports.reserve(lab.paths, parse_publish(f"{HOST_IP}:5000:80/{proto}")):
                pass
    with lab.host.socket(socket.AF_INET6) as sock:
        sock.bind(("::", 5000))
        sock.listen()
        with pytest.raises(Conflict, match=who):
            hostports.reserve(lab.paths, parse_publish("5000:80"))


@requires(kernel=(6, 8))
def test_a_port_that_is_only_bound_has_an_owner_too(lab: Lab) -> None:
    """A socket that neither listens nor is connected is in no /proc/net file; its process is found all the same."""
    with lab.host.socket() as sock:
        sock.bind(("0.0.0.0", 5000))
        with pytest.raises(Conflict, match=rf"\(pid {os.getpid()}\)"):
            hostports.reserve(lab.paths, parse_publish("5000:80"))


def test_ports_in_time_wait_are_free(lab: Lab) -> None:
    """A server that has just ended leaves connections in TIME_WAIT: its port can be published all the same."""
    with lab.host.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        server.bind(("127.0.0.1", 5000))
        server.listen()
        with lab.host.socket() as client:
            client.connect(("127.0.0.1", 5000))
            accepted, _ = server.accept()
            accepted.close()  # first, so that TIME_WAIT is on this side
            client.recv(1)
    assert "06" in [line.split()[3] for line in open("/proc/net/tcp", encoding="ascii") if ":1388" in line]
    with hostports.reserve(lab.paths, parse_publish("5000:80")), lab.host.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            listen(thief, "0.0.0.0", 5000)


def test_held_ports_are_nobody_elses(lab: Lab) -> None:
    """While a port is held no program can listen on it, with SO_REUSEADDR or not."""
    with hostports.reserve(lab.paths, parse_publish("5000:80")):
        for reuse in (0, 1):
            with lab.host.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                with pytest.raises(OSError, match="in use"):
                    listen(thief, "127.0.0.1", 5000)


def test_free_ports(lab: Lab) -> None:
    """-p 80 takes a free port, the same one on IPv4 and IPv6; -p 8000-8002:80 the first free one of three."""
    with hostports.reserve(lab.paths, [*parse_publish("80"), *parse_publish("81/udp")]) as got:
        tcp4, tcp6, udp4, udp6 = got.mappings
        assert tcp4.host_port == tcp6.host_port > 0
        assert udp4.host_port == udp6.host_port > 0
        assert (tcp4.host_ip, tcp6.host_ip) == ("0.0.0.0", "::")
    with lab.host.socket() as taken:
        taken.bind(("127.0.0.1", 8000))
        with hostports.reserve(lab.paths, parse_publish("8000-8002:80")) as got:
            assert {m.host_port for m in got.mappings} == {8001}
        with pytest.raises(Conflict, match="port 8000/tcp is in use"):
            hostports.reserve(lab.paths, parse_publish("8000:80"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("203.0.113.9:80:80", "203.0.113.9 is not an address of this host"),
        ("[2001:db8::9]:80:80", "2001:db8::9 is not an address of this host"),
        ("[::1]:80:80/sctp", "SCTP is published on IPv4 addresses only"),
    ],
)
def test_addresses_that_cannot_be_had(lab: Lab, text: str, why: str) -> None:
    """An address that is not the host's is refused by name."""
    with pytest.raises(PyrunError, match=why):
        hostports.reserve(lab.paths, parse_publish(text))


def test_asked_for_twice(lab: Lab) -> None:
    """One command that publishes two container ports on one host port is told so."""
    with pytest.raises(Conflict, match="port 80/tcp is asked for twice"):
        hostports.reserve(lab.paths, [*parse_publish("80:1"), *parse_publish("80:2")])
    with hostports.reserve(lab.paths, [*parse_publish("80:1"), *parse_publish("80:2/udp")]):
        pass


def test_without_ipv6_only_ipv4_is_published(lab: Lab) -> None:
    """On a host with IPv6 turned off -p takes the IPv4 port, and an IPv6 address is refused."""
    shell("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
    with hostports.reserve(lab.paths, parse_publish("80")) as got:
        assert [m.host_ip for m in got.mappings] == ["0.0.0.0"]
    with pytest.raises(PyrunError, match="::1 is not an address of this host"):
        hostports.reserve(lab.paths, parse_publish("[::1]:80:80"))


def test_a_flow_older_than_the_port_finds_the_container(lab: Lab) -> None:
    """A UDP client that has been sending since before the port was published is served once it is."""
    dns = lab.connected()
    lab.serve(dns, 53, kind=socket.SOCK_DGRAM)
    with lab.lan.socket(kind=socket.SOCK_DGRAM) as client:
        client.bind((LAN_IP, 40000))
        with lab.host.socket(kind=socket.SOCK_DGRAM) as sink:
            sink.bind(("0.0.0.0", 5353))
            client.sendto(b"early", (HOST_IP, 5353))
            assert sink.recv(100) == b"early"
        with publish(lab, dns, "5353:53/udp"):
            client.sendto(b"ping", (HOST_IP, 5353))
            assert client.recv(100) == f"{LAN_IP}\nping".encode()


def test_recover_takes_back_ports(lab: Lab) -> None:
    """recover() removes what dead containers published, and elements that are nobody's; live ones keep theirs."""
    dead, alive = lab.connected(), lab.connected()
    publish(lab, dead, "5000:80", "127.0.0.1:5001:80").close()
    publish(lab, alive, "6000:80").close()
    table = firewall.table_name(lab.paths)
    nftables.run(f"add element ip {table} ports {{ udp . 9999 : 192.0.2.1 . 1 }}")
    assert recover.recover(lab.paths, {alive.id}).ports == (dead.id,)
    ports = nftables.run(f"list map ip {table} ports")
    assert "6000" in ports
    assert "5000" not in ports
    assert "9999" not in ports
    assert "5001" not in nftables.run(f"list map ip {table} bound")
    assert [entry.container_id for entry in published.everyone(lab.paths)] == [alive.id]


def test_publishing_is_all_or_nothing(lab: Lab) -> None:
    """When one of a container's ports is taken, none of the others is published."""
    web, other = lab.connected(), lab.connected()
    publish(lab, web, "5000:80").close()
    mappings = [PortMapping("tcp", "0.0.0.0", port, 80) for port in (4999, 5000, 5001)]
    with pytest.raises(Conflict):
        firewall.publish(lab.paths, other.id, mappings, other.ip)
    ports = nftables.run(f"list map ip {firewall.table_name(lab.paths)} ports")
    assert "4999" not in ports
    assert "5001" not in ports


def test_unpublish_is_content_with_what_is_gone(lab: Lab) -> None:
    """Unpublishing twice, or after somebody flushed the map, is fine and leaves nothing."""
    web = lab.connected()
    publish(lab, web, "5000:80", "5001:81").close()
    table = firewall.table_name(lab.paths)
    nftables.run(f"delete element ip {table} ports {{ tcp . 5000 }}")
    firewall.unpublish(lab.paths, web.id)
    firewall.unpublish(lab.paths, web.id)
    assert "500" not in nftables.run(f"list map ip {table} ports")
    assert published.everyone(lab.paths) == []


class Watched:
    """The monitor's loop, run by hand for a moment, with a watch in it that repairs."""

    def __init__(self, lab: Lab) -> None:
        self.loop = Loop(self._fail)
        self.broken = 0
        self.paths = lab.paths
        self.watch = watch.Watch(lab.paths, self.loop, self._repair)

    def _fail(self, error: BaseException) -> None:
        raise error

    def _repair(self) -> None:
        self.broken += 1
        watch.repair(self.paths)

    def run(self, seconds: float) -> int:
        """How often something had to be repaired while the loop ran."""
        before = self.broken
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()
        return self.broken - before


@pytest.mark.parametrize(
    "damage",
    [
        ("nft", "flush", "ruleset"),
        ("nft", "flush chain ip {table} forward"),
        ("iptables", "-P", "FORWARD", "DROP"),
        (
            "nft",
            "add table inet fence; add chain inet fence fence {{ type filter hook forward priority 1; policy drop; }}",
        ),
    ],
    ids=lambda damage: " ".join(damage[:2]),
)
def test_running_containers_survive_what_others_do_to_the_firewall(lab: Lab, damage: tuple[str, ...]) -> None:
    """The monitor notices a flush, or a chain of somebody else's that drops, and repairs: no start is needed."""
    if not machine.has_tool(damage[0]):
        pytest.skip(f"requires tools: {damage[0]}")
    web = lab.connected()
    lab.serve(web, 80)
    lab.serve(lab.lan, 8080)
    with publish(lab, web, "5000:80"):
        watched = Watched(lab)
        table = firewall.table_name(lab.paths)
        assert watched.run(0.5) == 0
        shell(*(word.format(table=table) for word in damage))
        assert watched.run(1.0) == 1
        assert ask(web, LAN_IP, 8080) == HOST_IP
        assert ask(lab.lan, HOST_IP, 5000) == LAN_IP
        # neither the repair itself nor containers that come and go are news
        firewall.unpublish(lab.paths, web.id)
        lab.connected()
        assert watched.run(0.6) == 0
        watched.watch.close()


def test_a_deleted_bridge_comes_back_with_its_containers(lab: Lab) -> None:
    """repair() makes the bridge again and plugs the running containers into it."""
    web, sibling = lab.connected(), lab.connected()
    lab.serve(web, 80)
    network = networks.load(lab.paths, "bridge")
    shell("ip", "link", "delete", network.bridge)
    assert not watch.is_intact(lab.paths)
    watch.repair(lab.paths)
    assert watch.is_intact(lab.paths)
    with publish(lab, web, "5000:80"):
        assert ask(lab.lan, HOST_IP, 5000) == LAN_IP
        assert ask(sibling, web.ip, 80)
        assert ask(web, HOST_IP, 5000)


def test_one_of_eight_gets_the_port(lab: Lab) -> None:
    """Eight processes that publish one port at the same moment, without holding sockets: the firewall lets one win."""
    containers = [lab.connected() for _ in range(8)]
    gate_read, gate_write = os.pipe()
    children = []
    for container in containers:
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                os.close(gate_write)
                os.read(gate_read, 1)  # ends for all at once
                mapping = PortMapping("tcp", "0.0.0.0", 5000, 80)
                firewall.publish(lab.paths, container.id, [mapping], container.ip)
                code = 0
            except Conflict:
                code = 1
            finally:
                os._exit(code)
        children.append(pid)
    os.close(gate_read)
    os.close(gate_write)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert sorted(codes) == [0] + [1] * 7
    winner = containers[codes.index(0)]
    assert [entry.container_id for entry in published.everyone(lab.paths)] == [winner.id]
    assert winner.ip in nftables.run(f"list map ip {firewall.table_name(lab.paths)} ports")
