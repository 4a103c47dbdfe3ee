# SPDX-License-Identifier: Apache-2.0
"""Commands on containers killed with SIGKILL at any moment: a container is then there, whole, or not there at all."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

import leftovers
import machine
from half_started import HalfStarted, alive, assert_nothing_left, children, cmdline, kill, monitor_pid, until
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli import Pyrun

pytestmark = requires(root=True)

NAME = "target"
ROUNDS = 12


@pytest.fixture(scope="module")
def victim(make_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Pyrun:
    """A Pyrun whose workers are killed."""
    pyrun = make_pyrun()
    pyrun.ok("import", busybox_tar, "busybox")
    pyrun.ok("run", "--rm", "busybox", "true")
    return pyrun


@pytest.fixture(autouse=True)
def clean(victim: Pyrun) -> Iterator[None]:
    """A test that fails does not fail the next one."""
    yield
    leftovers.remove_containers(victim)


def killed(pyrun: Pyrun, dice: random.Random, longest_s: float, *words: str) -> bool:
    """Runs a command and kills its worker after a while; whether the worker was met."""
    client = pyrun.popen(*words)
    time.sleep(dice.uniform(0.01, longest_s) * machine.slowness())
    workers = [pid for pid in children(monitor_pid(pyrun)) if cmdline(pid) == f"pyrun: worker: {words[0]}"]
    for pid in workers:
        kill(pid)
    _, err = client.communicate(timeout=30 * machine.slowness())
    assert b"Traceback" not in err, err.decode()
    return bool(workers)


def state(pyrun: Pyrun) -> str:
    """The container's status; "" when there is none."""
    shown = pyrun("inspect", "-f", "{{.State.Status}}", NAME)
    assert shown.rc == 0 or "no such object" in shown.err, str(shown)
    return shown.out.strip()


def settled(pyrun: Pyrun) -> str:
    """The container's status when the monitor's recovery, which a killed worker sets off, is through."""
    until(lambda: not [pid for pid in children(monitor_pid(pyrun)) if "worker" in cmdline(pid)], "workers to end")
    return state(pyrun)


CREATE = ("create", "--name", NAME, "-v", "/data", "-p", "80", "busybox", "sleep", "600")


def test_create_killed(victim: Pyrun) -> None:
    """The container can be started, or its name is free."""
    dice, met = random.Random(1), 0
    for _ in range(ROUNDS):
        met += killed(victim, dice, 0.06, *CREATE)
        found = settled(victim)
        assert found in ("created", "")
        if not found:
            victim.ok(*CREATE)
        victim.ok("start", NAME)
        assert state(victim) == "running"
        victim.ok("rm", "-f", "-v", NAME)
        assert_nothing_left(victim, "a killed create")
    assert met


def test_start_killed(victim: Pyrun) -> None:
    """A container that was there before stays; it runs or does not, and can be started and removed."""
    dice, met = random.Random(2), 0
    for _ in range(ROUNDS):
        victim.ok(*CREATE)
        met += killed(victim, dice, 0.1, "start", NAME)
        found = settled(victim)
        assert found in ("created", "exited", "running")
        if found == "running":
            assert alive(int(victim.ok("inspect", "-f", "{{.State.Pid}}", NAME)))
        else:
            assert leftovers.container_cgroups(victim.paths) == []
            assert leftovers.port_elements(victim.paths) == []
        victim.ok("start", NAME) if found != "running" else None
        assert victim.ok("exec", NAME, "echo", "there") == "there"
        victim.ok("rm", "-f", "-v", NAME)
        assert_nothing_left(victim, "a killed start")
    assert met


def test_rm_killed(victim: Pyrun) -> None:
    """It is there or it is gone; in the end it can be removed, and nothing of it is left."""
    dice, met = random.Random(3), 0
    for _ in range(ROUNDS):
        victim.ok("run", "-d", *CREATE[1:])
        met += killed(victim, dice, 0.1, "rm", "-f", "-v", NAME)
        found = settled(victim)
        assert found in ("running", "exited", "")
        listed = victim("ps", "-a", "--format", "{{.Names}}")
        assert (listed.rc, listed.err) == (0, ""), str(listed)
        assert listed.out.split() == ([NAME] if found else [])
        if found:
            victim.ok("rm", "-f", "-v", NAME)
        assert_nothing_left(victim, "a killed rm")
    assert met


def test_restart_killed(victim: Pyrun) -> None:
    """Stopped or running, never in between: it can be restarted again."""
    dice, met = random.Random(4), 0
    victim.ok("run", "-d", *CREATE[1:])
    for _ in range(ROUNDS):
        met += killed(victim, dice, 0.15, "restart", "-t", "0", NAME)
        assert settled(victim) in ("running", "exited")
        victim.ok("restart", "-t", "0", NAME)
        assert victim.ok("exec", NAME, "echo", "there") == "there"
    victim.ok("rm", "-f", "-v", NAME)
    assert_nothing_left(victim, "killed restarts")
    assert met


def test_exec_killed(victim: Pyrun) -> None:
    """The container goes on, and so does the next exec."""
    dice = random.Random(5)
    victim.ok("run", "-d", *CREATE[1:])
    pid = int(victim.ok("inspect", "-f", "{{.State.Pid}}", NAME))
    for _ in range(ROUNDS):
        killed(victim, dice, 0.06, "exec", NAME, "sleep", "0.01")
        assert victim.ok("exec", NAME, "echo", "there") == "there"
    assert alive(pid)
    assert state(victim) == "running"
    until(lambda: victim.ok("top", NAME).count("\n") == 1, "the processes of killed execs to be gone")
    victim.ok("rm", "-f", "-v", NAME)
    assert_nothing_left(victim, "killed execs")


def test_recovery_leaves_other_starts_alone(victim: Pyrun) -> None:
    """While the remains of a killed start are removed, others start and run as if nothing had happened."""
    victim.ok("run", "-d", *CREATE[1:])
    pid = int(victim.ok("inspect", "-f", "{{.State.Pid}}", NAME))
    for point in ("host:cgroup", "host:netns", "host:firewall", "host:monitor"):
        start = HalfStarted(victim, point, "--name", "dead", "-p", "80", "busybox", "sleep", "600")
        others = [victim.popen("run", "--rm", "-p", "80", "busybox", "echo", f"other {n}") for n in range(6)]
        kill(start.worker)
        start.end()
        for n, other in enumerate(others):
            out, err = other.communicate(timeout=60 * machine.slowness())
            assert (other.returncode, out) == (0, f"other {n}\n".encode()), err.decode()
        start.assert_over()
    assert alive(pid)
    assert victim.ok("ps", "-a", "--format", "{{.Names}}") == NAME
    victim.ok("rm", "-f", "-v", NAME)
    assert_nothing_left(victim, "recoveries beside other starts")
