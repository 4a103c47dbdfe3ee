# SPDX-License-Identifier: Apache-2.0
"""The texts of /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import pytest

from pyrun.netns import files
from pyrun.netns.files import Dns
from pyrun.runtime.errors import UsageError


def test_hosts_names_localhost_and_the_container() -> None:
    """The first lines are localhost's, the last the container's own; --add-host stands between."""
    lines = files.hosts([("10.213.0.2", ("web", "alias"))], [("db", "10.0.0.5")]).splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[1] == "::1\tlocalhost ip6-localhost ip6-loopback"
    assert lines[-2:] == ["10.0.0.5\tdb", "10.213.0.2\tweb alias"]
    assert files.hosts().splitlines() == lines[:-2]
    assert files.hostname("web") == "web\n"


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("db:10.0.0.5", ("db", "10.0.0.5")),
        ("db=10.0.0.5", ("db", "10.0.0.5")),
        ("db:::1", ("db", "::1")),
        ("db:[::1]", ("db", "::1")),
        ("db=::1", ("db", "::1")),
        ("gw:host-gateway", ("gw", "host-gateway")),
    ],
)
def test_add_host(text: str, entry: tuple[str, str]) -> None:
    """Both separators and both kinds of addresses are understood."""
    assert files.parse_add_host(text) == entry


@pytest.mark.parametrize(
    "text", ["", "db", "db:", ":1.2.3.4", "db:1.2.3", "d b:1.2.3.4", "db\n:1.2.3.4", "db:1.2.3.4\n"]
)
def test_add_host_that_is_wrong(text: str) -> None:
    """What is not NAME:ADDRESS is refused; no text can put a second line into the file."""
    with pytest.raises(UsageError, match="invalid --add-host"):
        files.parse_add_host(text)


def test_host_gateway() -> None:
    """host-gateway becomes the host's address on the network; without a network it is refused."""
    added = [("gw", "host-gateway"), ("db", "10.0.0.5")]
    assert files.resolve_host_gateway(added, "10.213.0.1") == [("gw", "10.213.0.1"), ("db", "10.0.0.5")]
    assert files.resolve_host_gateway(added[1:], "") == added[1:]
    with pytest.raises(UsageError, match="no network with a gateway"):
        files.resolve_host_gateway(added, "")


HOST = "# by hand\nnameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n"


def test_a_host_file_that_works_inside_is_copied_whole() -> None:
    """Comments and all."""
    assert files.resolv_conf(HOST, Dns()) == HOST


@pytest.mark.parametrize("local", ["127.0.0.1", "127.0.0.53", "::1", "fe80::1%eth0", "2001:db8::53"])
def test_servers_out_of_reach_are_left_out(local: str) -> None:
    """Loopback, link-local and, without IPv6, all IPv6 servers go; the rest stays."""
    text = files.resolv_conf(f"nameserver {local}\n{HOST}", Dns())
    assert text == "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n"


def test_no_server_left() -> None:
    """With nothing reachable the public servers that docker names are named."""
    assert files.resolv_conf("nameserver 127.0.0.53\n", Dns()) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert files.resolv_conf("", Dns()) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_the_hosts_own_network_keeps_its_servers() -> None:
    """With --network host the loopback servers are reachable and stay."""
    host = "nameserver 127.0.0.53\nnameserver ::1\n"
    assert files.resolv_conf(host, Dns(), own_network=False) == host
    assert files.resolv_conf("", Dns(), own_network=False) == ""


def test_ipv6_servers_stay_with_ipv6() -> None:
    """A container with IPv6 keeps the host's IPv6 servers."""
    assert files.resolv_conf("nameserver 2001:db8::53", Dns(), ipv6=True) == "nameserver 2001:db8::53\n"


def test_dns_options_replace_the_hosts() -> None:
    """--dns, --dns-search and --dns-option each replace their part; loopback is taken as it is then."""
    dns = Dns(servers=("127.0.0.1",), search=("a.test", "b.test"), options=("ndots:1",))
    assert files.resolv_conf(HOST, dns) == "nameserver 127.0.0.1\nsearch a.test b.test\noptions ndots:1\n"
    assert files.resolv_conf(HOST, Dns(search=(".",))) == "nameserver 192.0.2.53\noptions ndots:2\n"


def test_nameservers_reads_what_resolvers_read() -> None:
    """The last search line counts; words that are no addresses do not."""
    assert files.nameservers("nameserver 1.2.3.4 5.6.7.8\nnameserver x\n nameserver ::1\n#nameserver 1.1.1.1") == [
        "1.2.3.4",
        "::1",
    ]
    text = files.resolv_conf("search a\ndomain b\nnameserver 1.2.3.4", Dns(options=("rotate",)))
    assert text == "nameserver 1.2.3.4\nsearch b\noptions rotate\n"


@pytest.mark.parametrize("text", ["", "1.2.3", "localhost", "1.2.3.4\nsearch evil"])
def test_dns_that_is_wrong(text: str) -> None:
    """--dns takes one address and nothing else."""
    with pytest.raises(UsageError, match="invalid --dns"):
        files.parse_dns(text)
    with pytest.raises(UsageError, match="invalid --dns-search"):
        files.parse_dns_search(f"{text} {text}")
    with pytest.raises(UsageError, match="invalid --dns-option"):
        files.parse_dns_option(f"{text} {text}")


def test_dns_that_is_right() -> None:
    """Addresses, domains and options come back as they are."""
    assert files.parse_dns("2001:db8::1") == "2001:db8::1"
    assert files.parse_dns_search("example.org") == "example.org"
    assert files.parse_dns_option("ndots:2") == "ndots:2"
