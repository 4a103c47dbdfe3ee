# SPDX-License-Identifier: Apache-2.0
"""The `pyrun` command as a test calls it: Pyrun("…/bin/pyrun", paths)("run", "--rm", image, "true").rc"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import machine

if TYPE_CHECKING:
    from pyrun.runtime.paths import Paths

OFFLINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "offline.toml")


@dataclass(frozen=True)
class Result:
    """How one call ended: exit code, standard output, standard error."""

    args: tuple[str, ...]
    rc: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"pyrun {' '.join(self.args)}\nexit code {self.rc}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Pyrun:
    """Calls one `pyrun` command on one pair of roots."""

    def __init__(self, command: str, paths: Paths) -> None:
        self.command = command
        self.paths = paths

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a call: this process's, with the roots in it, and no way to Docker Hub."""
        roots = {"PYRUN_DATA_ROOT": self.paths.data, "PYRUN_RUN_ROOT": self.paths.run}
        return {**os.environ, "PYRUN_REGISTRIES": OFFLINE, **roots}

    def __call__(
        self,
        *args: str,
        stdin: str | None = None,
        timeout: float = 60,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
    ) -> Result:
        """Runs to the end. `stdin` is text for its standard input (else /dev/null); `timeout` is in seconds of an
        ordinary machine; `env` is added to the environment. Raises subprocess.TimeoutExpired."""
        done = subprocess.run(
            [self.command, *args],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout * machine.slowness(),
            env={**self.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
        return Result(args, done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str, stdin: str | None = None, timeout: float = 60, env: dict[str, str] | None = None) -> str:
        """Runs to the end, asserts exit code 0, and gives standard output without the newlines at its end."""
        result = self(*args, stdin=stdin, timeout=timeout, env=env)
        assert result.rc == 0, str(result)
        return result.out.rstrip("\n")

    def popen(self, *args: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts it and returns at once, with all three standard streams as pipes; the test waits for or kills it."""
        return subprocess.Popen(
            [self.command, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.environ, **(env or {})},
        )
