# SPDX-License-Identifier: Apache-2.0
"""The nftables table `pyrun`: masquerade, published ports, and what may not be forwarded.

ensure(paths, network)                 the rules, checked by every start (0.2 ms), repaired when somebody flushed them
publish(paths, id, mappings, ip)       a container's ports: one transaction, one map element each
unpublish(paths, id)
recover(paths, live_ids)               what containers that are gone have left

Published ports are elements of maps, so that looking one up costs the same however many there are. IPv6 needs no rules:
containers have IPv4 addresses only, and relays (netns/relay.py) answer for them on [::].
"""

from __future__ import annotations

import json

from pyrun.netns import foreign, networks, nfnetlink, published
from pyrun.netns.published import Published
from pyrun.runtime.errors import Conflict, PyrunError, Unsupported
from pyrun.runtime.events import step
from pyrun.runtime.kernel import nftables
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import TypeVar

    from pyrun.netns.networks import Network
    from pyrun.netns.ports import PortMapping
    from pyrun.runtime.paths import Paths

    T = TypeVar("T")

EEXIST, ENOENT = 17, 2

# Raised with every change of RULES: a table of another version is rewritten.
VERSION = "pyrun rules 1"

SETS = """
table ip {table} {{
 map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service
 }}
 map bound {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
 }}
 set bridges {{ type ifname
 }}
 set inside {{ type ifname . ifname
 }}
}}
"""

# nftables 1.0.6 takes no `priority dstnat` on the output hook: -100 is its number.
RULES = """
table ip {table} {{
 chain raw_prerouting {{
  type filter hook prerouting priority raw
  # CVE-2020-8558: route_localnet must not let a neighbour on the network reach what listens on 127.0.0.1
  iifname != "lo" ip daddr 127.0.0.0/8 drop comment "{version}"
 }}
 chain prerouting {{
  type nat hook prerouting priority dstnat
  fib daddr type local jump published
 }}
 chain output {{
  type nat hook output priority -100
  fib daddr type local jump published
 }}
 chain published {{
  dnat ip to ip daddr . meta l4proto . th dport map @bound
  dnat ip to meta l4proto . th dport map @ports
 }}
 chain postrouting {{
  type nat hook postrouting priority srcnat
  # from the host's localhost to a published port: the answer must find its way back
  oifname @bridges ip saddr 127.0.0.0/8 masquerade
{networks}
 }}
 chain leaving {{
  oifname != @bridges masquerade
  # a container to a published port, its own included: without this the answer would take the short way, unseen
  ct status dnat masquerade
 }}
 chain forward {{
  type filter hook forward priority filter
  oifname != @bridges accept
  ct state established,related accept
  ct status dnat accept
  iifname . oifname @inside accept
  # a port that is not published is not reachable from outside, even for who has a route to the subnet
  drop
 }}
}}
"""

# how many rules that makes, not counting one for each network: one a line, but for comments and the hooks' lines
RULE_COUNT = sum(line.startswith("  ") and not line.startswith(("  #", "  type")) for line in RULES.splitlines())


def table_name(paths: Paths) -> str:
    """pyrun, or pyrun_<instance>."""
    return f"pyrun_{paths.instance}" if paths.instance else "pyrun"


def ensure(paths: Paths, network: Network) -> tuple[str, ...]:
    """Makes sure that the rules for the network are there, and that no other tool's forward chain stops it.

    Returns one note for each forward chain of somebody else's that was opened just now. Raises PyrunError; Unsupported
    names the missing package.
    """
    if not _is_ready(paths, network):
        with networks.networks_lock(paths):
            if not _is_ready(paths, network):
                _write_rules(paths, network)
    return run(foreign.ensure_open, paths, network.bridge, what="open other tools' forward chains")


def is_intact(paths: Paths, network: Network) -> bool:
    """Whether ensure() would find nothing to do. Reads only, takes no lock, 0.2 ms. Raises PyrunError."""
    return _is_ready(paths, network) and run(foreign.all_open, paths, network.bridge, what="read forward chains")


def publish(paths: Paths, container_id: str, mappings: Sequence[PortMapping], ip: str) -> None:
    """Leads the host addresses and ports of `mappings` to the container's address, all or none of them.

    ensure() comes first. Raises Conflict when a port is taken by another container, PyrunError, OSError.
    """
    if not mappings:
        return
    entry = Published(container_id, ip, tuple(mappings))
    with Undo() as undo:
        published.write(paths, entry)
        undo.on_failure(published.remove, paths, container_id)
        if run(_create, paths, entry, what="publish ports") == EEXIST:
            _raise_if_taken(paths, entry)
            run(_remove_orphans, paths, what="publish ports")  # nobody's: left by what died between the two steps
            if run(_create, paths, entry, what="publish ports") == EEXIST:
                raise Conflict("publish ports", "another start has just taken one of them")
    _forget_udp(mappings)


