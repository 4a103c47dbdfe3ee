# SPDX-License-Identifier: Apache-2.0
"""pyrun network ls and inspect."""

from __future__ import annotations

from pyrun.netns import networks
from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine import humanize
from pyrun.runtime.engine.templates import Map
from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context

COLUMNS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "CreatedAt": "CREATED AT",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
}
DEFAULT = ("ID", "Name", "Driver", "Scope")
FILTERS = ("name", "id", "driver", "scope", "type")
BUILT_IN = {"host": "host", "none": "null"}  # name -> driver; they have nothing to configure


def rows(ctx: Context, *, shorten: bool) -> list[dict[str, Any]]:
    """Every network; host and none are always there, bridge from the first container on."""
    found = []
    for name in networks.names(ctx.paths):
        network = networks.load(ctx.paths, name)
        found.append(_row(network.id, network.name, network.driver, network.created, shorten=shorten))
    made = {row["Name"] for row in found}
    plain = {"bridge": "bridge", **BUILT_IN}
    return found + [_row("", name, driver, "", shorten=shorten) for name, driver in plain.items() if name not in made]


def _row(network_id: str, name: str, driver: str, created: str, *, shorten: bool) -> dict[str, Any]:
    return {
        "CreatedAt": humanize.local_time(created) if created else "",
        "Driver": driver,
        "ID": (network_id[:12] if shorten else network_id) or "-",
        "IPv4": "true" if driver == "bridge" else "false",
        "IPv6": "false",
        "Internal": "false",
        "Labels": "",
        "Name": name,
        "Scope": "local",
    }


def ls(args: Args, ctx: Context) -> int:
    """One line per network."""
    filters = output.by_name(args.many("filter"), FILTERS)
    shown = [row for row in rows(ctx, shorten=not args.on("no-trunc")) if _fits(row, filters)]
    if args.on("quiet"):
        ctx.print(*(row["ID"] for row in shown))
        return 0
    output.print_rows(ctx, shown, args.text("format"), COLUMNS, DEFAULT)
    return 0


def _fits(row: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    fields = {"name": "Name", "id": "ID", "driver": "Driver", "scope": "Scope"}
    for name, values in filters.items():
        if name == "type":
            if not any(value == "builtin" for value in values):
                return False
        elif not any(value in str(row[fields[name]]) for value in values):
            return False
    return True


def shown(ctx: Context, name: str) -> dict[str, Any]:
    """One network in docker's shape. Raises NotFound."""
    driver, network_id, created, config = BUILT_IN.get(name, ""), "", "", []
    options = Map()
    if not driver:
        network = _find(ctx, name)
        name, driver, network_id, created = network.name, network.driver, network.id, network.created
        config = [{"Subnet": network.subnet, "Gateway": network.gateway}]
        options["com.docker.network.bridge.name"] = network.bridge
    return {
        "Name": name,
        "Id": network_id,
        "Created": created,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": bool(config),
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": False,
        "Attachable": False,
        "Containers": _containers(ctx, name),
        "Options": options,
        "Labels": Map(),
    }


def _find(ctx: Context, text: str) -> networks.Network:
    for name in networks.names(ctx.paths):
        network = networks.load(ctx.paths, name)
        if text == name or (len(text) >= 4 and network.id.startswith(text)):
            return network
    hint = "pyrun makes it with the first container that needs it" if text == networks.DEFAULT else "pyrun network ls"
    raise NotFound(f"no such network '{text}'", hint=hint)


def _containers(ctx: Context, network: str) -> Map:
    from pyrun.runtime.engine.containers import ContainerStore

    found, _ = ContainerStore(ctx.paths).all()
    return Map(
        {
            container.id: {
                "Name": container.name,
                "EndpointID": state.endpoint.get("host_interface", ""),
                "MacAddress": state.endpoint.get("mac", ""),
                "IPv4Address": f"{state.endpoint.get('ip', '')}/{state.endpoint.get('prefix', '')}",
                "IPv6Address": state.endpoint.get("ipv6", ""),
            }
            for container, state in found
            if state.running and state.endpoint and container.options.network == network
        }
    )


def inspect(args: Args, ctx: Context) -> int:
    """The networks that are found, then the errors."""
    found: list[dict[str, Any]] = []
    code = ctx.each(args.arguments, lambda name: found.append(shown(ctx, name)))
    output.print_objects(ctx, found, args.text("format"))
    return code


LS = Command(
    "network ls",
    "",
    "List networks",
    ls,
    (output.filter_flag("driver=bridge"), output.FORMAT, output.NO_TRUNC, output.QUIET),
    most=0,
    aliases=("network list",),
)
INSPECT = Command(
    "network inspect",
    "NETWORK [NETWORK...]",
    "Show everything about networks",
    inspect,
    (output.INSPECT_FORMAT, Flag("verbose", "v", SWITCH, hidden=True)),
    least=1,
)
