# SPDX-License-Identifier: Apache-2.0
"""What -p, --expose and EXPOSE say, parsed; and how published ports are shown.

parse_publish("127.0.0.1:8000-8001:80-81/tcp") -> (PortSpec, PortSpec)   what was asked for
hostports.reserve(specs)                       -> PortMapping, …         what the container got
format_ps(mappings)                            -> "127.0.0.1:8000->80/tcp, …"
"""

from __future__ import annotations

import socket

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROTOCOLS = ("tcp", "udp", "sctp")
ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"

_FORMS = "write [ip:][host_port:]container_port[/tcp|udp|sctp]; a port may be a range, such as 8000-8010"


class PortSpec(Record):
    """One container port and the host port or ports it may be published on; from -p, or from -P."""

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""  # "" is every IPv4 and IPv6 address of the host
    host_first: int = 0  # 0: any free port; else the first free one of host_first … host_last
    host_last: int = 0


class PortMapping(Record):
    """A host address and port that leads to a port of the container."""

    proto: str
    host_ip: str  # "0.0.0.0", "::" or one address
    host_port: int
    container_port: int


def parse_publish(text: str) -> tuple[PortSpec, ...]:
    """The ports that one -p asks for, a range giving one PortSpec per container port.

    All of docker's forms: "5000", "5000:5000", "127.0.0.1:5000:5000", "127.0.0.1::5000", "[::1]:5000:5000",
    "8000-8010:8000-8010", "8000-8010:80" (the first free one), "/udp", and "published=8080,target=80,protocol=tcp".
    Raises UsageError.
    """
    what = f"invalid port mapping '{text}'"
    short, slash, proto = (_short_form(text, what) if "=" in text else text).partition("/")
    host_ip, host, container = _split(short, what)
    proto = _protocol(proto if slash else "tcp", what)
    inside = _port_range(container, what, "container port")
    if inside.start == 0:
        raise UsageError(what, "container port 0 does not exist", hint=_FORMS)
    if not host:
        return tuple(PortSpec(port, proto, host_ip) for port in inside)
    outside = _port_range(host, what, "host port")
    if len(inside) == 1:
        return (PortSpec(inside.start, proto, host_ip, outside.start, outside.stop - 1),)
    if len(inside) != len(outside):
        why = f"{len(outside)} host ports for {len(inside)} container ports"
        raise UsageError(what, why, hint="make the two ranges equally long")
    return tuple(PortSpec(port, proto, host_ip, at, at) for port, at in zip(inside, outside, strict=True))


def parse_expose(text: str) -> tuple[tuple[str, int], ...]:
    """(protocol, port) for each port of --expose or a Dockerfile's EXPOSE: "80", "80/udp", "8000-8010/tcp".

    Raises UsageError.
    """
    what = f"invalid exposed port '{text}'"
    ports, slash, proto = text.partition("/")
    proto = _protocol(proto if slash else "tcp", what)
    inside = _port_range(ports, what, "port")
    if inside.start == 0:
        raise UsageError(what, "port 0 does not exist")
    return tuple((proto, port) for port in inside)


def publish_all(exposed: Iterable[str], published: Sequence[PortSpec]) -> tuple[PortSpec, ...]:
    """-P: a free host port for each exposed port ("80/tcp") that is not among `published`; only these new ones."""
    taken = {(spec.proto, spec.container_port) for spec in published}
    wanted = sorted({port for text in exposed for port in parse_expose(text)} - taken)
    return tuple(PortSpec(port, proto) for proto, port in wanted)


def _short_form(text: str, what: str) -> str:
    """The colon form of "published=8080,target=80,protocol=tcp"."""
    fields = dict.fromkeys(("published", "target", "protocol", "mode"), "")
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in fields:
            raise UsageError(what, f"unknown field '{key}'", hint="the fields are published, target, protocol and mode")
        fields[key] = value
    if not fields["target"]:
        raise UsageError(what, "no target port", hint="add target=, the port inside the container")
    return f"{fields['published']}:{fields['target']}/{fields['protocol'] or 'tcp'}"


