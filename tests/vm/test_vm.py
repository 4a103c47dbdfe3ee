# SPDX-License-Identifier: Apache-2.0
"""Tests of other rings, run in the VM: one test here for each of them, with the outcome that it had there.

What runs there: everything that needs a controller of cgroup2 or a capability that a native machine may lack, and the
modules of ALSO, because an older kernel or systemd's hierarchy may make a difference to them. The list is made here,
before any VM runs, so a test that did not run there is a failure and not a gap.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vm.conftest import Vm

CHECKOUT = Path(__file__).resolve().parents[2]
RINGS = ("tests/integration", "tests/security")
VM_KERNEL = (6, 1)  # what needs a newer one runs natively
LIMIT = 900  # seconds for all the tests of one flavour
SYSTEMD = ("tests/integration/test_limits.py",)  # with systemd as PID 1, as people's machines have it; the rest without
NATIVE = (  # they show what happens where a controller is missing; there none is
    "tests/integration/test_limits.py::test_missing_controller",
    "tests/integration/test_limits.py::test_without_controllers",
)
ALSO = (
    "tests/integration/test_cgroup_group.py",
    "tests/integration/test_network_attach.py",
    "tests/integration/test_network_publish.py::test_answers_from_everywhere",
    "tests/integration/test_network_publish.py::test_udp_answers_from_everywhere",
    "tests/integration/test_network_publish.py::test_the_way_out_is_masqueraded",
    "tests/integration/test_seccomp_kernel.py",
)
# The module is there after any docker.
COMMAND = """
modprobe br_netfilter
exec python -m pytest -q --durations=10 --timeout=300 --junitxml=/out/junit.xml @/out/tests
"""


def collect() -> dict[str, list[dict[str, Any]]]:
    """Every test of RINGS and its needs."""
    with tempfile.NamedTemporaryFile() as file:
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests"), "VM_MARKS": file.name}
        argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "vm.marks", "-p", "no:cacheprovider"]
        paths = [ring for ring in RINGS if any((CHECKOUT / ring).glob("**/test_*.py"))]
        done = subprocess.run(
            [*argv, *paths], cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, list[dict[str, Any]]] = json.load(file)
        return found


def wanted(node: str, needs: list[dict[str, Any]]) -> bool:
    """Whether a test is one for the VM."""
    if node.startswith(NATIVE) or any(
        tuple(need.get("kernel", ())) > VM_KERNEL or need.get("online") for need in needs
    ):
        return False
    return node.startswith((*SYSTEMD, *ALSO)) or any(need.get("cgroup2") or need.get("capabilities") for need in needs)


def by_flavour() -> dict[str, list[str]]:
    """The tests for the VM, in the flavour that each runs in."""
    flavours: dict[str, list[str]] = {"systemd": [], "tiny": []}
    for node, needs in collect().items():
        if wanted(node, needs):
            flavours["systemd" if node.startswith(SYSTEMD) else "tiny"].append(node)
    return flavours


NODES = by_flavour()


def outcomes(junit: Path) -> dict[str, str]:
    """Test (as class and name) -> "passed", or the text of its failure, error or skip.

    A test may be there twice, once for its teardown: what went wrong counts.
    """
    found: dict[str, str] = {}
    for case in ET.parse(junit).getroot().iter("testcase"):
        key = f"{case.get('classname')}::{case.get('name')}"
        for kind in ("skipped", "failure", "error"):
            for element in case.iter(kind):
                found[key] = f"{kind}: {element.get('message')}\n{element.text or ''}"
        found.setdefault(key, "passed")
    return found


def junit_key(node: str) -> str:
    """How junit names a test: tests/a/test_b.py::test_c[d] is tests.a.test_b::test_c[d]."""
    address, bracket, parameters = node.partition("[")
    path, *names = address.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    return f"{'.'.join([module, *names[:-1]])}::{names[-1]}{bracket}{parameters}"


class Run:
    """One VM with the tests of one flavour in it."""

    def __init__(self, vm: Vm, flavour: str, nodes: list[str], directory: Path) -> None:
        self.junit = directory / "junit.xml"
        self.log = directory / "log"
        (directory / "tests").write_text("".join(f"{node}\n" for node in nodes), encoding="utf-8")
        options = ["--systemd"] if flavour == "systemd" else []
        options += ["--timeout", str(LIMIT), "--out", str(directory)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                vm.argv(*options, "--", COMMAND), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._outcomes: dict[str, str] | None = None

    def outcome(self, node: str) -> str:
        """How the test ended. Waits for the VM; the end of its log stands for a test that it did not run."""
        if self._outcomes is None:
            self.process.wait(LIMIT + 120)
            self._outcomes = outcomes(self.junit) if self.junit.exists() else {}
        key = junit_key(node)
        if key not in self._outcomes:
            return f"it did not run; the VM's log ends with\n{self.log.read_text(errors='replace')[-4000:]}"
        return self._outcomes[key]


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest, vm: Vm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Run]]:
    """Gives the run of a flavour, with the tests that this session has chosen (-k and the like).

    Both VMs start at once: each keeps one processor busy most of the time.
    """
    chosen: dict[str, list[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.function is test_in_vm:
            parameters = item.callspec.params
            chosen.setdefault(str(parameters["flavour"]), []).append(str(parameters["node"]))
    started = {flavour: Run(vm, flavour, nodes, tmp_path_factory.mktemp(flavour)) for flavour, nodes in chosen.items()}
    yield started.__getitem__
    for run in started.values():
        run.process.terminate()
        run.process.wait(60)


def test_there_are_tests() -> None:
    """Both flavours have tests to run, and among them the ones that need a controller."""
    assert len(NODES["systemd"]) > 30
    assert any(node.startswith("tests/integration/test_cgroup_group.py") for node in NODES["tiny"])


@pytest.mark.timeout(LIMIT + 300)
@pytest.mark.parametrize(
    ("flavour", "node"),
    [pytest.param(flavour, node, id=f"{flavour}: {node}") for flavour, nodes in NODES.items() for node in nodes],
)
def test_in_vm(runs: Callable[[str], Run], flavour: str, node: str) -> None:
    """The test passed in the VM. Being skipped there is a failure: the VM is where it is meant to run."""
    outcome = runs(flavour).outcome(node)
    assert outcome == "passed", outcome
