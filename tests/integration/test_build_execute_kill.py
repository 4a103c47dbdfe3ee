# SPDX-License-Identifier: Apache-2.0
"""A build's worker killed with SIGKILL at every step of a RUN: recover() removes all, and leaves living ones alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import build_steps
import half_started
import leftovers
import machine
from pyrun.rootfs.layers import Layers
from pyrun.runtime import events
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.build import cache_mounts
from pyrun.runtime.engine.build.execute import RunRequest, execute
from pyrun.runtime.engine.build.mounts import RunMount
from pyrun.runtime.engine.finish import recover
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_steps import Steps
    from cli import Pyrun
    from pyrun.runtime.events import Event
    from pyrun.runtime.paths import Paths

pytestmark = requires(root=True)

MOUNTS = (
    RunMount("cache", "/cache", readonly=False, sharing="locked"),
    RunMount("secret", "/run/secrets/x", content=b"s3cret"),
    RunMount("tmpfs", "/scratch"),
)


forked: list[int] = []


@pytest.fixture
def steps(pyrun: Pyrun, base_image: str) -> Iterator[Steps]:
    """Steps on the busybox image. The processes of a test that has failed are killed, and cleaned up behind."""
    yield build_steps.of_image(pyrun.paths, base_image)
    while forked:
        kill_and_reap(forked.pop())
    recover(pyrun.paths)


def kill_and_reap(pid: int) -> None:
    """kill -9 of a child, if it has not ended."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def fork_step(steps: Steps, script: str, die_at: int = 0) -> int:
    """A process that runs a step and kills itself right after the host's `die_at`th event (0: never); its pid."""
    pid = os.fork()
    if pid:
        forked.append(pid)
        return pid
    try:
        seen = 0

        def count(event: Event) -> None:
            nonlocal seen
            seen += event.where == "host"
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        events.set_sink(count if die_at else None)
        request = RunRequest(
            ("/bin/sh", "-c", script), env=(build_steps.PATH,), lowers=steps.lowers, mounts=MOUNTS, network="default"
        )
        with Layers(f"{steps.paths.data}/layers").scratch() as scratch:
            result = execute(steps.paths, request, scratch, lambda _name, _data: None, cancel=threading.Event())
        os._exit(result.exit_code)
    except BaseException:
        os._exit(99)


def assert_recovered(paths: Paths, after: str) -> None:
    """recover() leaves nothing of a step: neither on the machine nor below the roots; its cache can be had again."""
    for _ in range(2):  # a process that is only just ending may hold its cgroup the first time
        recover(paths)
    left = leftovers.lasting(paths)
    left += [f"in the run root: {name}" for name in os.listdir(paths.run) if leftovers.is_container_id(name)]
    assert not left, f"left behind after {after}:\n" + "\n".join(left)
    cache_mounts.claim(paths, "/cache", "locked", "", lambda _: None).close()


def test_killed_after_each_of_its_steps(steps: Steps) -> None:
    """Whatever the worker was at: the start, the end, anything between."""
    for die_at in range(1, 200):
        pid = fork_step(steps, "echo x >/file; echo y >/cache/y", die_at)
        _, status = os.waitpid(pid, 0)
        forked.remove(pid)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), code
        assert_recovered(steps.paths, f"step {die_at}")
        if code == 0:
            break
    assert die_at > 12


def test_killed_in_the_middle(steps: Steps) -> None:
    """The program and what it started go with the worker, at the next recover()."""
    pid = fork_step(steps, "trap '' TERM HUP; sleep 1000 & sleep 1000")
    inside = build_steps.wait_until_running(steps.paths)
    kill_and_reap(pid)
    assert half_started.alive(inside)
    assert_recovered(steps.paths, "kill -9 in the middle")
    half_started.until(lambda: not half_started.alive(inside), "the program to end")


def test_recover_leaves_a_living_workers_step_alone(steps: Steps) -> None:
    """It keeps its address, its interface and its cgroup, and ends as it would have."""
    ran: list[build_steps.Ran] = []
    script = "sleep 1.5; ip -4 addr show eth0 | grep inet; cat /sys/fs/cgroup/cgroup.procs | wc -l; echo done"
    thread = threading.Thread(target=lambda: ran.append(steps.sh(script, network="default")))
    thread.start()
    build_steps.wait_until_running(steps.paths)
    for _ in range(3):
        recover(steps.paths)
        time.sleep(0.1)
    assert leftovers.leases(steps.paths)
    assert leftovers.veths(steps.paths)
    thread.join(20 * machine.slowness())
    assert ran[0].out.endswith("done\n")
    assert "inet " in ran[0].out


def test_recover_does_not_wait_for_a_step(steps: Steps) -> None:
    """A step that runs for minutes, or waits for a cache, holds up nobody."""
    holder = fork_step(steps, "sleep 1000")
    build_steps.wait_until_running(steps.paths)
    waiting = fork_step(steps, "true")
    half_started.until(lambda: len(c.ContainerStore(steps.paths).ids()) == 2, "the step to wait for its cache")
    begun = time.monotonic()
    recover(steps.paths)
    assert time.monotonic() - begun < 5 * machine.slowness()
    assert len(c.ContainerStore(steps.paths).ids()) == 2
    kill_and_reap(holder)
    assert os.waitpid(waiting, 0)[1] == 0
    assert_recovered(steps.paths, "a step that had to wait")
