# SPDX-License-Identifier: Apache-2.0
"""The fixture `vm` calls scripts/vm with the virtual environment that the tests run in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


class Vm:
    """Calls scripts/vm: `vm("--systemd", "--", "true").returncode`; the snapshots are there already."""

    def argv(self, *args: str) -> list[str]:
        """The whole command line, for a test that starts it itself."""
        return [str(CHECKOUT / "scripts/vm"), "--venv", sys.prefix, *args]

    def __call__(self, *args: str, stdin: bytes = b"", limit: float = 300) -> subprocess.CompletedProcess[bytes]:
        """Runs to the end with `stdin` on standard input; `limit` is in seconds of the host."""
        return subprocess.run(self.argv(*args), input=stdin, capture_output=True, timeout=limit, check=False)


@pytest.fixture(scope="session")
def vm() -> Vm:
    """scripts/vm, with everything made that it needs: what is said while it is made is not in a test's output."""
    made = Vm()
    for flavour in ([], ["--systemd"]):
        done = made(*flavour, "--prepare", limit=1200)
        assert done.returncode == 0, done.stderr.decode()
    return made
