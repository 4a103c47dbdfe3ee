# SPDX-License-Identifier: Apache-2.0
"""A `pyrun run` that has stopped after one of its steps (PYRUN_BREAK), so that a test can kill anybody just there."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import leftovers
import machine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any

    from cli import Pyrun

SOON_S = 20.0
INITS = ("pyrun-init", "pyrun-reaper")


class NeverStopped(Exception):
    """The start has no such step, or not so many. `code` and `said`: how the command ended."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"exit code {code}: {said}")
        self.code = code
        self.said = said


class HalfStarted:
    """Started by `HalfStarted(pyrun, "host:3", "--name", "x", …)`; everybody in it can be killed by pid."""

    def __init__(self, pyrun: Pyrun, point: str, *args: str) -> None:
        self.pyrun = pyrun
        self.client: subprocess.Popen[bytes] = pyrun.popen("run", *args, env={"PYRUN_BREAK": point})
        assert self.client.stderr is not None
        self.said = ""
        while not (line := self.client.stderr.readline()).startswith(b"hint: kill -CONT"):
            self.said += line.decode()
            if not line:
                raise NeverStopped(self.client.wait(), self.said)
        self.worker = int(line.split()[3])
        until(lambda: state_of(self.worker) == "T", f"the worker of {point} to stop")
        self.monitor = monitor_pid(pyrun)
        self.init = next((pid for pid in children(self.monitor) if comm(pid) in INITS), 0)

    def go_on(self, with_signal: int = 0) -> None:
        """The worker goes on, if it is still there; once the signal that it is to be sent has reached it."""
        if with_signal:
            until(lambda: pending(self.worker) >> (with_signal - 1) & 1, f"signal {with_signal} for the worker")
        try:
            os.kill(self.worker, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def end(self) -> tuple[int, str]:
        """Waits for the client; its exit code and what it said since it stopped."""
        _, err = self.client.communicate(timeout=SOON_S * machine.slowness())
        return self.client.returncode, err.decode()

    def assert_over(self) -> None:
        """No process of this start is left."""
        until(lambda: not alive(self.worker), f"worker {self.worker} to end")
        if self.init:
            until(lambda: not alive(self.init), f"pyrun-init {self.init} to end")


def kill(pid: int) -> None:
    """kill -9."""
    os.kill(pid, signal.SIGKILL)


def monitor_pid(pyrun: Pyrun) -> int:
    """The pid of the instance's monitor; 0 when none has been started."""
    if not os.path.exists(f"{pyrun.paths.run}/monitor.pid"):
        return 0
    with open(f"{pyrun.paths.run}/monitor.pid", encoding="ascii") as file:
        return int(file.read() or 0)  # just being written


def stat_fields(pid: int) -> list[str]:
    """proc(5) stat from field 3 (state) on; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state_of(pid: int) -> str:
    """R, S, T, Z…; "" for no such process."""
    return next(iter(stat_fields(pid)), "")


def pending(pid: int) -> int:
    """The mask of the signals that the process has not handled yet (proc(5), status, ShdPnd)."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("ShdPnd:"))


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    return state_of(pid) not in ("", "Z", "X")


def comm(pid: int) -> str:
    """The process's name; "" for no such process."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cmdline(pid: int) -> str:
    """Its command line, or the title that it gave itself."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    """The live children of a process."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        fields = stat_fields(int(name))
        if len(fields) > 1 and int(fields[1]) == pid and fields[0] not in "ZX":
            found.append(int(name))
    return found


def until(what: Callable[[], Any], why: str, timeout_s: float = SOON_S) -> Any:
    """The first true value of what()."""
    deadline = time.monotonic() + timeout_s * machine.slowness()
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {why}"
        time.sleep(0.005)
    return value


def assert_nothing_left(pyrun: Pyrun, after: str, *, but: tuple[str, ...] = ()) -> None:
    """No container, name, cgroup, veth, lease, port-map element, run directory, mount or process of a start is left.

    What cleans up works behind the command that was answered, so it gets a while. `but`: beginnings of lines that do
    not matter yet.
    """
    deadline = time.monotonic() + 10 * machine.slowness()
    while left := [line for line in everything_left(pyrun) if not line.startswith(but)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not left, f"left behind after {after}:\n" + "\n".join(left)


def everything_left(pyrun: Pyrun) -> list[str]:
    """leftovers.found(), names, volumes, and the processes that only a start has."""
    names = [name for name in leftovers.entries(f"{pyrun.paths.data}/names") if name != ".lock"]
    volumes = [name for name in leftovers.entries(f"{pyrun.paths.data}/volumes") if name != "lock"]
    workers = [pid for pid in children(monitor_pid(pyrun) or -1) if comm(pid) in (*INITS, "pyrun-worker")]
    return [
        *(f"name {name}" for name in names),
        *(f"volume {name}" for name in volumes),
        *(f"process {pid} {cmdline(pid)}" for pid in workers),
        *leftovers.found(pyrun.paths),
    ]
