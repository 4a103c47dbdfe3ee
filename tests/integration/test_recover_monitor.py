# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the monitor while containers run: nothing stops, nothing is lost, nothing is invented, and it goes on."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

import leftovers
import machine
from half_started import alive, children, cmdline, everything_left, kill, monitor_pid, until
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)

# Since this kernel a pidfd tells how a process ended that somebody else has reaped (PIDFD_GET_INFO)
EXIT_CODES_SURVIVE = machine.kernel_version() >= (6, 15)

# Tens of thousands of lines a second on both streams, until /stop is there; the last line says how many there were
WRITER = """
n=0
while [ ! -e /stop ]; do
  i=0
  while [ $i -lt 50 ]; do n=$((n+1)); i=$((i+1)); echo "out $n of a line that is long enough"; echo "err $n" >&2; done
  usleep 1000
done
echo "last $n"
exit 7
"""

SERVER = "while true; do echo hello | nc -l -p 80; done"


@pytest.fixture
def crash(other_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Pyrun:
    """A Pyrun whose monitor may be killed."""
    pyrun = other_pyrun()
    pyrun.ok("import", busybox_tar, "busybox")
    return pyrun


def kill_monitor(pyrun: Pyrun) -> int:
    """SIGKILL; returns when it is dead."""
    pid = monitor_pid(pyrun)
    assert alive(pid), "no monitor runs"
    kill(pid)
    until(lambda: not alive(pid), "the monitor to be dead")
    return pid


def next_command(pyrun: Pyrun, former: int) -> None:
    """Some command that needs a monitor; there must be a new one then."""
    refused = pyrun("start", "no-such-container")
    assert refused.err.startswith("pyrun: no such container 'no-such-container'"), str(refused)
    assert monitor_pid(pyrun) != former
    assert alive(monitor_pid(pyrun))


def pid_of(pyrun: Pyrun, name: str) -> int:
    return int(pyrun.ok("inspect", "-f", "{{.State.Pid}}", name))


def assert_whole(pyrun: Pyrun, name: str) -> int:
    """Every line of both streams is in the log, once, in order; the number of lines."""
    shown = pyrun("logs", name, timeout=120)
    assert shown.rc == 0, str(shown)[:2000]
    out, err = shown.out.splitlines(), shown.err.splitlines()
    assert out, "nothing was logged"
    count = int(out[-1].removeprefix("last "))
    for lines, form in ((out[:-1], "out {} of a line that is long enough"), (err, "err {}")):
        wrong = next((n for n in range(max(len(lines), count)) if lines[n : n + 1] != [form.format(n + 1)]), None)
        assert wrong is None, f"{name}: line {wrong + 1} of {count} is {lines[wrong : wrong + 1]}"
    return count


# ---- output ----------------------------------------------------------------------------------------------------------


def test_monitor_killed_while_containers_write(crash: Pyrun) -> None:
    """Ten kills while three containers write to both streams: not a line is missing, doubled or out of order."""
    names = ["one", "two", "three"]
    for name in names:
        crash.ok("run", "-d", "--name", name, "--log-opt", "max-size=500m", "busybox", "sh", "-c", WRITER)
    pids = {name: pid_of(crash, name) for name in names}
    written = [0] * 10
    for n in range(10):
        time.sleep(0.03 * n % 0.13 + 0.02)
        former = kill_monitor(crash)
        time.sleep(0.02 * n % 0.07)  # the pipes fill up meanwhile
        next_command(crash, former)
        written[n] = sum(entry.stat().st_size for name in names for entry in os.scandir(log_of(crash, name)))
    assert {name: pid_of(crash, name) for name in names} == pids
    assert all(alive(pid) for pid in pids.values())
    assert len(set(written)) > 5, "the containers did not write while the monitors were killed"
    for name in names:
        crash.ok("exec", name, "touch", "/stop")
    for name in names:
        assert crash.ok("wait", name) == "7"
        assert assert_whole(crash, name) > 1000


def log_of(pyrun: Pyrun, name: str) -> str:
    return f"{pyrun.paths.container(pyrun.ok('inspect', '-f', '{{.Id}}', name))}/log"


def test_monitor_killed_while_a_log_is_rotated(crash: Pyrun) -> None:
    """Within its bounds the log is a seamless end of what was written."""
    options = ("--log-opt", "max-size=64k", "--log-opt", "max-file=3")
    crash.ok("run", "-d", "--name", "rotated", *options, "busybox", "sh", "-c", WRITER)
    for _ in range(6):
        time.sleep(0.06)
        next_command(crash, kill_monitor(crash))
    crash.ok("exec", "rotated", "touch", "/stop")
    assert crash.ok("wait", "rotated") == "7"
    shown = crash("logs", "rotated")
    numbers = {"out": [], "err": []}  # type: dict[str, list[int]]
    *lines, last = shown.out.splitlines()
    for line in [*lines, *shown.err.splitlines()]:
        numbers[line.split()[0]].append(int(line.split()[1]))
    count = int(last.removeprefix("last "))
    for stream, found in numbers.items():  # of stderr there may be nothing in so short a log, if it was drained first
        assert found == list(range(count - len(found) + 1, count + 1)), stream
        assert len(found) < count, f"{stream}: nothing was rotated away"
    assert len(numbers["out"]) + len(numbers["err"]) > 100
    assert sum(entry.stat().st_size for entry in os.scandir(log_of(crash, "rotated"))) < 3 * (64 << 10) + 8192


def test_logs_follow_through_kills(crash: Pyrun, tmp_path: Path) -> None:
    """`logs -f` goes on over two kills without another command, and ends with the container: every line, once."""
    crash.ok("run", "-d", "--name", "followed", "--log-opt", "max-size=500m", "busybox", "sh", "-c", WRITER)
    with (
        open(tmp_path / "out", "wb") as target,
        subprocess.Popen(
            [crash.command, "logs", "-f", "followed"], stdout=target, stderr=subprocess.DEVNULL, env=crash.environ
        ) as follower,
    ):
        try:
            for _ in range(2):
                time.sleep(0.2)
                former = kill_monitor(crash)
                until(partial(another_monitor, crash, former), "logs -f to start a monitor")
            crash.ok("exec", "followed", "touch", "/stop")
            assert follower.wait(timeout=60 * machine.slowness()) == 0
        finally:
            follower.kill()
    *lines, last = (tmp_path / "out").read_text().splitlines()
    assert last == f"last {len(lines)}"
    assert lines == [f"out {n} of a line that is long enough" for n in range(1, len(lines) + 1)]


def another_monitor(crash: Pyrun, former: int) -> bool:
    """Whether a monitor runs that is not `former`."""
    return monitor_pid(crash) != former


def ended(pid: int) -> bool:
    """Whether the process is gone."""
    return not alive(pid)


# ---- the end of a container ------------------------------------------------------------------------------------------


def test_exit_code_of_a_container_that_ended_without_a_monitor(crash: Pyrun) -> None:
    """Its exit code and its last words are known to the next monitor; where the kernel cannot tell, it is unknown."""
    for name, script in (("ok", "exit 0"), ("seven", "exit 7"), ("killed", "kill -9 $$"), ("word", "echo bye; exit 3")):
        crash.ok("run", "-d", "--name", name, "--init", "busybox", "sh", "-c", f"sleep 1; {script}")
    pids = [pid_of(crash, name) for name in ("ok", "seven", "killed", "word")]
    former = kill_monitor(crash)
    for pid in pids:
        until(partial(ended, pid), "the container to end")
    next_command(crash, former)
    expected = {"ok": "0", "seven": "7", "killed": "137", "word": "3"}
    for name, code in expected.items():
        assert crash.ok("wait", name) == (code if EXIT_CODES_SURVIVE else "unknown")
        assert crash.ok("inspect", "-f", "{{.State.Status}}", name) == "exited"
    assert crash.ok("logs", "word") == "bye"
    shown = crash.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}")
    assert f"seven Exited ({'7' if EXIT_CODES_SURVIVE else 'unknown'})" in shown