def unpublish(paths: Paths, container_id: str) -> None:
    """Takes the container's ports back; fine when it has none. Raises PyrunError, OSError."""
    entry = published.read(paths, container_id)
    if entry is None:
        return
    some_gone = run(_delete, paths, entry, what="unpublish ports") == ENOENT
    published.remove(paths, container_id)
    if some_gone:
        run(_remove_orphans, paths, what="unpublish ports")  # whatever is left of them belongs to nobody now
    _forget_udp(entry.mappings)


def recover(paths: Paths, live_ids: Collection[str]) -> list[str]:
    """Takes back the ports of containers that are not in `live_ids`, and elements that are nobody's; the ids.

    Raises PyrunError, OSError.
    """
    gone = [entry.container_id for entry in published.everyone(paths) if entry.container_id not in live_ids]
    if not _has_table(paths):  # nothing is published; nor is libnftables needed to say so
        for container_id in gone:
            published.remove(paths, container_id)
        return gone
    for container_id in gone:
        unpublish(paths, container_id)
    run(_remove_orphans, paths, what="remove stale ports")
    return gone


def remove(paths: Paths) -> None:
    """Deletes the table, and what was added to other tools' chains. Raises PyrunError."""
    run(foreign.close, paths, what="close other tools' forward chains")
    run(_change, f"delete table ip {table_name(paths)}", ENOENT, what="remove the firewall's rules")


def run(action: Callable[..., T], *args: object, what: str) -> T:
    """action(*args) with what libnftables and the kernel can answer turned into PyrunErrors that say what to do."""
    try:
        return action(*args)
    except ImportError as error:
        hint = "install libnftables: apt install libnftables1"
        raise Unsupported(what, f"libnftables cannot be loaded: {error}", hint=hint) from None
    except OSError as error:
        raise _failure(what, error) from None


def _has_table(paths: Paths) -> bool:
    try:
        return bool(nfnetlink.rules("ip", table_name(paths)))
    except OSError:  # a kernel without nf_tables
        return False


def _is_ready(paths: Paths, network: Network) -> bool:
    """Whether the rules are there as this version writes them, with the network among them."""
    found = run(nfnetlink.rules, "ip", table_name(paths), what="read the firewall")
    mark, version = _mark(network).encode() + b"\0", VERSION.encode() + b"\0"
    return (
        len(found) == RULE_COUNT + sum(b"network " in rule for rule in found)
        and any(mark in rule for rule in found)
        and any(version in rule for rule in found)
    )


def _mark(network: Network) -> str:
    return f"network {network.bridge} {network.subnet}"


def _write_rules(paths: Paths, network: Network) -> None:
    """Writes the whole table, for all networks, and all published ports; one transaction."""
    table = table_name(paths)
    known = {name: networks.load(paths, name) for name in networks.names(paths)}
    everything = {**known, network.name: network}.values()
    rules = "\n".join(f'  ip saddr {n.subnet} jump leaving comment "{_mark(n)}"' for n in everything)
    commands = SETS.format(table=table)
    # flush: all rules of the table; the elements of sets and maps stay
    commands += f"flush table ip {table}\nflush set ip {table} bridges\nflush set ip {table} inside\n"
    for n in everything:
        commands += f'add element ip {table} bridges {{ "{n.bridge}" }}\n'
        commands += f'add element ip {table} inside {{ "{n.bridge}" . "{n.bridge}" }}\n'
    commands += RULES.format(table=table, version=VERSION, networks=rules)
    with step("firewall", f"nft -f - (table ip {table}: {len(everything)} networks)"):
        run(nftables.run, commands, what="write the firewall's rules")
    _refill(paths)


def _refill(paths: Paths) -> None:
    """Puts back what is published, when somebody has flushed the maps too."""
    entries = published.everyone(paths)
    present = _present(paths) if entries else {}
    for name, wanted in published.elements(entries).items():
        missing = [f"{key} : {value}" for key, value in wanted.items() if key not in present.get(name, {})]
        if missing:
            commands = f"add element ip {table_name(paths)} {name} {{ {', '.join(missing)} }}"
            with step("firewall", commands):
                run(nftables.run, commands, what="restore published ports")


