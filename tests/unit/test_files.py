# SPDX-License-Identifier: Apache-2.0
"""Files that are never half written, private directories, locks (runtime/files.py, invariant 5)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pyrun.runtime.files import Lock, private_dir, read_json, write_atomic, write_json


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_dir_keeps_every_new_parent_private(tmp_path: Path) -> None:
    """Nobody else may list any directory that it makes, whatever the umask; what was there stays as it was."""
    before = os.umask(0)
    try:
        made = private_dir(f"{tmp_path}/var/lib/pyrun")
    finally:
        os.umask(before)
    assert made == f"{tmp_path}/var/lib/pyrun"
    assert [mode(tmp_path / part) for part in ("var", "var/lib", "var/lib/pyrun")] == [0o700] * 3
    (tmp_path / "var").chmod(0o755)
    private_dir(made)
    assert mode(tmp_path / "var") == 0o755


def test_private_dir_refuses_a_file(tmp_path: Path) -> None:
    """A file of that name, or in the place of a parent, is an error."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError):
        private_dir(f"{tmp_path}/taken")
    with pytest.raises(NotADirectoryError):
        private_dir(f"{tmp_path}/taken/below")


def test_write_atomic_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    """The new content is there, with the mode that was asked for, and nothing else in the directory."""
    target = tmp_path / "state.json"
    write_atomic(str(target), b"old")
    write_atomic(str(target), b"new", mode=0o644)
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["state.json"]


def test_write_atomic_that_fails_keeps_the_old_content() -> None:
    """A write that fails half way (here at RLIMIT_FSIZE, on a full disk the same way) leaves the old content, and no
    temporary file beside it."""
    code = """
import os, resource, signal, sys, tempfile
from pyrun.runtime.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with tempfile.TemporaryDirectory() as directory:
    path = f"{directory}/state.json"
    write_atomic(path, b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        write_atomic(path, b"x" * 10000)
    except OSError as error:
        print(error.errno, open(path).read(), os.listdir(directory))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "27 old ['state.json']\n"  # 27: EFBIG


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    """Names that are not ASCII stay readable in the file."""
    path = f"{tmp_path}/value.json"
    write_json(path, {"name": "größe", "list": [1, 2]})
    assert read_json(path) == {"name": "größe", "list": [1, 2]}
    assert "größe" in Path(path).read_text(encoding="utf-8")


def test_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    """While one holds it another one that will not wait gets BlockingIOError; afterwards it is free."""
    path = f"{tmp_path}/lock"
    with Lock(path), pytest.raises(BlockingIOError), Lock(path, blocking=False):
        pass
    with Lock(path, blocking=False):
        pass


def test_lock_may_be_shared(tmp_path: Path) -> None:
    """Readers hold it together; a writer has to wait for them."""
    path = f"{tmp_path}/lock"
    with (
        Lock(path, shared=True),
        Lock(path, shared=True, blocking=False),
        pytest.raises(BlockingIOError),
        Lock(path, blocking=False),
    ):
        pass
