# SPDX-License-Identifier: Apache-2.0
"""Fixtures of every ring, and the rule that an unexpected skip fails in CI.

paths         the session's own data root and run root (runtime.paths.Paths); nothing of the machine's is touched
pyrun         calls the `pyrun` command on them; after the test nothing may be left over
other_pyrun   makes further ones, each on roots (so with a monitor, a bridge and a table) of its own
base_image    the name of a small busybox image in the session's roots
python_image  the name of the Debian image with Python and pip; takes a while the first time
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import leftovers
import requires
from cli import Pyrun
from pyrun.runtime.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A slow example is a busy machine more often than a slow function: no wall-clock limit on examples.
settings.register_profile("pyrun", deadline=None)
settings.load_profile("pyrun")

CHECKOUT = Path(__file__).resolve().parent.parent


# --- skips -----------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(...): what the test needs of the machine; see tests/requires.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        reason = requires.unmet(mark.kwargs)
        if reason:
            pytest.skip(reason)


def _unexpected_skips(terminal: pytest.TerminalReporter) -> list[str]:
    import machine

    lines = []
    for report in terminal.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not requires.expected(reason, machine.kind()):
            lines.append(f"{report.nodeid}: {reason}")
    return lines


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or exitstatus != pytest.ExitCode.OK or os.environ.get("CI") != "true":
        return  # None: a worker of pytest-xdist; its controller judges
    if _unexpected_skips(terminal):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = _unexpected_skips(terminalreporter)
    if lines:
        weight = "and this is CI: the run fails" if os.environ.get("CI") == "true" else "CI would fail"
        terminalreporter.section(f"skips nobody expected on this kind of machine ({weight})")
        for line in lines:
            terminalreporter.line(line)


# --- roots and the command -------------------------------------------------------------------------------------


def _command() -> str:
    """$PYRUN, else the `pyrun` beside this interpreter: the editable install of the checkout."""
    return os.environ.get("PYRUN") or str(Path(sys.executable).with_name("pyrun"))


@pytest.fixture(scope="session")
def make_pyrun() -> Iterator[Callable[[], Pyrun]]:
    """Makes a Pyrun on roots of its own; at the end of the session each one's processes and objects are removed."""
    base = tempfile.mkdtemp(prefix="pyrun-test-")
    made: list[Pyrun] = []
    count = itertools.count()

    def make() -> Pyrun:
        number = next(count)
        made.append(Pyrun(_command(), Paths(f"{base}/{number}/data", f"{base}/{number}/run")))
        return made[-1]

    yield make
    left = []
    for pyrun in made:
        left += leftovers.end_instance(pyrun)
    shutil.rmtree(base, ignore_errors=True)
    assert not left, "left behind at the end of the session:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def session_pyrun(make_pyrun: Callable[[], Pyrun]) -> Pyrun:
    """The command on the session's roots, without the check after each test: for other session fixtures."""
    return make_pyrun()


@pytest.fixture(scope="session")
def paths(session_pyrun: Pyrun) -> Paths:
    """The session's data and run roots."""
    return session_pyrun.paths


@pytest.fixture(scope="session")
def roots(paths: Paths) -> dict[str, str]:
    """The session's roots as environment variables, for a program that a test starts itself."""
    return {"PYRUN_DATA_ROOT": paths.data, "PYRUN_RUN_ROOT": paths.run}


@pytest.fixture
def pyrun(session_pyrun: Pyrun) -> Iterator[Pyrun]:
    """The command on the session's roots; after the test its containers and images are removed and nothing else may be
    left. The images of fixtures with a wider scope stay."""
    before = leftovers.images(session_pyrun)
    yield session_pyrun
    leftovers.assert_none(session_pyrun)
    leftovers.remove_images(session_pyrun, before)


@pytest.fixture
def other_pyrun(make_pyrun: Callable[[], Pyrun]) -> Iterator[Callable[[], Pyrun]]:
    """Makes a Pyrun on fresh roots: for tests that kill the monitor, fill the disk or break the store."""
    made: list[Pyrun] = []

    def make() -> Pyrun:
        made.append(make_pyrun())
        return made[-1]

    yield make
    left = []
    for pyrun in made:  # now and not at the end of the session: each has a monitor, and a subnet of the machine's
        left += leftovers.end_instance(pyrun)
        shutil.rmtree(os.path.dirname(pyrun.paths.data), ignore_errors=True)
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture(scope="module")
def checkout_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what is built in it: for tests that change it, or that must not see it change."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("runtime", "cgroups", "netns", "rootfs", "scripts", "examples"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy / name)
    return copy


# --- images ----------------------------------------------------------------------------------------------------


def base_tar(name: str) -> str:
    """The path of the root file system tar that scripts/base-image makes (and keeps) for `name`."""
    made = subprocess.run(
        [CHECKOUT / "scripts/base-image", "--tar", name], capture_output=True, text=True, timeout=900, check=False
    )
    assert made.returncode == 0, f"scripts/base-image --tar {name}:\n{made.stderr}"
    return made.stdout.strip()


@pytest.fixture(scope="session")
def busybox_tar() -> str:
    """A root file system tar with a static busybox: a megabyte."""
    return base_tar("busybox")


@pytest.fixture(scope="session")
def base_image(session_pyrun: Pyrun, busybox_tar: str) -> str:
    """The name of a small image (static busybox, CMD sh) in the session's roots."""
    session_pyrun.ok("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox:latest")
    return "busybox:latest"


@pytest.fixture(scope="session")
def python_image(session_pyrun: Pyrun) -> str:
    """The name of the Debian image with Python 3 and pip in the session's roots."""
    session_pyrun.ok("import", "--change", 'CMD ["python3"]', base_tar("debian-python"), "debian-python:bookworm")
    return "debian-python:bookworm"
