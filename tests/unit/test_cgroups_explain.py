# SPDX-License-Identifier: Apache-2.0
"""What --explain says about cgroups, and which modules the hot path loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pyrun.cgroups.driver import open_cgroup
from pyrun.cgroups.explain import describe
from pyrun.cgroups.mount import Mount
from pyrun.cgroups.resources import parse
from pyrun.runtime.errors import UsageError


def test_describe() -> None:
    """Every step as a line that a student could type, in order."""
    raw = {
        "memory": {"limit": 33554432},
        "cpu": {"cpus": "0"},
        "unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2"},
        "devices": [{"allow": True}],
    }
    assert describe("/pyrun/c1", parse(raw), "/cg") == [
        "mkdir -p /cg/pyrun/c1",
        "echo +cpu +io +memory +pids +cpuset > /cg/cgroup.subtree_control",
        "echo +cpu +io +memory +pids +cpuset > /cg/pyrun/cgroup.subtree_control",
        "echo 33554432 > /cg/pyrun/c1/memory.max",
        "echo 0 > /cg/pyrun/c1/cpuset.cpus",
        "echo 8:0 rbps=1 > /cg/pyrun/c1/io.max",
        "echo 8:16 rbps=2 > /cg/pyrun/c1/io.max",
        "no device program: /cg/pyrun/c1 may use all",
    ]


def test_describe_names_the_devices() -> None:
    """Without --privileged the device program is a line of its own."""
    [line] = [line for line in describe("/pyrun/c1", parse({})) if line.startswith("bpf")]
    assert line.startswith("bpf attach device program to /sys/fs/cgroup/pyrun/c1: deny all others; allow ")
    assert "allow c 1:3 rwm" in line


def test_unknown_driver() -> None:
    """The error names those that exist."""
    with pytest.raises(UsageError, match="no such driver") as caught:
        open_cgroup("/pyrun/c", driver="zoo", mount=Mount("/cg"))
    assert "cgroupfs" in caught.value.hint


def test_the_hot_path_imports_next_to_nothing() -> None:
    """What `pyrun-oci create` and `delete` need of cgroups loads none of the slow standard modules."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "import pyrun.cgroups.group, pyrun.cgroups.devices, pyrun.cgroups.resources\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert not loaded & {"json", "re", "typing", "dataclasses", "pathlib", "contextlib", "enum", "subprocess", "signal"}
    assert "pyrun.cgroups.stats" not in loaded
    assert "pyrun.runtime.kernel.syscalls" not in loaded
