# SPDX-License-Identifier: Apache-2.0
"""Who publishes what: <run>/ports/<container id>.json, written before the kernel is told and removed after.

The kernel's maps say where a port leads, these files say whose it is; with them the maps can be filled again after
somebody's `nft flush ruleset`.
"""

from __future__ import annotations

import os

from pyrun.netns.ports import ANY_IPV4, PortMapping
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.files import private_dir, read_json, write_json
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.paths import Paths


class Published(Record):
    """The ports that one container has taken, and its address."""

    container_id: str
    ip: str
    mappings: tuple[PortMapping, ...]


def write(paths: Paths, entry: Published) -> None:
    """Notes that the container takes these ports. Raises OSError."""
    private_dir(f"{paths.run}/ports")
    rows = [[m.proto, m.host_ip, m.host_port, m.container_port] for m in entry.mappings]
    write_json(_file(paths, entry.container_id), {"ip": entry.ip, "ports": rows}, sync=False)


def read(paths: Paths, container_id: str) -> Published | None:
    """What the container has taken, None when nothing. Raises PyrunError for a damaged file."""
    path = _file(paths, container_id)
    try:
        value = read_json(path)
        return Published(container_id, value["ip"], tuple(PortMapping(*row) for row in value["ports"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise PyrunError(f"read {path}", f"damaged: {error}", hint="remove the file") from None


def remove(paths: Paths, container_id: str) -> None:
    """Forgets the container's ports; fine when there are none. Raises OSError."""
    try:
        os.unlink(_file(paths, container_id))
    except FileNotFoundError:
        pass


def everyone(paths: Paths) -> list[Published]:
    """All containers that have taken ports."""
    try:
        names = os.listdir(f"{paths.run}/ports")
    except FileNotFoundError:
        return []
    found = (read(paths, name.removesuffix(".json")) for name in sorted(names) if name.endswith(".json"))
    return [entry for entry in found if entry is not None]


def holder(paths: Paths, proto: str, host_ip: str, port: int, *, but: str = "") -> str:
    """The id of the container that holds the port on this address, or on an address that includes it; "" for none."""
    for entry in everyone(paths):
        if entry.container_id != but and any(_clash(m, proto, host_ip, port) for m in entry.mappings):
            return entry.container_id
    return ""


def _clash(mapping: PortMapping, proto: str, host_ip: str, port: int) -> bool:
    if (mapping.proto, mapping.host_port) != (proto, port) or (":" in mapping.host_ip) != (":" in host_ip):
        return False
    wildcards = (ANY_IPV4, "::")
    return mapping.host_ip == host_ip or mapping.host_ip in wildcards or host_ip in wildcards


def _file(paths: Paths, container_id: str) -> str:
    return f"{paths.run}/ports/{container_id}.json"


def elements(entries: Sequence[Published]) -> dict[str, dict[str, str]]:
    """map name -> {element's key: its value} in nft(8)'s words for all IPv4 mappings; IPv6 ones go by a relay."""
    found: dict[str, dict[str, str]] = {"ports": {}, "bound": {}}
    for entry in entries:
        for m in entry.mappings:
            if ":" in m.host_ip:
                continue
            name, key = ("ports", "") if m.host_ip == ANY_IPV4 else ("bound", f"{m.host_ip} . ")
            found[name][f"{key}{m.proto} . {m.host_port}"] = f"{entry.ip} . {m.container_port}"
    return found
