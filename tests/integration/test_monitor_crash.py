# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the monitor and of its keeper, at every point and at random: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitor_stage import Stage, gone, until
from pyrun.runtime.errors import PyrunError
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


COUNT = 30_000
LINES = b"".join(b"line %d\n" % number for number in range(COUNT))
#: writes LINES, faster than a shell's loop, in writes that do not end where lines do
WRITE = f"seq -f 'line %.0f' 0 {COUNT - 1} | dd bs=1000 iflag=fullblock status=none"

POINTS = ["begun", "taken", "logged", "sealed", "settled"]


def serve_until_all_have_ended(stage: Stage) -> int:
    """Starts a monitor whenever there is none, until no session is left; how many it took."""
    started = 0

    def ended() -> bool:
        nonlocal started
        try:
            return not stage.call("sessions")
        except PyrunError:
            started += 1
            stage.client("say", "", "")
            return False

    until(ended, 60)
    return started


@pytest.mark.parametrize("passes", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_of_a_transfer_loses_and_repeats_nothing(stage: Stage, point: str, passes: int) -> None:
    """SIGKILL between any two steps of log writing, while the process goes on writing: every line exactly once."""
    pid = stage.start_monitor(PYRUN_MONITOR_FAULT=f"{point}:{passes}")
    stage.client("run", "-d", "c", WRITE)
    until(lambda: gone(pid))
    assert serve_until_all_have_ended(stage) == 1
    assert stage.output("c") == LINES


@pytest.mark.parametrize("point", [*POINTS, "log-rotated"])
def test_a_kill_while_small_logs_are_rotated(stage: Stage, point: str) -> None:
    """Files of 20 kB: what the log still holds is the end of what was written, without a gap."""
    pid = stage.start_monitor(PYRUN_MONITOR_FAULT=f"{point}:4")
    stage.client("run", "-d", "-l", "c", WRITE)
    until(lambda: gone(pid))
    assert serve_until_all_have_ended(stage) == 1
    logged = stage.output("c")
    assert logged
    assert LINES.endswith(logged)
    assert sorted(os.listdir(f"{stage.paths.container('c')}/log")) == ["json.log", "json.log.1", "json.log.2"]


@pytest.mark.parametrize("point", [*POINTS, "in-pipe"])
@pytest.mark.parametrize("passes", [1, 7])
def test_a_kill_loses_nothing_of_a_terminal(stage: Stage, point: str, passes: int) -> None:
    """The pseudo-terminal's output as well: it is spliced, not read."""
    pid = stage.start_monitor(PYRUN_MONITOR_FAULT=f"{point}:{passes}")
    stage.client("run", "-d", "-t", "c", WRITE)
    until(lambda: gone(pid))
    assert serve_until_all_have_ended(stage) == 1
    assert stage.output("c") == LINES.replace(b"\n", b"\r\n")


@requires(kernel=(6, 15))
@pytest.mark.parametrize("point", ["exited", "logged"])
def test_a_process_that_ends_while_no_monitor_lives(stage: Stage, point: str) -> None:
    """Its last output and its exit code are there for the next monitor; so are an unfinished line and stderr."""
    pid = stage.start_monitor(PYRUN_MONITOR_FAULT=point)
    script = "echo first; sleep 0.3; echo second; echo error >&2; printf third; exit 42"
    stage.client("run", "-d", "c", script)
    until(lambda: gone(pid))
    time.sleep(1.0)
    assert serve_until_all_have_ended(stage) == 1
    assert stage.output("c") == b"first\nsecond\nthird"
    assert stage.output("c", "stderr") == b"error\n"
    assert [one["returncode"] for one in stage.asked("exited")] == [42]


def test_many_kills_at_random_times(stage: Stage) -> None:
    """Three writers on both streams and a terminal, the monitor killed again and again: every line exactly once."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    count = 100_000
    burst = "seq -f 'line %.0f' $((k*2000)) $((k*2000+1999)) | dd bs=777 iflag=fullblock status=none"
    loop = f"for k in $(seq 0 49); do {burst}; sleep 0.05; done"
    slow = 'i=0; while [ $i -lt 3000 ]; do echo "line $i"; echo "line $i" >&2; i=$((i+1)); sleep 0; done'
    stage.start_monitor()
    stage.client("run", "-d", "fast", loop)
    stage.client("run", "-d", "slow", slow)
    stage.client("run", "-d", "-t", "terminal", slow + " 2>/dev/null")
    kills = 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(dice.random() * 0.1)
        try:
            stage.kill_monitor()
        except ProcessLookupError:
            pass
        kills += 1
        stage.client("say", "", "")
        if not stage.call("sessions"):
            break
    assert kills > 2
    assert stage.output("fast") == b"".join(b"line %d\n" % n for n in range(count)), f"seed {seed}"
    lines = b"".join(b"line %d\n" % n for n in range(3000))
    assert stage.output("slow") == lines, f"seed {seed}"
    assert stage.output("slow", "stderr") == lines, f"seed {seed}"
    assert stage.output("terminal") == lines.replace(b"\n", b"\r\n"), f"seed {seed}"


def test_stdin_survives_a_kill(stage: Stage) -> None:
    """The write end is in the keeper: the process sees no end of file, and a later client types on."""
    stage.start_monitor()
    stage.client("run", "-d", "-i", "c", "while read line; do echo got $line; done")
    stage.kill_monitor()
    stage.start_monitor()
    one = stage.popen("attach", "c", "-i")
    assert one.stdin is not None
    one.stdin.write(b"one\n")
    one.stdin.flush()
    until(lambda: stage.output("c") == b"got one\n")
    one.kill()
    one.communicate()


def test_a_killed_keeper_is_replaced_and_has_everything_again(stage: Stage) -> None:
    """kill -9 of the keeper, then of the monitor: the sessions are still there."""
    stage.start_monitor()
    stage.client("run", "-d", "c", "echo one; read x; echo two; sleep 60", stdin=None)
    stage.client("run", "-d", "-t", "t", "sleep 60")
    (keeper,) = stage.keeper_pids()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: [pid for pid in stage.keeper_pids() if pid != keeper])
    stage.kill_monitor()
    stage.start_monitor()
    assert set(stage.sessions()) == {"c", "t"}
    assert stage.output("c") == b"one\ntwo\n"


def test_a_keeper_killed_just_before_a_put(stage: Stage) -> None:
    """The put itself finds the keeper gone: the new one gets the new session too."""
    pid = stage.start_monitor()
    (keeper,) = stage.keeper_pids()
    os.kill(pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    one = stage.popen("run", "-d", "c", "sleep 60")
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    assert one.wait(20) == 0
    one.communicate()
    stage.kill_monitor()
    stage.start_monitor()
    assert set(stage.sessions()) == {"c"}


def test_both_killed_leaves_the_processes_to_recovery(stage: Stage) -> None:
    """With the keeper gone too, nothing is kept; the next monitor starts afresh and asks for recovery."""
    stage.start_monitor()
    stage.client("run", "-d", "c", "sleep 0.5; echo end")
    os.kill(stage.monitor_pid(), signal.SIGSTOP)
    (keeper,) = stage.keeper_pids()
    os.kill(keeper, signal.SIGKILL)
    stage.kill_monitor()
    stage.start_monitor()
    assert stage.sessions() == {}
    until(lambda: len(stage.asked("recover")) == 2)


def test_the_finisher_is_asked_again_if_the_monitor_dies_meanwhile(stage: Stage) -> None:
    """The session stays with the keeper until its clean-up has been done."""
    pid = stage.start_monitor(PYRUN_MONITOR_FAULT="finished")
    stage.client("run", "-d", "c", "exit 5")
    until(lambda: gone(pid))
    assert serve_until_all_have_ended(stage) == 1
    assert len(stage.asked("exited")) == 2


def test_a_hundred_sessions_survive(stage: Stage) -> None:
    """A hundred processes, kill -9: all are adopted again, with all they write."""
    stage.start_monitor()
    for number in range(100):
        stage.call("run", id=f"c{number}", script=f"echo {number}; while [ ! -e {stage.base}/go ]; do sleep 0.2; done; "
                   f"echo end {number}")  # fmt: skip
    stage.kill_monitor()
    stage.start_monitor()
    assert len(stage.sessions()) == 100
    Path(stage.base, "go").touch()
    until(lambda: not stage.sessions(), 60)
    for number in range(100):
        assert stage.output(f"c{number}") == b"%d\nend %d\n" % (number, number)