def test_cold_command_learns_how_a_container_ended(crash: Pyrun) -> None:
    """`ps`, which needs no monitor, starts one when it finds a container that has ended unseen."""
    crash.ok("run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 0.5; exit 5")
    pid = pid_of(crash, "brief")
    kill_monitor(crash)
    until(lambda: not alive(pid), "the container to end")
    code = "5" if EXIT_CODES_SURVIVE else "unknown"
    assert crash.ok("ps", "-a", "--format", "{{.Status}}").startswith(f"Exited ({code})")


def test_wait_goes_on_when_the_monitor_is_killed(crash: Pyrun) -> None:
    """A `wait` that is under way hears of the end from the next monitor."""
    crash.ok(
        "run", "-d", "--name", "waited", "busybox", "sh", "-c", "while [ ! -e /stop ]; do sleep 0.05; done; exit 9"
    )
    waiting = crash.popen("wait", "waited")
    for _ in range(3):
        time.sleep(0.2)
        former = kill_monitor(crash)
        until(partial(another_monitor, crash, former), "wait to start a monitor")
        assert waiting.poll() is None
    crash.ok("exec", "waited", "touch", "/stop")
    out, err = waiting.communicate(timeout=30 * machine.slowness())
    assert (waiting.returncode, out, err) == (0, b"9\n", b"")