def _create(paths: Paths, entry: Published) -> int:
    """Adds the container's elements, all or none; 0, or EEXIST when there is one of another container."""
    return _change(_commands("create", paths, entry), EEXIST)


def _delete(paths: Paths, entry: Published) -> int:
    """Deletes the container's elements, all or none; 0, or ENOENT when one of them is gone."""
    return _change(_commands("delete", paths, entry), ENOENT)


def _change(commands: str, expected: int) -> int:
    if not commands:
        return 0
    try:
        with step("firewall", commands.replace("\n", "; ")):
            nftables.run(commands)
    except nftables.NftError as error:
        if error.errno != expected:
            raise
        return expected
    return 0


def _commands(verb: str, paths: Paths, entry: Published) -> str:
    """`create element …` (fails when it is there) or `delete element …`, for all of the container's elements."""
    lines = []
    for name, wanted in published.elements([entry]).items():
        if verb == "create":
            parts = [f'{key} comment "{entry.container_id[:12]}" : {value}' for key, value in wanted.items()]
        else:
            parts = list(wanted)
        if parts:
            lines.append(f"{verb} element ip {table_name(paths)} {name} {{ {', '.join(parts)} }}")
    return "\n".join(lines)


def _raise_if_taken(paths: Paths, entry: Published) -> None:
    for m in entry.mappings:
        other = published.holder(paths, m.proto, m.host_ip, m.host_port, but=entry.container_id)
        if other:
            raise Conflict(f"publish port {m.host_port}/{m.proto}", f"in use by container {other[:12]}")


def _present(paths: Paths) -> dict[str, dict[str, str]]:
    """map name -> {key: value} as the kernel has them, in the words of published.elements()."""
    found: dict[str, dict[str, str]] = {}
    for name in ("ports", "bound"):
        command = f"list map ip {table_name(paths)} {name}"
        try:
            answer = json.loads(nftables.run(command, json=True))
        except nftables.NftError as error:
            if error.errno == ENOENT:
                continue
            raise _failure("read published ports", error) from None
        elements: Iterable[tuple[object, object]] = ()
        for item in answer["nftables"]:
            elements = item.get("map", {}).get("elem", elements)
        found[name] = {_words(key): _words(value) for key, value in elements}
    return found


_PROTOCOL_NAMES = {number: name for name, number in nfnetlink.PROTOCOL_NUMBERS.items()}


def _words(value: object) -> str:
    """The nft text of a concatenation in nft's JSON; {"elem": {"val": …}} is what has a comment."""
    if isinstance(value, dict) and "elem" in value:
        value = value["elem"]["val"]
    parts = value["concat"] if isinstance(value, dict) else [value]
    # with a protocol in it (three parts, or two that begin with a number), its number becomes its name
    protocol = len(parts) - 2
    return " . ".join(
        str(_PROTOCOL_NAMES.get(part, part)) if at == protocol and not isinstance(part, str) else str(part)
        for at, part in enumerate(parts)
    )


def _remove_orphans(paths: Paths) -> None:
    """Deletes the elements that no container's file accounts for."""
    present_now = _present(paths)
    # Read after the maps: whoever publishes writes the file first, so what was in the maps is in a file by now.
    known = published.elements(published.everyone(paths))
    for name, present in present_now.items():
        orphans = [key for key, value in present.items() if known[name].get(key) != value]
        if orphans:
            commands = f"delete element ip {table_name(paths)} {name} {{ {', '.join(orphans)} }}"
            with step("firewall", commands):
                run(nftables.run, commands, what="remove stale ports")


def _forget_udp(mappings: Iterable[PortMapping]) -> None:
    ports = {m.host_port for m in mappings if m.proto == "udp"}
    if ports:
        with step("firewall", f"conntrack -D -p udp --orig-port-dst {', '.join(map(str, sorted(ports)))}"):
            try:
                nfnetlink.forget_flows("udp", ports)
            except OSError:
                pass  # no conntrack, no stale flows


HINTS = {
    1: "the firewall needs root (CAP_NET_ADMIN)",
    93: "the kernel needs nf_tables: modprobe nf_tables",
    95: "the kernel needs nf_tables with NAT: modprobe nf_tables nft_nat nft_masq nft_chain_nat nft_fib_ipv4",
}


def _failure(what: str, error: OSError) -> PyrunError:
    hint = HINTS.get(error.errno or 0, "")
    kind = Unsupported if error.errno in (93, 95) else PyrunError
    return kind(what, str(error).lower() if isinstance(error, nftables.NftError) else str(error.strerror), hint=hint)
