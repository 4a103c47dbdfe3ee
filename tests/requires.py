# SPDX-License-Identifier: Apache-2.0
"""What a test needs of its machine, and which unmet needs are expected where.

    from requires import requires

    @requires(root=True, cgroup2=("pids",), kernel=(5, 12), tools=("runc",), capabilities=("CAP_SYS_RESOURCE",))
    def test_pids_limit_stops_fork_bomb(pyrun, base_image):
        ...

An unmet need is a skip with the reason "requires <need>: <what is missing>". In CI (CI=true) a skip that is not in
EXPECTED for this kind of machine fails the run, and so does every skip that did not come from here.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

import machine

if TYPE_CHECKING:
    from collections.abc import Mapping

# What may be missing where, because the same test runs for real on the other kind of machine.
EXPECTED: dict[str, frozenset[str]] = {
    # cgroup2 beside v1 has no controllers, and a sandboxed root may lack CAP_SYS_RESOURCE: the vm ring has both
    "native": frozenset({"cgroup2", "capabilities"}),
    # the VM runs Debian's 6.1 and has no network card: what needs a newer kernel or a package index runs natively
    "vm": frozenset({"kernel", "online"}),
}


def requires(
    *,
    root: bool = False,
    cgroup2: tuple[str, ...] = (),
    kernel: tuple[int, int] = (0, 0),
    tools: tuple[str, ...] = (),
    capabilities: tuple[str, ...] = (),
    online: bool = False,
    modules: tuple[str, ...] = (),
) -> pytest.MarkDecorator:
    """A mark for a test, a class or a module (`pytestmark = requires(root=True)`); marks add up."""
    return pytest.mark.requires(
        root=root,
        cgroup2=cgroup2,
        kernel=kernel,
        tools=tools,
        capabilities=capabilities,
        online=online,
        modules=modules,
    )


def unmet(needs: Mapping[str, object]) -> str:
    """The reason to skip a test with these needs here, "" when all of them are met."""
    for need, check in CHECKS.items():
        missing = check(needs.get(need))
        if missing:
            return f"requires {need}: {missing}"
    return ""


def expected(reason: str, kind: str) -> bool:
    """Whether a skip for this reason is one that CI accepts on this kind of machine."""
    _, found, rest = reason.partition("requires ")
    return bool(found) and rest.partition(":")[0] in EXPECTED[kind]


def _root(wanted: object) -> str:
    return f"this is uid {os.geteuid()}" if wanted and os.geteuid() != 0 else ""


def _cgroup2(wanted: object) -> str:
    assert isinstance(wanted, tuple)
    return ", ".join(sorted(set(wanted) - machine.cgroup2_controllers()))


def _kernel(wanted: object) -> str:
    assert isinstance(wanted, tuple)
    return "" if machine.kernel_version() >= wanted else f"{wanted[0]}.{wanted[1]}, this is {os.uname().release}"


def _tools(wanted: object) -> str:
    assert isinstance(wanted, tuple)
    return ", ".join(name for name in wanted if not machine.has_tool(name))


def _capabilities(wanted: object) -> str:
    assert isinstance(wanted, tuple)
    return ", ".join(name for name in wanted if not machine.has_capability(name))


def _online(wanted: object) -> str:
    # Not tried out: a machine that should reach its package index and does not is a failure, and no skip.
    return "the VM has no network card" if wanted and machine.kind() == "vm" else ""


def _modules(wanted: object) -> str:
    assert isinstance(wanted, tuple)
    return ", ".join(name for name in wanted if importlib.util.find_spec(name) is None)


CHECKS = {
    "root": _root,
    "kernel": _kernel,
    "cgroup2": _cgroup2,
    "capabilities": _capabilities,
    "tools": _tools,
    "online": _online,
    "modules": _modules,
}
