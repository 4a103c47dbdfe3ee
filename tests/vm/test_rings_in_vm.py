# SPDX-License-Identifier: Apache-2.0
"""The tests that a machine without cgroup v2's controllers has to skip, run for real in the VM."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vm.conftest import Vm

TESTS = Path(__file__).resolve().parents[1]
RINGS = [ring for ring in ("integration", "security") if any((TESTS / ring).rglob("test_*.py"))]
LIMIT_S = 1500  # of the host; in the VM everything takes about 20 times as long


@pytest.mark.timeout(LIMIT_S + 300)
def test_what_needs_controllers_or_capabilities(vm: Vm) -> None:
    """Memory, cpu, pids and io limits, the OOM kill, and what needs every capability of root: no test may skip here."""
    pytest_command = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=900"]
    needs = ["--need", "cgroup2", "--need", "capabilities"]
    command = shlex.join(["env", "CI=true", *pytest_command, *needs, *(f"tests/{ring}" for ring in RINGS)])
    done = vm("--timeout", str(LIMIT_S), "--", command, limit=LIMIT_S + 200)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    print(done.stdout.decode(errors="replace"))  # pytest -rP shows it
