# SPDX-License-Identifier: Apache-2.0
"""Calls programs, and compares what takes how long: A B C, B C A, C A B … in one process.

call(argv)              one program to its end: seconds, exit code, output
together(argvs, n)      many programs, n at a time
compare(jobs, rounds)   one sample of every job in each round
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What one command leaves behind for its daemon to do must not be charged to the next: docker's client returns before
# the container's cgroups and interfaces are gone.
PAUSE_S = 0.1


class Failed(Exception):
    """A program did not do what was asked of it, so that its time means nothing."""


@dataclass(frozen=True)
class Result:
    """How one call ended; `seconds` from before the spawn until its exit was seen."""

    argv: tuple[str, ...]
    seconds: float
    code: int
    output: str  # stdout and stderr together

    def ok(self, expected: int = 0) -> Result:
        """Itself. Raises Failed when the exit code is another one."""
        if self.code != expected:
            raise Failed(f"{' '.join(self.argv)}\nended with {self.code}, not {expected}:\n{self.output}")
        return self


def call(argv: Sequence[str], *, env: Mapping[str, str]) -> Result:
    """Runs a program to its end, with /dev/null for its input. The output goes to memory, so that nobody has to read
    while the clock runs."""
    output = os.memfd_create("output")
    try:
        begin = time.perf_counter()
        pid = spawn(argv, env, output)
        _, status = os.waitpid(pid, 0)
        seconds = time.perf_counter() - begin
        size = os.lseek(output, 0, os.SEEK_END)
        text = os.pread(output, size, 0).decode("utf-8", "replace")
    finally:
        os.close(output)
    return Result(tuple(argv), seconds, os.waitstatus_to_exitcode(status), text)


def spawn(argv: Sequence[str], env: Mapping[str, str], output: int) -> int:
    """The pid of a new process whose stdout and stderr are `output`. Raises FileNotFoundError."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    return os.posix_spawnp(argv[0], list(argv), dict(env), file_actions=actions)


def together(argvs: Sequence[Sequence[str]], at_a_time: int, *, env: Mapping[str, str]) -> float:
    """Seconds that all of them took, with so many at a time. Raises Failed when one of them ended with an error."""
    waiting = list(reversed(argvs))
    running: dict[int, Sequence[str]] = {}
    output = os.memfd_create("output")
    try:
        begin = time.perf_counter()
        while waiting or running:
            while waiting and len(running) < at_a_time:
                argv = waiting.pop()
                running[spawn(argv, env, output)] = argv
            pid, status = os.wait()  # may also be an orphan's: this process is PID 1 of its namespace
            argv = running.pop(pid, ())
            if argv and status:
                text = os.pread(output, 1 << 20, 0).decode("utf-8", "replace")
                raise Failed(
                    f"{' '.join(argv)}\nended with {os.waitstatus_to_exitcode(status)}; all of them said:\n{text}"
                )
        return time.perf_counter() - begin
    finally:
        os.close(output)


def compare(jobs: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """`rounds` samples of every job: each round has one of each, in an order that rotates, so that samples of the same
    round can be compared with each other. What the jobs return in the first rounds is not counted."""
    names = list(jobs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            reap_orphans()
            time.sleep(PAUSE_S)
            value = jobs[name]()
            if number >= 0:
                samples[name].append(value)
    return samples


def reap_orphans() -> None:
    """Meets the zombies of this PID 1 that nobody waits for: to be called when no program of ours runs."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return


def wait_for_exit(pid: int, patience_s: float = 10.0) -> None:
    """Returns when a process (not necessarily ours) is gone, zombies included if it is ours. Raises Failed."""
    deadline = time.monotonic() + patience_s
    while os.path.exists(f"/proc/{pid}"):
        reap_orphans()
        if time.monotonic() > deadline:
            raise Failed(f"process {pid} does not end")
        time.sleep(0.005)
