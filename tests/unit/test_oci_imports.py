# SPDX-License-Identifier: Apache-2.0
"""What the commands of pyrun-oci import: an orchestrator waits for each of them, and imports are most of what they cost
beyond the interpreter's own start (docs/performance.md)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SLOW = {
    *("argparse", "asyncio", "contextlib", "dataclasses", "enum", "functools", "json", "logging"),
    *("pathlib", "pyroute2", "re", "socket", "subprocess", "typing"),
}


def imported(*words: str) -> set[str]:
    """The modules that `pyrun-oci WORDS…` adds to those of a fresh interpreter, whatever comes of it."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"sys.argv = ['pyrun-oci', *{words!r}]\n"
        "from pyrun.runtime.cli.oci import main\n"
        "main()\n"
        "print(*(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--bundle", "/", "c1"),
        ("start", "c1"),
        ("state", "c1"),
        ("delete", "c1"),
        ("list",),
        ("pause", "c1"),
        ("resume", "c1"),
        ("ps", "c1"),
        ("exec", "c1", "true"),
        ("update", "--memory", "1", "c1"),
        ("events", "c1"),
        ("run", "--bundle", "/", "c1"),
        ("features",),
    ],
)
def test_no_slow_module_is_imported(words: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing of the standard library that costs milliseconds, and no pyroute2."""
    assert not imported("--root", str(tmp_path), *words) & SLOW


@pytest.mark.parametrize("command", ["start", "state", "delete"])
def test_only_create_knows_the_plan(command: str, tmp_path: Path) -> None:
    """The commands for a container that is there load neither the spec nor the plan, nor what these are made of."""
    ours = {name for name in imported("--root", str(tmp_path), command, "c1") if name.startswith("pyrun.")}
    allowed = {"cli", "errors", "files", "kernel", "oci", "paths", "record"}
    assert {name.split(".")[2] for name in ours if name.startswith("pyrun.runtime.")} <= allowed
    assert not {name for name in ours if name.startswith("pyrun.runtime.oci.")} - {
        "pyrun.runtime.oci.json",
        "pyrun.runtime.oci.lifecycle",
        "pyrun.runtime.oci.state",
    }
    assert not {name for name in ours if not name.startswith("pyrun.runtime")}
