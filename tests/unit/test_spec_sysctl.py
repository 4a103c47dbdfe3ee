# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/sysctl.py: only parameters of the container's own namespaces."""

from __future__ import annotations

import os

import pytest

from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import sysctl

ALL = ("ipc", "uts", "network", "user", "pid", "mount", "cgroup", "time")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
    ],
)
def test_path(name: str, path: str) -> None:
    """sysctl(8)'s two ways of writing a name lead to the same file."""
    assert sysctl.path(name) == path


def test_listed_names_are_real() -> None:
    """Each listed parameter of this kernel's /proc/sys is where the table says (those of other kernels are absent)."""
    there = [name for name in sysctl.NAMES if os.path.exists(f"/proc/sys/{sysctl.path(name)}")]
    assert "kernel.shmmax" in there
    assert "kernel.domainname" in there


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel/shm_rmid_forced", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("net.core.somaxconn", "network"),
        ("net/core/somaxconn", "network"),
        ("user.max_user_namespaces", "user"),
        ("kernel.domainname", "uts"),
    ],
)
def test_allowed_with_its_namespace_and_refused_without(name: str, kind: str) -> None:
    """A namespaced parameter needs that namespace, and no other will do."""
    sysctl.check(name, "1", (kind,), "s")
    with pytest.raises(SpecError, match=f"it needs a {kind} namespace"):
        sysctl.check(name, "1", [other for other in ALL if other != kind], "s")


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "kernel.hostname",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "kernel.shm_rmid_forced\nkernel.core_pattern",
        "kernel.shm_rmid_forced kernel.core_pattern",
        "kernel.shm_rmid_forced=1",
        "net.//.kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net/./core/somaxconn",
        "net..core",
        "net.",
        "net",
        "",
        ".",
        "/net/core/somaxconn",
        "vm.overcommit_memory",
        "fs.mqueue",
        "fs.file-max",
        "network.x",
        "nét.core",
        "kernel.SHMMAX",
    ],
)
def test_refused_whatever_the_namespaces(name: str) -> None:
    """Parameters of the whole machine, and every way to smuggle one in (CVE-2022-0811), are refused."""
    with pytest.raises(SpecError, match=r"^s: "):
        sysctl.check(name, "1", ALL, "s")


@pytest.mark.parametrize("value", ["1\n2", "1\r", "\x7f", "\x1b[0m"])
def test_values_without_control_characters(value: str) -> None:
    """A value is one line of text."""
    with pytest.raises(SpecError, match="control character"):
        sysctl.check("kernel.shmmax", value, ALL, "s")
    sysctl.check("kernel.sem", "250 32000\t100 128", ALL, "s")
