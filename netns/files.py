# SPDX-License-Identifier: Apache-2.0
"""The texts of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure, but for host_resolv_conf()."""

from __future__ import annotations

import socket

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOST_GATEWAY = "host-gateway"

_LOCALHOST = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""

# What docker and podman fall back to when the host names no server that a container could reach.
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")

RESOLV_CONF = "/etc/resolv.conf"
# systemd-resolved(8): its stub listens on 127.0.0.53, this file names the servers behind it
RESOLVED_CONF = "/run/systemd/resolve/resolv.conf"


class Dns(Record):
    """--dns, --dns-search, --dns-option; an empty tuple takes the host's."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()  # (".",) is no search domain at all
    options: tuple[str, ...] = ()


def hosts(addresses: Sequence[tuple[str, Sequence[str]]] = (), added: Sequence[tuple[str, str]] = ()) -> str:
    """/etc/hosts: localhost, then --add-host's (name, address), then the container's own (address, names)."""
    lines = [f"{address}\t{name}\n" for name, address in added]
    lines += [f"{address}\t{' '.join(names)}\n" for address, names in addresses if names]
    return _LOCALHOST + "".join(lines)


def hostname(name: str) -> str:
    """/etc/hostname"""
    return f"{name}\n"


def parse_add_host(text: str) -> tuple[str, str]:
    """(name, address) of --add-host "name:address" or "name=address"; "host-gateway" stays a word.

    An IPv6 address may stand in brackets. Raises UsageError.
    """
    what = f"invalid --add-host '{text}'"
    # "=" first, as docker does: in "name=::1" the colons belong to the address
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name or not _is_name(name):
        raise UsageError(what, "not NAME:ADDRESS", hint="for example --add-host db:10.0.0.5 or db:host-gateway")
    if address == HOST_GATEWAY:
        return name, address
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return name, _address(address, what)


def resolve_host_gateway(added: Iterable[tuple[str, str]], gateway: str) -> list[tuple[str, str]]:
    """(name, address) with "host-gateway" replaced by `gateway`, the host's address on the container's network.

    Raises UsageError when it is asked for and there is no gateway (network none).
    """
    resolved = []
    for name, address in added:
        if address == HOST_GATEWAY and not gateway:
            raise UsageError(f"--add-host {name}:{HOST_GATEWAY}", "the container has no network with a gateway")
        resolved.append((name, gateway if address == HOST_GATEWAY else address))
    return resolved


def parse_dns(text: str) -> str:
    """The address of --dns. Raises UsageError."""
    return _address(text, f"invalid --dns '{text}'")


def parse_dns_search(text: str) -> str:
    """The domain of --dns-search; "." means none at all. Raises UsageError."""
    if text != "." and not _is_name(text):
        raise UsageError(f"invalid --dns-search '{text}'", "not a domain name")
    return text


def parse_dns_option(text: str) -> str:
    """One option of resolv.conf(5), such as "ndots:2". Raises UsageError."""
    if not text or any(ch.isspace() or not ch.isprintable() for ch in text):
        raise UsageError(f"invalid --dns-option '{text}'", "must be one word, such as ndots:2")
    return text


def nameservers(resolv_conf: str) -> list[str]:
    """The addresses on the nameserver lines of a resolv.conf(5), in order, without what is not an address."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _family(words[1].partition("%")[0]):
            found.append(words[1])
    return found


def resolv_conf(host: str, dns: Dns, *, own_network: bool = True, ipv6: bool = False) -> str:
    """/etc/resolv.conf of a container, from the host's text and what was asked for.

    In a network namespace of its own (`own_network`) the host's loopback servers cannot be reached, nor IPv6 ones
    without IPv6: they are left out, and when none remains FALLBACK_NAMESERVERS are named. What --dns says is taken as
    it is. A host's text that needs no change is kept whole, comments included.
    """
    servers = list(dns.servers)
    if not servers:
        found = nameservers(host)
        servers = [s for s in found if _reachable(s, ipv6=ipv6)] if own_network else found
        if servers == found and found and not dns.search and not dns.options:
            return host if host.endswith("\n") else f"{host}\n"
        if not servers and own_network:
            servers = list(FALLBACK_NAMESERVERS)
    search = [s for s in dns.search or _words(host, ("search", "domain")) if s != "."]
    options = dns.options or _words(host, ("options",))
    lines = [f"nameserver {server}\n" for server in servers]
    lines += [f"search {' '.join(search)}\n"] if search else []
    lines += [f"options {' '.join(options)}\n"] if options else []
    return "".join(lines)


def host_resolv_conf(*, own_network: bool = True) -> str:
    """The host's resolv.conf, or systemd-resolved's where /etc/resolv.conf names only its stub; "" when there is none.

    The stub answers on the host's loopback only, so with `own_network` the file behind it is what counts.
    """
    text = _read(RESOLV_CONF)
    if own_network and nameservers(text) == ["127.0.0.53"]:
        return _read(RESOLVED_CONF) or text
    return text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(64 * 1024)
    except OSError:
        return ""


def _words(text: str, keywords: tuple[str, ...]) -> tuple[str, ...]:
    """The words after the last line that begins with one of `keywords`: that line counts (resolv.conf(5))."""
    found: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in keywords:
            found = tuple(words[1:])
    return found


def _reachable(address: str, *, ipv6: bool) -> bool:
    if ":" in address:
        return ipv6 and address != "::1" and "%" not in address  # a zone names a link of the host
    return not address.startswith("127.")


def _family(address: str) -> int:
    """AF_INET or AF_INET6, 0 for what is no IP address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
            return family
        except (OSError, ValueError):
            pass
    return 0


def _address(text: str, what: str) -> str:
    if not _family(text):
        raise UsageError(what, f"'{text}' is not an IP address")
    return text


def _is_name(text: str) -> bool:
    """Whether the text could be a host or domain name: no white space, nothing that could start another line."""
    return 0 < len(text) <= 253 and all(ch.isascii() and (ch.isalnum() or ch in "-_.") for ch in text)
