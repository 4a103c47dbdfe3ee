# SPDX-License-Identifier: Apache-2.0
"""`pyrun run` killed with SIGKILL after each of its steps: nothing is left behind, and the same command works next."""

from __future__ import annotations

import itertools
import random
import socket
import subprocess
import time
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest

import leftovers
import machine
from half_started import (
    HalfStarted,
    NeverStopped,
    alive,
    assert_nothing_left,
    children,
    cmdline,
    kill,
    monitor_pid,
    until,
)
from pyrun.netns import firewall
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cli import Pyrun

pytestmark = requires(root=True)

NAME = "killed"


@pytest.fixture(scope="module")
def victim(make_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Pyrun:
    """A Pyrun whose monitor may be killed."""
    pyrun = make_pyrun()
    pyrun.ok("import", busybox_tar, "busybox")
    return pyrun


@pytest.fixture(scope="module")
def port() -> int:
    """A port of the host that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def arguments(port: int) -> tuple[str, ...]:
    """Everything that a start can leave behind: a name, a port, an address, an anonymous volume, a tmpfs."""
    options = ("--name", NAME, "-p", f"{port}:80", "-v", "/data", "--tmpfs", "/scratch", "--read-only", "-h", "host")
    return (*options, "busybox", "echo", "started")


def every_step(where: str) -> Iterator[str]:
    """host:1, host:2, … for ever: go_through() stops after the last one that there is."""
    return (f"{where}:{number}" for number in itertools.count(1))


# the first step of each area that takes something which outlives its process, and moments inside
HOST = ("rootfs", "cgroup", "ports", "process", "netns", "firewall", "monitor")
CONTAINER = ("netlink", "root-overlay", "pivot-root", "sync", "capabilities", "lookup")
# given back a quarter of a second after their container, for all at once (engine.network.sweep): looked for at the end
SWEPT = ("lease ", "network link ")
SAMPLE = [*(f"host:{area}" for area in HOST), *(f"container:{area}" for area in CONTAINER)]


def assert_works_again(pyrun: Pyrun, arguments: tuple[str, ...], after: str) -> None:
    """The same name and the same port can be had."""
    again = pyrun("run", "--rm", *arguments)
    assert (again.rc, again.out, again.err) == (0, "started\n", ""), f"after {after}: {again}"


def go_through(
    pyrun: Pyrun, arguments: tuple[str, ...], points: Iterable[str], act: Callable[[HalfStarted], None],
    before: Callable[[Pyrun], None] = lambda _: None,
) -> list[str]:  # fmt: skip
    """Stops a start at each of the points in turn, lets `act` do its worst, and looks at what remains.

    Gives what the starts said when they stopped: one line each.
    """
    met = []
    end: NeverStopped | None = None
    for point in points:
        before(pyrun)
        try:
            start = HalfStarted(pyrun, point, *arguments)
        except NeverStopped as found:
            end = found
            break
        act(start)
        at = f"{act.__name__} at {point}: {start.said}"
        assert_works_again(pyrun, arguments, at)
        start.assert_over()
        assert_nothing_left(pyrun, at, but=SWEPT)
        met.append(start.said)
    if end is not None and point.startswith("host:"):
        assert end.code == 0, str(end)
        pyrun.ok("rm", "-v", NAME)
    elif end is not None:
        assert "no such step" in end.said, str(end)
    assert_nothing_left(pyrun, f"{act.__name__} at all of {met}")
    return met


def assert_met(met: list[str], where: str, what: tuple[str, ...]) -> None:
    """Each of the things was among what was stopped at."""
    for one in what:
        assert any(f"stopped after {where}: " in line and one in line for line in met), f"no {one} among {met}"


def without_network(pyrun: Pyrun) -> None:
    """As before the very first start: no bridge, no nftables table."""
    for link in leftovers.links(pyrun.paths):
        subprocess.run(["ip", "link", "delete", str(link["ifname"])], check=True, timeout=60)
    firewall.remove(pyrun.paths)


def kill_worker(start: HalfStarted) -> None:
    """The process that carries out the start: the client must hear of it, and fail."""
    kill(start.worker)
    code, err = start.end()
    assert code != 0, f"the client ended as if all were well: {err}"
    assert "Traceback" not in err, err


def kill_client(start: HalfStarted) -> None:
    """The command that the user typed."""
    kill(start.client.pid)
    start.go_on(SIGTERM)
    start.end()


def kill_monitor(start: HalfStarted) -> None:
    """The monitor, whose death its workers hear of."""
    kill(start.monitor)
    start.go_on(SIGTERM)
    code, err = start.end()
    assert code == 125, err
    assert "Traceback" not in err, err


def kill_worker_and_monitor(start: HalfStarted) -> None:
    """Both at once: nobody is left who knows of the start."""
    kill(start.monitor)
    kill(start.worker)
    code, _ = start.end()
    assert code == 125


def kill_init(start: HalfStarted) -> None:
    """pyrun-init, in the container: the start fails, and says so."""
    assert start.init, "no pyrun-init"
    kill(start.init)
    start.go_on()
    code, err = start.end()
    assert code == 125, err
    assert err.count("pyrun: ") == 1, err
    assert "killed" in err, err


def test_worker_killed_after_each_step_of_the_host(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """kill -9 of the worker after every single host step leaves nothing, and the same run works."""
    met = go_through(victim, arguments, every_step("host"), kill_worker)
    assert_met(met, "host", ("create volume", "cgroup mkdir", "ports bind 0.0.0.0", "process clone3", "netns lease"))
    assert_met(met, "host", ("ip link add", "firewall create element", "monitor hand over"))


def test_worker_killed_after_each_step_of_the_first_start(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """The same where there is no bridge and no table yet: what is half made of them serves the next start."""
    met = go_through(victim, arguments, every_step("host"), kill_worker, before=without_network)
    assert_met(met, "host", ("ip link add pyrun0", "nft -f -", "firewall create element"))


def test_worker_killed_after_each_step_in_the_container(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """kill -9 of the worker after every single step of pyrun-init's: the half-made container ends by itself."""
    met = go_through(victim, arguments, every_step("container"), kill_worker)
    assert len(met) > 50
    assert_met(met, "container", ("mount -t overlay", "pivot_root", "hostname", "capset", "command -v", "seccomp"))


def test_init_killed(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """kill -9 of pyrun-init fails the start with one line."""
    points = [point for point in SAMPLE if point.startswith("container")]
    assert len(go_through(victim, arguments, points, kill_init)) == len(points)


def test_client_killed(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """kill -9 of the command itself, as a user would do it: the start is taken back."""
    assert len(go_through(victim, arguments, SAMPLE, kill_client)) == len(SAMPLE)


def test_monitor_killed(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """kill -9 of the monitor in the middle of a start: the worker takes the start back, the next command goes on."""
    assert len(go_through(victim, arguments, SAMPLE, kill_monitor)) == len(SAMPLE)


def test_worker_and_monitor_killed(victim: Pyrun, arguments: tuple[str, ...]) -> None:
    """kill -9 of both: the next command finds and removes all that they left."""
    assert len(go_through(victim, arguments, SAMPLE, kill_worker_and_monitor)) == len(SAMPLE)


@pytest.mark.parametrize("whom", ["worker", "client", "monitor"])
def test_killed_at_any_moment(victim: Pyrun, arguments: tuple[str, ...], whom: str) -> None:
    """No breakpoint this time: between the steps as well, and while the container runs or ends."""
    dice = random.Random(whom)
    hit = 0
    for _ in range(15):
        client = victim.popen("run", "--rm", *arguments)
        time.sleep(dice.uniform(0.02, 0.12) * machine.slowness())
        monitor = monitor_pid(victim)
        workers = [pid for pid in children(monitor) if "worker: run" in cmdline(pid)] if monitor else []
        targets = {"worker": workers, "client": [client.pid], "monitor": [monitor]}[whom]
        for pid in targets:
            if alive(pid):
                kill(pid)
                hit += 1
        client.communicate(timeout=30 * machine.slowness())
        if whom == "client":  # then it may be a container that runs, which has every right to its name
            until(lambda: not victim.ok("ps", "-aq"), "the container to end")
        assert_works_again(victim, arguments, f"kill -9 of the {whom}")
    assert hit, "the starts were too quick to be hit"
    assert_nothing_left(victim, f"kills of the {whom}")


@pytest.mark.parametrize("point", ["container:terminal", "container:reaper", "host:monitor"])
def test_worker_killed_with_a_terminal_and_an_init(victim: Pyrun, point: str) -> None:
    """The same for a detached start with a terminal and --init, which have steps of their own."""
    arguments = ("-d", "-t", "--init", "--name", NAME, "busybox", "sleep", "600")
    start = HalfStarted(victim, point, *arguments)
    kill_worker(start)
    victim.ok("run", *arguments)
    start.assert_over()
    victim.ok("rm", "-f", NAME)
    assert_nothing_left(victim, f"kill_worker at {start.said}")
