# SPDX-License-Identifier: Apache-2.0
"""scripts/setup: what it installs starts anywhere, and a newer version leaves the older one to those who use it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from requires import requires

pytestmark = requires(root=True, online=True)

# Maps a file, says so, and stays until its standard input ends: as a monitor has an extension module mapped.
HOLDER = """
import mmap, sys
with open(sys.argv[1]) as file:
    held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("mapped", flush=True)
sys.stdin.read()
"""


def setup(checkout: Path, prefix: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs the set-up of a checkout into a prefix; asserts that it succeeds."""
    done = subprocess.run([checkout / "scripts/setup", "--prefix", prefix, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def versions(prefix: Path) -> set[str]:
    """The installed versions, `current` resolved."""
    return {path.name for path in (prefix / "lib/pyrun").iterdir() if path.is_dir() and not path.is_symlink()}


@pytest.fixture(scope="module")
def prefix(checkout_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with pyrun installed."""
    prefix = tmp_path_factory.mktemp("prefix")
    setup(checkout_copy, prefix)
    return prefix


@pytest.mark.parametrize("name", ["pyrun", "pyrun-oci"])
def test_commands_start_without_any_environment(prefix: Path, name: str) -> None:
    """Neither PATH nor HOME is needed: conmon calls a runtime with nothing but XDG_RUNTIME_DIR."""
    done = subprocess.run([prefix / "bin" / name, "--version"], env={}, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert "version" in done.stdout


@pytest.mark.parametrize("name", ["pyrun", "pyrun-oci"])
def test_commands_import_nothing_of_the_callers(prefix: Path, name: str, tmp_path: Path) -> None:
    """Modules in the working directory, in PYTHONPATH or in a wrong PYTHONHOME are never loaded: the working directory
    is often a bundle that somebody else made."""
    for module in ("os", "json", "pyrun", "sitecustomize", "usercustomize", "encodings"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('hostile code ran')\n")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py")}
    done = subprocess.run(
        [prefix / "bin" / name, "--version"], env=hostile, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_module_is_compiled(prefix: Path) -> None:
    """No start has to compile a module, whoever starts it and wherever it may not write."""
    packages = next((prefix / "lib/pyrun/current/lib").glob("python3*")) / "site-packages/pyrun"
    sources = list(packages.rglob("*.py"))
    assert len(sources) > 50
    missing = [str(path) for path in sources if not os.path.exists(importlib.util.cache_from_source(str(path)))]
    assert missing == []


def test_checkout_is_left_as_it_was(checkout_copy: Path, prefix: Path) -> None:
    """The build happens in a copy: no build folder, no egg-info, no object file in the checkout."""
    left = [
        path
        for path in checkout_copy.rglob("*")
        if path.suffix in (".egg-info", ".o", ".so") or path == checkout_copy / "build"
    ]
    assert left == []


def test_second_setup_builds_nothing(checkout_copy: Path, prefix: Path) -> None:
    """What is installed already is left alone, to the file."""
    before = {path: path.stat().st_mtime_ns for path in (prefix / "lib/pyrun/current").resolve().rglob("*")}
    assert "building" not in setup(checkout_copy, prefix).stderr
    assert {path: path.stat().st_mtime_ns for path in (prefix / "lib/pyrun/current").resolve().rglob("*")} == before


def test_newer_version_leaves_the_files_of_a_running_one(checkout_copy: Path, prefix: Path) -> None:
    """A monitor that runs from an old version can go on importing from it; a version that nobody uses is removed."""
    first = os.readlink(prefix / "lib/pyrun/current")
    library = next((prefix / "lib/pyrun" / first).rglob("_kernel*.so"))
    with subprocess.Popen(
        ["/usr/bin/python3", "-IS", "-c", HOLDER, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout
        assert user.stdout.readline() == b"mapped\n"
        source = checkout_copy / "runtime/__init__.py"
        for _ in range(2):  # twice, because the version before the current one is kept in any case
            source.write_text(source.read_text() + "\n# changed\n")
            setup(checkout_copy, prefix)
        assert library.exists()
        assert first != os.readlink(prefix / "lib/pyrun/current")
        user.communicate()
    source.write_text(source.read_text() + "\n# changed\n")
    setup(checkout_copy, prefix)
    assert first not in versions(prefix)
    assert len(versions(prefix)) == 2


def test_unknown_argument_is_refused(checkout_copy: Path) -> None:
    """A typing mistake installs nothing anywhere."""
    done = subprocess.run([checkout_copy / "scripts/setup", "--perfix", "/nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown argument '--perfix'" in done.stderr
