# SPDX-License-Identifier: Apache-2.0
"""-p, --expose and -P as text; PORTS of `ps` and the lines of `port`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.netns.ports import (
    PortMapping,
    PortSpec,
    format_port,
    format_ps,
    parse_expose,
    parse_publish,
    publish_all,
)
from pyrun.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("5000", PortSpec(5000)),
        ("5000:5000", PortSpec(5000, "tcp", "", 5000, 5000)),
        ("8080:80/udp", PortSpec(80, "udp", "", 8080, 8080)),
        ("80/TCP", PortSpec(80, "tcp")),
        ("9899/sctp", PortSpec(9899, "sctp")),
        ("127.0.0.1:5000:5000", PortSpec(5000, "tcp", "127.0.0.1", 5000, 5000)),
        ("127.0.0.1::5000", PortSpec(5000, "tcp", "127.0.0.1")),
        ("0.0.0.0:80:80", PortSpec(80, "tcp", "0.0.0.0", 80, 80)),
        ("[::1]:5000:5000", PortSpec(5000, "tcp", "::1", 5000, 5000)),
        ("[::1]::5000/udp", PortSpec(5000, "udp", "::1")),
        ("::1:5000:5000", PortSpec(5000, "tcp", "::1", 5000, 5000)),
        ("[0:0::1]:5000:5000", PortSpec(5000, "tcp", "::1", 5000, 5000)),
        ("8000-8010:80", PortSpec(80, "tcp", "", 8000, 8010)),
        ("0:80", PortSpec(80)),
        (":80", PortSpec(80)),
        ("published=8080,target=80", PortSpec(80, "tcp", "", 8080, 8080)),
        ("target=80,protocol=udp", PortSpec(80, "udp")),
    ],
)
def test_each_form_of_publish(text: str, spec: PortSpec) -> None:
    """Each of docker's forms of -p is understood."""
    assert parse_publish(text) == (spec,)


def test_equal_ranges_map_one_to_one() -> None:
    """8000-8010:9000-9010 publishes each container port on the host port beside it."""
    specs = parse_publish("8000-8010:9000-9010/udp")
    assert [(s.host_first, s.host_last, s.container_port, s.proto) for s in specs] == [
        (8000 + i, 8000 + i, 9000 + i, "udp") for i in range(11)
    ]


def test_a_container_range_alone_takes_free_ports() -> None:
    """-p 8000-8002 publishes three ports on host ports that are free."""
    assert parse_publish("8000-8002") == (PortSpec(8000), PortSpec(8001), PortSpec(8002))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no container port"),
        ("80:", "no container port"),
        ("x", "'x' is not a container port"),
        ("1_0:80", "'1_0' is not a host port"),
        (" 1:80", "' 1' is not a host port"),
        ("+1:80", "'+1' is not a host port"),
        ("-1:80", "'' is not a host port"),
        ("١:80", "'١' is not a host port"),
        ("²:80", "'²' is not a host port"),
        ("80\n", "is not a container port"),
        ("65536", "container port 65536 is above 65535"),
        ("99999999999999999999:80", "is above 65535"),
        ("80:0", "container port 0 does not exist"),
        ("80:80/icmp", "unknown protocol 'icmp'"),
        ("80:80/", "unknown protocol ''"),
        ("80:80/tcp/udp", "unknown protocol 'tcp/udp'"),
        ("localhost:80:80", "'localhost' is not an IP address"),
        ("[::g]:80:80", "'::g' is not an IP address"),
        ("[127.0.0.1]:80:80", "'127.0.0.1' is not an IP address"),
        ("127.0.0.1.1:80:80", "is not an IP address"),
        ("127.1:80:80", "'127.1' is not an IP address"),
        ("[fe80::1%eth0]:80:80", "is not an IP address"),
        ("a\0b:80:80", "is not an IP address"),
        ("8000-8001:80-83", "2 host ports for 4 container ports"),
        ("8001-8000:80", "ends before it starts"),
        ("80:90-80", "ends before it starts"),
        ("published=80", "no target port"),
        ("target=80,port=80", "unknown field 'port'"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str) -> None:
    """A mapping that cannot be understood is refused with the part that is wrong."""
    with pytest.raises(UsageError) as error:
        parse_publish(text)
    assert why in error.value.why
    assert error.value.what == f"invalid port mapping '{text}'"


@given(st.text(max_size=24))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes the parser fail in any other way than UsageError, and what it gives is in range."""
    try:
        specs = parse_publish(text)
    except UsageError:
        return
    assert all(0 < s.container_port < 65536 and 0 <= s.host_first <= s.host_last < 65536 for s in specs)


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp", "sctp"]))
def test_any_two_ports_are_understood(outside: int, inside: int, proto: str) -> None:
    """HOST:CONTAINER/PROTO is understood for all ports."""
    assert parse_publish(f"{outside}:{inside}/{proto}") == (PortSpec(inside, proto, "", outside, outside),)


def test_expose_and_publish_all() -> None:
    """-P publishes what is exposed and not already published, once each."""
    assert parse_expose("8000-8001/udp") == (("udp", 8000), ("udp", 8001))
    specs = publish_all(["80", "80/tcp", "443/tcp", "53/udp"], parse_publish("8080:80"))
    assert specs == (PortSpec(443), PortSpec(53, "udp"))
    with pytest.raises(UsageError, match="invalid exposed port '0'"):
        parse_expose("0")


def both(outside: int, inside: int, proto: str = "tcp") -> list[PortMapping]:
    return [PortMapping(proto, address, outside, inside) for address in ("0.0.0.0", "::")]


def test_ports_column() -> None:
    """`ps` shows both families, compacts ranges that keep their numbers, and shows moved ports one by one."""
    assert format_ps(both(5000, 5000)) == "0.0.0.0:5000->5000/tcp, [::]:5000->5000/tcp"
    assert format_ps(both(8080, 80)) == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    many = [m for port in range(8000, 8011) for m in both(port, port)]
    assert format_ps(many) == "0.0.0.0:8000-8010->8000-8010/tcp, [::]:8000-8010->8000-8010/tcp"
    gap = [PortMapping("tcp", "0.0.0.0", port, port) for port in (1, 2, 4)]
    assert format_ps(gap) == "0.0.0.0:1-2->1-2/tcp, 0.0.0.0:4->4/tcp"
    assert format_ps([], [("tcp", 80), ("tcp", 81), ("udp", 53)]) == "53/udp, 80-81/tcp"
    assert format_ps(both(80, 80)[:1], [("tcp", 80), ("tcp", 443)]) == "0.0.0.0:80->80/tcp, 443/tcp"
    assert format_ps([]) == ""


def test_lines_of_port() -> None:
    """`port` lists container port -> host address; with a port named, only the addresses."""
    mappings = [*both(8080, 80), PortMapping("udp", "127.0.0.1", 53, 53)]
    assert format_port(mappings) == ["53/udp -> 127.0.0.1:53", "80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    assert format_port(mappings, "80") == ["0.0.0.0:8080", "[::]:8080"]
    assert format_port(mappings, "80/udp") == []
    with pytest.raises(UsageError):
        format_port(mappings, "80-81")
