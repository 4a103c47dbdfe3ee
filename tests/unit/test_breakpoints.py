# SPDX-License-Identifier: Apache-2.0
"""PYRUN_BREAK: which step it means, and that the process stops just after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pyrun.runtime import breakpoints
from pyrun.runtime.errors import UsageError
from pyrun.runtime.oci import plan, steps
from pyrun.runtime.oci.launch import Launch

AREAS = ("proc-handle", "mount", "mount", "pivot-root", "exec")


@pytest.mark.parametrize(
    ("value", "position"),
    [
        ("", 0),
        ("host:3", 0),
        ("container:1", 1),
        ("container:4", 4),
        ("container:mount", 2),
        ("container:pivot-root", 4),
    ],
)
def test_position(monkeypatch: pytest.MonkeyPatch, value: str, position: int) -> None:
    """How many steps come before it, by number and by the first of an area."""
    monkeypatch.setenv("PYRUN_BREAK", value)
    assert breakpoints.position(AREAS) == position


@pytest.mark.parametrize("point", ["0", "5", "6", "exec", "nope", "-1", "1_0", "٣", " 1"])
def test_no_such_step(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """A number that there is not, an unknown area, and exec, after which the program runs."""
    monkeypatch.setenv("PYRUN_BREAK", f"container:{point}")
    with pytest.raises(UsageError, match="this plan has no such step"):
        breakpoints.position(AREAS)


@pytest.mark.parametrize("value", ["7", "host", "host:", ":7", "guest:7"])
def test_not_a_breakpoint(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """What is wrong is said for either side."""
    monkeypatch.setenv("PYRUN_BREAK", value)
    with pytest.raises(UsageError, match="not a breakpoint"):
        breakpoints.watch_host()
    with pytest.raises(UsageError, match="not a breakpoint"):
        breakpoints.position(AREAS)


def test_plan_gets_a_sync_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the step, and nowhere without the variable."""
    made = plan.Plan(0, (), (steps.Umask(0o22), steps.Hostname("a"), steps.Umask(0), steps.Exec(("sh",), ())))
    assert Launch(made, {}).plan is made
    monkeypatch.setenv("PYRUN_BREAK", "container:hostname")
    found = [step.op for step in Launch(made, {}).plan.steps]
    assert found == ["UMASK", "HOSTNAME", "SYNC", "UMASK", "EXEC"]


PROGRAM = """
from pyrun.runtime import breakpoints, events
events.set_sink(lambda event: print(event.what, flush=True))
breakpoints.watch_host()
steps = [("host", "a", "one"), ("container", "b", "two"), ("host", "b", "three"), ("host", "b", "four")]
for where, area, what in steps:
    events.emit(events.Event(where, area, what, 0.0))
"""


@pytest.mark.parametrize(
    ("value", "last"), [("host:1", "one"), ("host:2", "three"), ("host:b", "three"), ("host:3", "four")]
)
def test_process_stops_after_the_host_step(value: str, last: str) -> None:
    """Once; the sink that was there has seen the step; SIGCONT lets it go on to the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYRUN_BREAK": value},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it did not stop"
        assert os.WSTOPSIG(status) == signal.SIGSTOP
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.split() == ["one", "two", "three", "four"]
    assert err.splitlines()[0].endswith(last)
    assert err.splitlines()[1:] == [f"hint: kill -CONT {process.pid} goes on"]
