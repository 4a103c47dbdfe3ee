# SPDX-License-Identifier: Apache-2.0
"""A log that cannot be rotated: a container can use up the inodes, and `rm -f` takes the directory away."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pyrun.runtime.monitor.logs import LogWriter, render

if TYPE_CHECKING:
    from pathlib import Path

LINES = render(b"x" * 99 + b"\n", "stdout", 0)[0]


def test_a_failed_rotation_never_touches_another_file(tmp_path: Path) -> None:
    """The number of a closed descriptor is the next file's that anybody opens: here, another container's log."""
    directory, other = tmp_path / "log", tmp_path / "other"
    log = LogWriter(str(directory), max_size_bytes=1, max_files=2)
    log.append(LINES)
    shutil.rmtree(directory)
    with pytest.raises(FileNotFoundError):
        log.make_room(len(LINES))
    fd = os.open(other, os.O_RDWR | os.O_CREAT)
    log.append(LINES)
    with pytest.raises(FileNotFoundError):
        log.make_room(len(LINES))
    log.close()
    assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_a_failed_rotation_keeps_the_old_files(tmp_path: Path) -> None:
    """Tried again with every batch, it must not push one good file after the other out of the bound."""
    log = LogWriter(str(tmp_path), max_size_bytes=1, max_files=3)
    for _ in range(3):
        log.make_room(len(LINES))
        log.append(LINES)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    (tmp_path / "json.log.new").mkdir()  # in the way, as a disk without inodes is
    for _ in range(5):
        with pytest.raises(IsADirectoryError):
            log.make_room(len(LINES))
        log.append(LINES)
    (tmp_path / "json.log.new").rmdir()
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    assert log.make_room(len(LINES))
    log.close()
