# SPDX-License-Identifier: Apache-2.0
"""Which container has which address: <run>/leases/<network>.json, an object of address -> container id.

<run> is gone after a reboot, and so are the containers. Addresses are given out in rotation (<network>.next is where
to go on), so that one that was just freed, and may still be in somebody's ARP or DNS cache, comes back last.
"""

from __future__ import annotations

import os

from pyrun.netns import subnets
from pyrun.runtime.errors import Conflict, PyrunError, UsageError
from pyrun.runtime.events import step
from pyrun.runtime.files import Lock, private_dir, read_json, write_atomic, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyrun.netns.networks import Network
    from pyrun.runtime.paths import Paths


def directory(paths: Paths) -> str:
    return f"{paths.run}/leases"


def _lock(paths: Paths, name: str) -> Lock:
    return Lock(f"{private_dir(directory(paths))}/{name}.lock")


def held(paths: Paths, name: str) -> dict[str, str]:
    """address -> container id of the network `name`. Raises PyrunError when the file is damaged."""
    path = f"{directory(paths)}/{name}.json"
    try:
        leases: dict[str, str] = read_json(path)
        return leases
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PyrunError(f"read {path}", str(error), hint="stop the network's containers and remove the file") from None


def acquire(paths: Paths, network: Network, container_id: str, wanted: str = "") -> str:
    """An address of the network for the container: `wanted`, or the next free one.

    A container that holds one already keeps it. Raises Conflict when `wanted` is taken or none is left, UsageError
    when `wanted` is not an address for containers of this network, OSError.
    """
    what = f"an address on network {network.name}"
    with step("netns", f"lease {wanted or what} for {container_id[:12]}"), _lock(paths, network.name):
        leases = held(paths, network.name)
        mine = [address for address, holder in leases.items() if holder == container_id]
        if mine and wanted in ("", mine[0]):
            return mine[0]
        address = _wanted(network, leases, wanted) if wanted else _next_free(paths, network, leases)
        for old in mine:
            del leases[old]
        leases[address] = container_id
        _write(paths, network.name, leases)
        if not wanted:
            write_atomic(f"{directory(paths)}/{network.name}.next", f"{address}\n".encode(), sync=False)
        return address


def release(paths: Paths, name: str, container_id: str) -> str:
    """Gives the container's address back; the address, "" when it had none. Raises PyrunError, OSError."""
    return _forget(paths, name, lambda holder: holder == container_id).get(container_id, "")


def prune(paths: Paths, name: str, live_ids: Collection[str]) -> list[str]:
    """Frees the addresses of containers that are not in `live_ids`; the ids they were leased to."""
    return list(_forget(paths, name, lambda holder: holder not in live_ids))


def networks_with_leases(paths: Paths) -> list[str]:
    """The names of networks that have a lease file, be the network still there or not."""
    try:
        return sorted(n.removesuffix(".json") for n in os.listdir(directory(paths)) if n.endswith(".json"))
    except FileNotFoundError:
        return []


def _forget(paths: Paths, name: str, unwanted: Callable[[str], bool]) -> dict[str, str]:
    if not os.path.exists(f"{directory(paths)}/{name}.json"):  # nothing was ever leased: make no files for that
        return {}
    with _lock(paths, name):
        leases = held(paths, name)
        gone = {holder: address for address, holder in leases.items() if unwanted(holder)}
        if gone:
            with step("netns", f"free {', '.join(gone.values())}"):
                kept = {address: holder for address, holder in leases.items() if holder not in gone}
                _write(paths, name, kept)
        return gone


def _write(paths: Paths, name: str, leases: dict[str, str]) -> None:
    write_json(f"{directory(paths)}/{name}.json", leases, sync=False)


def _wanted(network: Network, leases: dict[str, str], wanted: str) -> str:
    subnet = network.range
    what = f"address {wanted} on network {network.name}"
    address = subnets.to_text(subnets.to_number(wanted))
    if address not in subnet:
        raise UsageError(what, f"not in its subnet {network.subnet}")
    if address in (network.gateway, subnets.to_text(subnet.base), subnet.broadcast):
        raise UsageError(what, "reserved: the network, gateway and broadcast addresses are not for containers")
    if address in leases:
        raise Conflict(what, f"in use by container {leases[address][:12]}")
    return address


def _next_free(paths: Paths, network: Network, leases: dict[str, str]) -> str:
    subnet = network.range
    usable = subnet.size - 3  # without network, gateway and broadcast address: offsets 2 … size-2
    try:
        with open(f"{directory(paths)}/{network.name}.next", encoding="ascii") as file:
            last = subnets.to_number(file.read().strip()) - subnet.base
    except (FileNotFoundError, ValueError, UsageError):
        last = 1
    first = last - 1 if 2 <= last <= usable + 1 else 0
    for i in range(usable):
        address = subnets.to_text(subnet.base + 2 + (first + i) % usable)
        if address not in leases and address != network.gateway:
            return address
    why = f"all {usable} addresses of {network.subnet} are in use"
    raise Conflict(f"lease an address on network {network.name}", why)
