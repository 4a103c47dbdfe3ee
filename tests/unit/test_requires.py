# SPDX-License-Identifier: Apache-2.0
"""The rule about skips is itself tested: a mistake there would hide every other test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import requires

TESTS = Path(__file__).resolve().parent.parent


def test_met_needs_do_not_skip() -> None:
    """A test whose needs are all there runs."""
    assert requires.unmet(requires.requires(kernel=(4, 0), tools=("sh",)).kwargs) == ""


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ({"tools": ("no-such-program",)}, "requires tools: no-such-program"),
        ({"kernel": (99, 0)}, f"requires kernel: 99.0, this is {os.uname().release}"),
        ({"cgroup2": ("no_such_controller",)}, "requires cgroup2: no_such_controller"),
    ],
)
def test_unmet_need_names_what_is_missing(needs: dict[str, object], reason: str) -> None:
    """The reason of a skip says which need it was and what exactly is missing."""
    assert requires.unmet({**requires.requires().kwargs, **needs}) == reason


def test_every_need_is_met_on_some_kind_of_machine() -> None:
    """A need that could be missing both natively and in the VM would be a test that never runs."""
    assert not frozenset.intersection(*requires.EXPECTED.values())


def test_tools_and_root_are_never_an_excuse() -> None:
    """A missing program or a missing uid 0 is a mistake in the set-up of the run, on every kind of machine."""
    for kind in requires.EXPECTED:
        assert not requires.expected("Skipped: requires tools: runc", kind)
        assert not requires.expected("Skipped: requires root: this is uid 1000", kind)


@pytest.mark.parametrize(
    ("body", "ci", "code"),
    [
        ("@requires(tools=('no-such-program',))\ndef test_it() -> None: ...", "true", pytest.ExitCode.TESTS_FAILED),
        ("@requires(tools=('no-such-program',))\ndef test_it() -> None: ...", "", pytest.ExitCode.OK),
        ("def test_it() -> None: pytest.skip('not today')", "true", pytest.ExitCode.TESTS_FAILED),
        ("@requires(cgroup2=('no_such_controller',))\ndef test_it() -> None: ...", "true", pytest.ExitCode.OK),
    ],
)
def test_unexpected_skip_fails_the_run_in_ci(tmp_path: Path, body: str, ci: str, code: int) -> None:
    """With CI=true a run with a skip that the table does not expect exits 1 and lists it; without, it exits 0."""
    test = tmp_path / "test_one.py"
    test.write_text(f"import pytest\nfrom requires import requires\n{body}\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-p", "conftest", test],
        env={**os.environ, "CI": ci, "PYRUN_MACHINE": "native", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert ("nobody expected" in run.stdout) == ("no_such_controller" not in body)
