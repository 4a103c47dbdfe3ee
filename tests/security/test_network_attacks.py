# SPDX-License-Identifier: Apache-2.0
"""What a container sends on its bridge must not change how the host, or another container, is reached."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from cli import Pyrun

pytestmark = requires(root=True)

PREFIX = "fd66:dead:beef::"

# Ethernet, IPv6, ICMPv6 type 134 (RFC 4861, 4.2) with a prefix option: what any program with CAP_NET_RAW can send.
ADVERTISE = f"""
import socket, struct, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0x86DD))
mac = s.getsockname()[4]
source, group = (socket.inet_pton(socket.AF_INET6, a) for a in ("fe80::bad", "ff02::1"))
prefix = socket.inet_pton(socket.AF_INET6, "{PREFIX}")
option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 30, 30, 0) + prefix
def advertisement(checksum):
    return struct.pack("!BBHBBHII", 134, 0, checksum, 64, 0, 30, 0, 0) + option
body = advertisement(0)
pseudo = source + group + struct.pack("!II", len(body), 58) + body
total = sum(struct.unpack(f"!{{len(pseudo) // 2}}H", pseudo))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
packet = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group + advertisement(total ^ 0xFFFF)
for _ in range(3):
    s.send(b"\\x33\\x33\\0\\0\\0\\1" + mac + b"\\x86\\xdd" + packet)
    time.sleep(0.1)
"""


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="the kernel has no IPv6")
def test_a_router_advertisement_of_a_container_is_not_heard(pyrun: Pyrun, base_image: str) -> None:
    """CVE-2020-13401: else the host gets an address of the container's choice and a default route through it."""
    pyrun.ok("run", "-d", "--name", "router", base_image, "sleep", "60")
    pid = json.loads(pyrun.ok("inspect", "router"))[0]["State"]["Pid"]
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", ADVERTISE]
    subprocess.run(inside, check=True, timeout=60)
    time.sleep(0.5)
    routes = subprocess.run(["ip", "-6", "route"], capture_output=True, text=True, check=True).stdout
    addresses = subprocess.run(["ip", "-6", "address"], capture_output=True, text=True, check=True).stdout
    assert "fe80::bad" not in routes, routes
    assert PREFIX.rstrip(":") not in addresses, addresses
    pyrun.ok("rm", "-f", "router")