def test_attached_client_is_told(crash: Pyrun) -> None:
    """Its connection is gone, the container is not: it can be attached to again, and ends with its own code."""
    script = "read x; echo got $x; exit 4"
    client = crash.popen("run", "-i", "--name", "attached", "busybox", "sh", "-c", script)
    until(lambda: crash("inspect", "-f", "{{.State.Status}}", "attached").out == "running\n", "the container to run")
    former = kill_monitor(crash)
    _, err = client.communicate(timeout=30 * machine.slowness())
    assert client.returncode == 125
    assert err.decode().splitlines() == [
        "pyrun: the monitor ended: a container that was started goes on",
        "hint: `pyrun ps` shows it, `pyrun attach` connects to it again",
    ]
    next_command(crash, former)
    again = crash.popen("attach", "attached")
    out, err = again.communicate(b"hello\n", timeout=30 * machine.slowness())
    assert (again.returncode, out) == (4, b"got hello\n"), err


# ---- what the monitor does besides -----------------------------------------------------------------------------------


def test_rm_still_acts(crash: Pyrun) -> None:
    """A --rm container that ends without a monitor, and one that ends with the next one, are both removed."""
    crash.ok("run", "-d", "--rm", "--name", "before", "-p", "80", "busybox", "sh", "-c", "sleep 0.5")
    crash.ok("run", "-d", "--rm", "--name", "after", "-p", "80", "busybox", "sleep", "600")
    pid = pid_of(crash, "before")
    former = kill_monitor(crash)
    until(lambda: not alive(pid), "the container to end")
    next_command(crash, former)
    until(lambda: crash.ok("ps", "-a", "--format", "{{.Names}}") == "after", "--rm to remove it")
    crash.ok("stop", "-t", "0", "after")
    until(lambda: not everything_left(crash), "--rm to remove the other one")


