# SPDX-License-Identifier: Apache-2.0
"""top: the columns of ps(1), from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pyrun.runtime.engine import top
from pyrun.runtime.errors import UsageError


@pytest.fixture
def child() -> Iterator[int]:
    """A process with a strange command line."""
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "a b", "new\nline\x1b"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        yield process.pid
        process.kill()


def values(pid: int, *columns: str) -> dict[str, str]:
    (process,) = top.processes([pid])
    return {name: top.COLUMNS[name][1](process) for name in columns}


def test_columns_of_a_process(child: int) -> None:
    """What /proc says of a process, without control characters."""
    found = values(child, *top.COLUMNS)
    assert found["pid"] == str(child)
    assert found["ppid"] == str(os.getpid())
    assert found["uid"] == str(os.getuid())
    assert found["args"].endswith("a b new?line?")
    assert found["nspid"] == str(child)
    assert int(found["rss"]) > 0
    assert found["tty"] == "?" or found["tty"].startswith(("pts/", "tty"))
    assert all(found.values())


@pytest.mark.parametrize(
    "name", ["pid", "ppid", "pgid", "sid", "uid", "gid", "comm", "nlwp", "ni", "user", "group", "tty"]
)
def test_the_same_as_ps(child: int, name: str) -> None:
    """The host's ps prints the same."""
    done = subprocess.run(["ps", "-o", f"{name}=", "-p", str(child)], capture_output=True, text=True, check=True)
    assert values(child, name)[name] == done.stdout.strip()


def test_a_process_that_ended_is_left_out() -> None:
    """Between reading the cgroup and /proc anything may end."""
    assert top.processes([2**22 + 1]) == []


@pytest.mark.parametrize(
    ("options", "headings"),
    [
        ([], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (["-ef"], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (["aux"], ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]),
        (["-o", "pid,cmd"], ["PID", "COMMAND"]),
        (["-eo", "pid,%cpu,comm"], ["PID", "%CPU", "COMMAND"]),
        (["-opid"], ["PID"]),
        (["-o", "pid=inner,nspid"], ["INNER", "NSPID"]),
        (["-o pid,caps"], ["PID", "CAPS"]),
    ],
)
def test_ps_options(options: list[str], headings: list[str]) -> None:
    """docker passes these to ps; here they choose columns."""
    assert [heading for heading, _ in top.columns(options)] == headings


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-o", "pdi"], "unknown column 'pdi'"),
        (["-o"], "-o needs a list of columns"),
        (["--forest"], "unknown ps option '--forest'"),
        (["web"], "unknown ps option 'web'"),
    ],
)
def test_bad_ps_options(options: list[str], why: str) -> None:
    """A mistake names the word; nothing is passed to a program."""
    with pytest.raises(UsageError, match=f"top: {why}"):
        top.columns(options)
