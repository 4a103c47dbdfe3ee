# SPDX-License-Identifier: Apache-2.0
"""What pyrun takes for granted of the kernel is true in the VM: kernel_facts.sh, one test for each of its facts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from vm.conftest import Vm

SCRIPT = Path(__file__).with_name("kernel_facts.sh")
FACTS = re.findall(r"^fact_(\w+)\(\)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
FLAVOURS = {"tiny": (), "systemd": ("--systemd",)}


@pytest.fixture(scope="session")
def facts(vm: Vm) -> Callable[[str], dict[str, str]]:
    """Gives the lines of kernel_facts.sh in a flavour, by fact; each flavour runs once."""
    found: dict[str, dict[str, str]] = {}

    def of(flavour: str) -> dict[str, str]:
        if flavour not in found:
            done = vm(*FLAVOURS[flavour], "--", str(SCRIPT), limit=900)
            assert done.returncode == 0, done.stderr.decode()
            lines = [line for line in done.stdout.decode().splitlines() if line.startswith(("PASS ", "FAIL "))]
            found[flavour] = {line.split(" ", 2)[1].rstrip(":"): line for line in lines}
        return found[flavour]

    return of


def test_there_are_facts() -> None:
    """The list that the other tests are made from is not empty."""
    assert len(FACTS) > 10


@pytest.mark.timeout(900)
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("fact", FACTS)
def test_fact(facts: Callable[[str], dict[str, str]], fact: str, flavour: str) -> None:
    """The fact of kernel_facts.sh holds in this flavour of the VM."""
    assert facts(flavour).get(fact, "it was not tried").startswith("PASS "), facts(flavour).get(fact)