def test_restart_policies_still_act(crash: Pyrun) -> None:
    """Containers that end without a monitor are started again, as their policy says, by the next one."""
    script = "sleep 0.5; echo run >> /data/runs; exit 1"
    volume = ("-v", "runs:/data")
    crash.ok("run", "-d", "--name", "always", "--restart", "always", *volume, "busybox", "sh", "-c", script)
    crash.ok("run", "-d", "--name", "failure", "--restart", "on-failure:1", "busybox", "sh", "-c", "sleep 0.5; exit 1")
    crash.ok("run", "-d", "--name", "never", "busybox", "sh", "-c", "sleep 0.5; exit 1")
    former = kill_monitor(crash)
    time.sleep(1)
    next_command(crash, former)
    runs = f"{crash.paths.data}/volumes/runs/_data/runs"
    until(lambda: os.path.exists(runs) and open(runs).read().count("run") >= 3, "three runs")
    former = kill_monitor(crash)  # perhaps between two starts, of which only the state tells then
    next_command(crash, former)
    count = open(runs).read().count("run")
    until(lambda: open(runs).read().count("run") >= count + 2, "two more runs")
    until(lambda: crash.ok("inspect", "-f", "{{.State.Status}}", "failure") == "exited", "the retry to be over")
    if EXIT_CODES_SURVIVE:
        assert crash.ok("inspect", "-f", "{{.RestartCount}}", "failure") == "1"
    assert crash.ok("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "never") == "0 exited"
    crash.ok("stop", "-t", "0", "always")
    assert crash.ok("inspect", "-f", "{{.State.Status}}", "always") == "exited"
    crash.ok("rm", "always", "failure", "never")
    crash.ok("volume", "rm", "runs")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def answer(host: str, port: int) -> bytes:
    """What a server says."""
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.settimeout(5)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(100)


def answers(host: str, port: int) -> bool:
    """Whether it does, within some tries: the server takes one client at a time."""
    for _ in range(20):
        try:
            if answer(host, port) == b"hello\n":
                return True
        except OSError:
            pass
        time.sleep(0.1)
    return False


def test_published_ports_still_answer(crash: Pyrun) -> None:
    """The kernel leads IPv4 to the container, monitor or not; [::1] answers again with the next one. The port stays
    taken: for other containers, by name, and for every process of the host."""
    port = free_port()
    crash.ok("run", "-d", "--name", "web", "-p", f"{port}:80", "busybox", "sh", "-c", SERVER)
    assert answers("127.0.0.1", port)
    former = kill_monitor(crash)
    assert answers("127.0.0.1", port)
    with socket.socket() as rival, pytest.raises(OSError):
        rival.bind(("0.0.0.0", port))
    next_command(crash, former)
    assert answers("127.0.0.1", port)
    if os.path.exists("/proc/net/if_inet6") and os.path.getsize("/proc/net/if_inet6") >= 0 and has_ipv6_loopback():
        assert answers("::1", port)
    taken = crash("run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert taken.rc == 125, str(taken)
    assert taken.err.startswith(f"pyrun: publish {port}/tcp: port {port}/tcp is in use by container web"), str(taken)
    crash.ok("rm", "-f", "web")
    crash.ok("run", "--rm", "-p", f"{port}:80", "busybox", "true")


def has_ipv6_loopback() -> bool:
    with open("/proc/net/if_inet6", encoding="ascii") as file:
        return any(line.startswith("00000000000000000000000000000001") for line in file)


def test_everyday_commands_after_a_kill(crash: Pyrun) -> None:
    """exec, pause, top, cp, stats, restart, stop, kill and rm do with an adopted container what they do with any."""
    crash.ok("run", "-d", "--name", "work", "busybox", "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
    next_command(crash, kill_monitor(crash))
    assert crash.ok("exec", "work", "echo", "inside") == "inside"
    crash.ok("pause", "work")
    next_command(crash, kill_monitor(crash))
    assert crash.ok("inspect", "-f", "{{.State.Status}}", "work") == "paused"
    crash.ok("unpause", "work")
    assert "sleep" in crash.ok("top", "work")
    crash.ok("stop", "work")
    if EXIT_CODES_SURVIVE:
        assert crash.ok("inspect", "-f", "{{.State.ExitCode}}", "work") == "6"
    crash.ok("start", "work")
    kill_monitor(crash)
    crash.ok("kill", "work")
    assert crash.ok("wait", "work") == ("137" if EXIT_CODES_SURVIVE else "unknown")
    crash.ok("start", "work")
    kill_monitor(crash)
    crash.ok("rm", "-f", "work")
    until(lambda: not everything_left(crash), "nothing to be left")


# ---- killed finishers ------------------------------------------------------------------------------------------------


@pytest.fixture
def finisher_hunt(crash: Pyrun) -> Iterator[Callable[[], int]]:
    """kill -9 of the next finisher (the worker that cleans up after a container) as soon as it shows; its pid."""

    def hunt() -> int:
        def find() -> int:
            return next((pid for pid in children(monitor_pid(crash)) if "worker: finish" in cmdline(pid)), 0)

        pid = int(until(find, "a finisher", 5))
        kill(pid)
        return pid

    yield hunt
    assert select.select([], [], [], 0) == ([], [], [])


@pytest.mark.parametrize("flags", [["--rm"], []], ids=["rm", "kept"])
def test_finisher_killed(crash: Pyrun, finisher_hunt: Callable[[], int], flags: list[str]) -> None:
    """What cleans up after a container is killed itself: the monitor puts it right without being asked."""
    port = free_port()
    for _ in range(5):
        crash.ok(
            "run", "-d", *flags, "--name", "victim", "-p", f"{port}:80", "busybox", "sh", "-c", "sleep 0.4; exit 3"
        )
        finisher_hunt()
        if flags:
            until(lambda: not everything_left(crash), "the container to be removed")
            continue
        until(
            lambda: crash.ok("inspect", "-f", "{{.State.Status}}", "victim") == "exited", "the container to be settled"
        )
        until(lambda: not leftovers.port_elements(crash.paths), "its port to be free")
        crash.ok("rm", "victim")
        until(lambda: not everything_left(crash), "nothing to be left")


def test_a_monitor_outlives_the_client_that_started_it(other_pyrun: Callable[[], Pyrun]) -> None:
    """Nobody is there any more to be told that it is ready: it serves all the same, and its log stays empty."""
    from pyrun.runtime.monitor import spawn

    pyrun = other_pyrun()
    os.makedirs(pyrun.paths.run, mode=0o700, exist_ok=True)
    log = f"{pyrun.paths.run}/monitor.log"
    reader, writer = os.pipe()
    os.close(reader)
    command = spawn._command(pyrun.paths)
    with open(log, "wb") as errors:
        child = subprocess.Popen(
            [*command[:-1], str(writer)], pass_fds=[writer], stderr=errors, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYRUN_MONITOR_IDLE_S": "1"},
        )  # fmt: skip
    os.close(writer)
    try:
        assert child.wait(30) == 0  # it was idle for a second
    finally:
        child.kill()
        child.wait()
    with open(log, encoding="utf-8") as file:
        assert file.read() == ""
