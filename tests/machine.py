# SPDX-License-Identifier: Apache-2.0
"""What the machine under the tests is and has: kind, slowness, cgroup2, kernel, capabilities.

Environment:
    PYRUN_MACHINE   "vm" inside scripts/vm, else "native"
    PYRUN_SLOWNESS  how many times slower than an ordinary machine this one is (a VM under emulation: about 20);
                    every wall-clock limit of a test is multiplied by it
"""

from __future__ import annotations

import os
import shutil
from functools import cache

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_MKNOD": 27, "CAP_BPF": 39}


def kind() -> str:
    """ "native" or "vm"."""
    return os.environ.get("PYRUN_MACHINE", "native")


def slowness() -> float:
    """The factor for wall-clock limits; 1.0 on an ordinary machine."""
    return float(os.environ.get("PYRUN_SLOWNESS", "20" if kind() == "vm" else "1"))


@cache
def cgroup2_mount() -> str:
    """Where cgroup2 is mounted, from mountinfo(5); "" when it is not."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] == "cgroup2":
                return before.split(" ")[4]
    return ""


@cache
def cgroup2_controllers() -> frozenset[str]:
    """The controllers that the root of cgroup2 offers; empty in hybrid mode."""
    try:
        with open(f"{cgroup2_mount()}/cgroup.controllers", encoding="utf-8") as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


@cache
def kernel_version() -> tuple[int, int]:
    """Major and minor, such as (6, 1)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(ch for ch in minor if ch.isdigit()))


@cache
def effective_capabilities() -> int:
    """The CapEff mask of this process, capabilities(7)."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def has_capability(name: str) -> bool:
    """Whether this process has the named capability in its effective set."""
    return bool(effective_capabilities() & (1 << CAPABILITIES[name]))


def has_tool(name: str) -> bool:
    """Whether a program of that name is on PATH, with the administrator's directories searched too."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin") is not None
