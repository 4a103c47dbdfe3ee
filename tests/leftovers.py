# SPDX-License-Identifier: Apache-2.0
"""What an instance (a pair of roots) has left on the machine: the other half of every test.

DESIGN.md's invariants 3 and 4: no mounts on the host, and nothing left by a container that is gone: no cgroup, no veth,
no address lease, no port-map element, no state directory. The bridge, the nftables table and the monitor may stay
while the instance lives.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

import machine
from pyrun.netns import firewall
from pyrun.rootfs.store import ImageStore

if TYPE_CHECKING:
    from cli import Pyrun
    from pyrun.runtime.paths import Paths


def assert_none(pyrun: Pyrun) -> None:
    """Removes the containers that the test left, then asserts that nothing else stays behind."""
    remove_containers(pyrun)
    left = lasting(pyrun.paths)
    assert not left, "left behind:\n" + "\n".join(left)


def lasting(paths: Paths) -> list[str]:
    """found(), but only what stays: finishers clean up behind the command that was answered."""
    deadline = time.monotonic() + 10 * machine.slowness()
    while (left := found(paths)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def remove_containers(pyrun: Pyrun) -> None:
    """`pyrun rm -f` of every container of these roots."""
    names = entries(f"{pyrun.paths.data}/containers")
    if names:
        pyrun.ok("rm", "-f", "-v", *names)


def images(pyrun: Pyrun) -> set[str]:
    """The names and ids of the images that are there; an id only for one without a name."""
    return {name for image in ImageStore(pyrun.paths).list() for name in (image.names or (image.id,))}


def remove_images(pyrun: Pyrun, but: set[str]) -> None:
    """Removes the images that are not in `but`, so that no test sees those of another."""
    new = sorted(images(pyrun) - but)
    if new:
        pyrun("rmi", "-f", *new)


def found(paths: Paths) -> list[str]:
    """One line for each thing that a removed container should not have left."""
    return [
        *(f"container directory {name}" for name in entries(f"{paths.data}/containers")),
        *(f"running directory {name}" for name in entries(paths.run) if is_container_id(name)),
        *(f"cgroup {path}" for path in container_cgroups(paths)),
        *(f"network link {name}" for name in veths(paths)),
        *(f"lease {lease}" for lease in leases(paths)),
        *(f"note of published ports {name}" for name in entries(f"{paths.run}/ports")),
        *(f"port-map element {element}" for element in port_elements(paths)),
        *(f"mount on the host: {line}" for line in host_mounts(paths)),
    ]


def is_container_id(name: str) -> bool:
    """Whether a name is a full container id: 64 hex digits."""
    return len(name) == 64 and all(ch in "0123456789abcdef" for ch in name)


def entries(directory: str) -> list[str]:
    """The names in a directory, none when it is missing."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def instance_cgroup(paths: Paths) -> str:
    """The cgroup that holds the instance's containers."""
    return f"{machine.cgroup2_mount()}/pyrun-{paths.instance}"


def container_cgroups(paths: Paths) -> list[str]:
    """The cgroup directories below the instance's own, except the monitor's and the keeper's."""
    top = instance_cgroup(paths)
    return [f"{top}/{name}" for name in entries(top) if is_container_id(name)]


def links(paths: Paths) -> list[dict[str, object]]:
    """The host's network links whose names carry the instance: pyrun0-<instance>, pv<id><instance>."""
    shown = subprocess.run(["ip", "-json", "link", "show"], capture_output=True, check=True, timeout=60)
    return [link for link in json.loads(shown.stdout) if paths.instance in link["ifname"]]


def veths(paths: Paths) -> list[str]:
    """The host's ends of containers' veth pairs."""
    return [str(link["ifname"]) for link in links(paths) if not str(link["ifname"]).startswith("pyrun0-")]


def leases(paths: Paths) -> list[str]:
    """network/address of every address that is leased to a container."""
    held = []
    for name in entries(f"{paths.run}/leases"):
        if not name.endswith(".json"):
            continue
        with open(f"{paths.run}/leases/{name}", encoding="utf-8") as file:
            held += [f"{name[:-5]}/{entry}" for entry in json.load(file)]
    return held


def tables(paths: Paths) -> list[tuple[str, str]]:
    """(family, name) of the instance's nftables tables."""
    shown = nft("list", "tables")
    return [
        (t["table"]["family"], t["table"]["name"])
        for t in shown
        if paths.instance in t.get("table", {}).get("name", "")
    ]


def port_elements(paths: Paths) -> list[str]:
    """The elements of the instance's nftables maps: each one publishes a port of a container."""
    elements = []
    for family, name in tables(paths):
        for thing in nft("list", "table", family, name):
            if "map" in thing:
                elements += [
                    f"{thing['map']['name']}: {json.dumps(element)}" for element in thing["map"].get("elem", [])
                ]
    return elements


def nft(*args: str) -> list[dict[str, dict[str, str]]]:
    """What `nft -j ...` answers."""
    tool = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert tool, "nft is not installed: scripts/test installs it"
    shown = subprocess.run([tool, "-j", *args], capture_output=True, timeout=60, check=True)
    return list(json.loads(shown.stdout)["nftables"])


def host_mounts(paths: Paths) -> list[str]:
    """The lines of mountinfo(5) that name one of the roots."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line.strip() for line in file if paths.data in line or paths.run in line]


# --- the end of an instance -------------------------------------------------------------------------------------


def end_instance(pyrun: Pyrun) -> list[str]:
    """Ends the instance's processes and removes its bridge and table; gives what containers had left."""
    paths = pyrun.paths
    if not os.path.isdir(paths.run) and not os.path.isdir(paths.data):
        return []
    remove_containers(pyrun)
    left = lasting(paths)
    for name in ("monitor.sock", "keeper.sock"):
        end_process(listener(f"{paths.run}/{name}"))
    for link in links(paths):
        subprocess.run(["ip", "link", "delete", str(link["ifname"])], check=False, capture_output=True, timeout=60)
    firewall.remove(paths)
    remove_cgroup(instance_cgroup(paths))
    return left


def listener(path: str) -> int:
    """The process that listens on a Unix socket, by SO_PEERCRED (unix(7)); 0 when nobody does."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            try:
                client.connect(path)
            except OSError:
                continue
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[0])
    return 0


def end_process(pid: int) -> None:
    """SIGTERM, and SIGKILL if that was not enough; does nothing for pid 0."""
    if not pid:
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return
            if select.select([pidfd], [], [], 5 * machine.slowness())[0]:
                return
    finally:
        os.close(pidfd)


def remove_cgroup(path: str) -> None:
    """rmdir(2) of a cgroup and those below it, deepest first; a process in it makes this fail with OSError EBUSY."""
    if not os.path.isdir(path):
        return
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)