def _split(text: str, what: str) -> tuple[str, str, str]:
    """(host_ip, host port or range, container port or range) of "[[ip]:[host]:]container"; missing ones are ""."""
    rest, _, container = text.rpartition(":")
    address, colon, host = rest.rpartition(":")
    if not container:
        raise UsageError(what, "no container port", hint=_FORMS)
    if not colon:
        return "", host, container
    if address.startswith("[") and address.endswith("]"):
        family, address = socket.AF_INET6, address[1:-1]
    else:
        # docker also takes an IPv6 address without its brackets
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, address)), host, container
    except (OSError, ValueError):
        why = f"'{address}' is not an IP address"
        raise UsageError(what, why, hint=f"{_FORMS}; an IPv6 address stands in brackets") from None


def _protocol(text: str, what: str) -> str:
    proto = text.lower()
    if proto not in PROTOCOLS:
        raise UsageError(what, f"unknown protocol '{text}'", hint="use tcp, udp or sctp")
    return proto


def _port_range(text: str, what: str, noun: str) -> range:
    """The ports of "80" or "80-90"."""
    first_text, dash, last_text = text.partition("-")
    first = _port(first_text, what, noun)
    last = _port(last_text, what, noun) if dash else first
    if last < first:
        raise UsageError(what, f"the {noun} range {text} ends before it starts")
    return range(first, last + 1)


def _port(text: str, what: str, noun: str) -> int:
    # isdigit() alone would take "١"; int() alone "1_0", " 1" and "+1"
    if not (text.isascii() and text.isdigit()):
        raise UsageError(what, f"'{text}' is not a {noun}", hint=_FORMS)
    if len(text) > 5 or int(text) > 65535:
        raise UsageError(what, f"{noun} {text} is above 65535")
    return int(text)


def host_port(address: str, port: int) -> str:
    """As in a URL: 127.0.0.1:80, [::1]:80"""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def format_ps(mappings: Iterable[PortMapping], exposed: Iterable[tuple[str, int]] = ()) -> str:
    """The PORTS column of `ps`, as docker prints it: neighbouring ports that keep their number are one range.

    `exposed` are ports that are not published (protocol, port); those that are in `mappings` too are left out.
    """
    mappings = sorted(set(mappings), key=lambda m: (m.container_port, m.host_ip, m.host_port, m.proto))
    published = {(m.proto, m.container_port) for m in mappings}
    rows = [(m.container_port, m.host_ip, m.host_port, m.proto) for m in mappings]
    rows += [(port, "", 0, proto) for proto, port in set(exposed) - published]
    runs: dict[tuple[str, str], list[list[int]]] = {}
    moved = []
    for port, address, outside, proto in sorted(rows):
        if address and outside != port:
            moved.append(f"{host_port(address, outside)}->{port}/{proto}")
            continue
        ranges = runs.setdefault((address, proto), [])
        if ranges and ranges[-1][1] + 1 == port:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    shown = [_run(address, proto, run) for (address, proto), ranges in runs.items() for run in ranges]
    return ", ".join(shown + moved)


def _run(address: str, proto: str, run: list[int]) -> str:
    first, last = run
    ports = str(first) if first == last else f"{first}-{last}"
    if not address:
        return f"{ports}/{proto}"
    return f"[{address}]:{ports}->{ports}/{proto}" if ":" in address else f"{address}:{ports}->{ports}/{proto}"


def format_port(mappings: Iterable[PortMapping], wanted: str = "") -> list[str]:
    """The lines of `pyrun port CONTAINER [PORT[/PROTO]]`: "80/tcp -> 0.0.0.0:8080", or only the right side.

    An empty list when nothing is published there. Raises UsageError for a `wanted` that is not one port.
    """
    rows = sorted(set(mappings), key=lambda m: (m.container_port, m.proto, m.host_ip, m.host_port))
    if not wanted:
        return [f"{m.container_port}/{m.proto} -> {host_port(m.host_ip, m.host_port)}" for m in rows]
    ports = parse_expose(wanted)
    if len(ports) != 1:
        raise UsageError(f"invalid port '{wanted}'", "a range; name one port")
    return [host_port(m.host_ip, m.host_port) for m in rows if (m.proto, m.container_port) == ports[0]]
