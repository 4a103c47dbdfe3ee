# SPDX-License-Identifier: Apache-2.0
"""A monitor of its own for one test: roots, clients as subprocesses, and ways to kill what must not matter."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import monitor_double
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.monitor import client, logread, spawn
from pyrun.runtime.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable

SOON_S = 20.0


def until(what: Callable[[], Any], timeout_s: float = SOON_S) -> Any:
    """The first true value of what(); fails after the time-out."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie that nobody has reaped yet counts)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Stage:
    """Use as a context manager; at its end nothing of it is left running."""

    def __init__(self) -> None:
        base = tempfile.mkdtemp(prefix="pyrun-monitor-")
        self.base = base
        self.paths = Paths(f"{base}/data", f"{base}/run")
        self.environ = {**os.environ, "PYRUN_MONITOR_IDLE_S": "60", "PYTHONDONTWRITEBYTECODE": "1"}
        os.mkdir(self.paths.data)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, monitor_double.__file__, self.paths.data, self.paths.run, *words]

    def client(self, *words: str, **how: Any) -> subprocess.CompletedProcess[Any]:
        how = {"env": self.environ, "capture_output": True, "text": True, "timeout": 60, **how}
        return subprocess.run(self.command(*words), check=False, **how)

    def popen(self, *words: str, **how: Any) -> subprocess.Popen[Any]:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        how = {"env": self.environ, **streams, **how}
        return subprocess.Popen(self.command(*words), **how)

    def start_monitor(self, **environ: str) -> int:
        """A monitor with more in its environment; its pid."""
        done = self.client("say", "", "", env={**self.environ, **environ})
        assert done.returncode == 3, done.stderr + self.log_text()
        return self.monitor_pid()

    def monitor_pid(self) -> int:
        return int(Path(self.paths.run, "monitor.pid").read_text())

    def kill_monitor(self) -> int:
        pid = self.monitor_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))
        return pid

    def call(self, name: str, *, start: bool = False, **args: Any) -> Any:
        return client.request(self.paths, {"call": name, **args}, start=start)

    def sessions(self) -> dict[str, dict[str, Any]]:
        return {one["id"]: one for one in self.call("sessions")}

    def asked(self, what: str) -> list[dict[str, Any]]:
        """What the monitor asked of its Double so far."""
        try:
            lines = Path(self.paths.data, "asked").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [one for one in map(json.loads, lines) if one["what"] == what]

    def log_text(self) -> str:
        path = Path(self.paths.run, "monitor.log")
        return path.read_text() if path.exists() else "(no monitor.log)"

    def entries(self, name: str) -> list[logread.Entry]:
        return list(logread.read(f"{self.paths.container(name)}/log"))

    def output(self, name: str, stream: str = "stdout") -> bytes:
        """What the log holds of a stream."""
        return b"".join(one.data for one in self.entries(name) if one.stream == stream)

    def keeper_pids(self) -> list[int]:
        """The keepers whose socket is ours."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if Path(f"/proc/{pid}/comm").read_text() == "pyrun-keeper\n" and self._serves(pid):
                    found.append(int(pid))
            except OSError:
                continue
        return found

    def _serves(self, pid: str) -> bool:
        inode = os.readlink(f"/proc/{pid}/fd/3")[8:-1]
        lines = Path("/proc/net/unix").read_text().splitlines()
        return any(line.split()[6] == inode and line.endswith(f"{self.paths.run}/keeper.sock") for line in lines)

    def __enter__(self) -> Stage:
        spawn.ENTRY = "monitor_double"
        self._path = list(sys.path)
        sys.path.insert(0, str(Path(monitor_double.__file__).parent))
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.keeper_pids():
                os.environ["PYRUN_MONITOR_IDLE_S"] = "60"
                for session in self.call("sessions", start=True):
                    self.call("cancel-restart", id=session["id"])
                    self.call("signal", id=session["id"], signal=signal.SIGKILL)
                until(lambda: not self.call("sessions"))
            try:
                self.call("stop-monitor")
            except PyrunError:
                pass
            until(lambda: not self.keeper_pids())
        finally:
            sys.path[:] = self._path
            shutil.rmtree(self.base)
