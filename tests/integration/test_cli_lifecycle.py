# SPDX-License-Identifier: Apache-2.0
"""run, create, start, stop, restart, kill, pause, wait, rename, rm and ps, as a docker user types them."""

from __future__ import annotations

import functools
import json
import time
from typing import TYPE_CHECKING

import pytest

import machine
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")  # ends at once when it is asked to


def start(pyrun: Pyrun, image: str, name: str, *flags: str) -> str:
    """A container that runs until it is stopped; gives its id."""
    return pyrun.ok("run", "-d", "--name", name, "--network", "none", *flags, image, *FOREVER)


def state(pyrun: Pyrun, name: str, field: str) -> str:
    return pyrun.ok("inspect", "-f", f"{{{{.State.{field}}}}}", name)


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_run_exits_with_the_programs_code(pyrun: Pyrun, base_image: str, code: int) -> None:
    """`pyrun run` is a stand-in for the program, --rm leaves nothing."""
    assert pyrun("run", "--rm", "--network", "none", base_image, "sh", "-c", f"exit {code}").rc == code
    assert pyrun.ok("ps", "-aq") == ""


def test_run_exits_with_128_and_the_signal(pyrun: Pyrun, base_image: str) -> None:
    """A program that is killed by SIGKILL ends pyrun with 137."""
    name = start(pyrun, base_image, "web")
    pyrun.ok("kill", "web")
    assert pyrun.ok("wait", name) == "137"
    assert state(pyrun, "web", "ExitCode") == "137"


def test_streams_stay_apart_and_whole(pyrun: Pyrun, base_image: str) -> None:
    """stdin, stdout and stderr are the program's; bytes pass unchanged in both directions."""
    text = "".join(f"line {number} é\n" for number in range(20000))
    done = pyrun("run", "--rm", "-i", "--network", "none", base_image, "sh", "-c", "cat; echo oops >&2", stdin=text)
    assert (done.rc, done.out, done.err) == (0, text, "oops\n")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("nosuch",), 127, 'exec "nosuch": executable file not found in $PATH'),
        (("/nosuch",), 127, "no such file or directory"),
        (("/etc/passwd",), 126, "permission denied"),
        (("/etc",), 126, ""),
    ],
)
def test_a_program_that_cannot_run(
    pyrun: Pyrun, base_image: str, command: tuple[str, ...], code: int, words: str
) -> None:
    """127 for not found, 126 for not executable, one line and a hint; no container is left, and its name is free."""
    for _ in range(2):
        done = pyrun("run", "--name", "web", "--network", "none", base_image, *command)
        assert done.rc == code
        assert words in done.err.splitlines()[0]
        assert done.err.startswith("pyrun: ")
        assert len(done.err.splitlines()) <= 2
    assert pyrun.ok("ps", "-aq") == ""


def test_a_life(pyrun: Pyrun, base_image: str) -> None:
    """create, start, stop, start, restart, rm: the names are printed, and ps follows."""
    made = pyrun.ok("create", "--name", "web", "--network", "none", base_image, *FOREVER)
    assert len(made) == 64
    assert state(pyrun, "web", "Status") == "created"
    assert pyrun.ok("ps", "-q") == ""
    assert pyrun.ok("start", "web") == "web"
    assert state(pyrun, "web", "Status") == "running"
    assert pyrun.ok("ps", "-q") == made[:12]
    began = time.monotonic()
    assert pyrun.ok("stop", made[:7]) == made[:7]
    assert time.monotonic() - began < 9  # it listens to SIGTERM: no need to wait for SIGKILL
    assert (state(pyrun, "web", "Status"), state(pyrun, "web", "ExitCode")) == ("exited", "0")
    assert pyrun.ok("stop", "web") == "web"  # as docker: stopping what is stopped is fine
    first = state(pyrun, "web", "StartedAt")
    assert pyrun.ok("restart", "web") == "web"
    assert pyrun.ok("restart", "-t", "5", "web") == "web"
    assert state(pyrun, "web", "Running") == "true"
    assert state(pyrun, "web", "StartedAt") > first
    refused = pyrun("rm", "web")
    assert refused.rc == 1
    assert "pyrun: remove web: it is running" in refused.err
    assert pyrun.ok("rm", "-f", "web") == "web"
    assert pyrun.ok("ps", "-aq") == ""


def test_stop_uses_the_stop_signal_then_kills(pyrun: Pyrun, base_image: str) -> None:
    """--stop-signal is what the program gets; one that ignores it is killed after the timeout, with 137."""
    pyrun.ok(
        "run", "-d", "--name", "web", "--network", "none", "--stop-signal", "USR1", base_image,
        "sh", "-c", "trap 'exit 7' USR1; while :; do sleep 0.1; done",
    )  # fmt: skip
    pyrun.ok("stop", "web")
    assert state(pyrun, "web", "ExitCode") == "7"
    pyrun.ok("run", "-d", "--name", "deaf", "--network", "none", base_image, "sleep", "1000")
    began = time.monotonic()
    pyrun.ok("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - began < 9
    assert state(pyrun, "deaf", "ExitCode") == "137"


def test_several_names_each_on_its_own(pyrun: Pyrun, base_image: str) -> None:
    """What works is printed, what fails is an error of its own, and the exit code is 1."""
    start(pyrun, base_image, "one")
    start(pyrun, base_image, "two")
    for command in (("stop",), ("start",), ("kill",), ("rm", "-f")):
        done = pyrun(*command, "one", "nosuch", "two")
        expected_rc = 0 if command == ("rm", "-f") else 1  # -f does not mind, as docker's
        assert (done.rc, done.out) == (expected_rc, "one\ntwo\n"), str(done)
        assert "pyrun: no such container 'nosuch'" in done.err


def test_kill_sends_any_signal(pyrun: Pyrun, base_image: str) -> None:
    """By name, with and without SIG, and by number; a container that does not run is an error."""
    script = 'for s in HUP USR1 USR2; do trap "echo got $s" $s; done; echo ready; while :; do sleep 0.05; done'
    pyrun.ok("run", "-d", "--name", "web", "--network", "none", base_image, "sh", "-c", script)
    _until(functools.partial(_has_logged, pyrun, "ready"))
    for spelled, heard in (("HUP", "HUP"), ("SIGUSR1", "USR1"), ("12", "USR2")):
        pyrun.ok("kill", "-s", spelled, "web")
        _until(functools.partial(_has_logged, pyrun, f"got {heard}"))
    assert pyrun("kill", "-s", "NOPE", "web").rc == 125
    pyrun.ok("kill", "web")
    pyrun.ok("wait", "web")
    done = pyrun("kill", "web")
    assert done.rc == 1
    assert "container is not running (exited)" in done.err


def test_pause(pyrun: Pyrun, base_image: str) -> None:
    """A paused container does nothing until it is unpaused; ps says so; it can be removed by force."""
    pyrun.ok(
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "none",
        base_image,
        "sh",
        "-c",
        "while :; do echo x; sleep 0.02; done",
    )
    assert pyrun.ok("pause", "web") == "web"
    assert "(Paused)" in pyrun.ok("ps", "--format", "{{.Status}}")
    before = pyrun.ok("logs", "web")
    time.sleep(0.3)
    assert pyrun.ok("logs", "web") == before
    assert pyrun("pause", "web").rc == 1
    assert pyrun("exec", "web", "true").rc == 1
    assert pyrun.ok("unpause", "web") == "web"
    _until(lambda: pyrun.ok("logs", "web") != before)
    assert pyrun("unpause", "web").rc == 1
    pyrun.ok("pause", "web")
    pyrun.ok("rm", "-f", "web")


def test_wait_prints_every_code(pyrun: Pyrun, base_image: str) -> None:
    """In the order asked for, for containers that have ended and for those that will."""
    pyrun.ok("run", "-d", "--name", "slow", "--network", "none", base_image, "sh", "-c", "sleep 0.5; exit 5")
    pyrun.ok("run", "-d", "--name", "fast", "--network", "none", base_image, "sh", "-c", "exit 6")
    assert pyrun.ok("wait", "slow", "fast") == "5\n6"
    assert pyrun.ok("wait", "slow") == "5"


def test_rename(pyrun: Pyrun, base_image: str) -> None:
    """The new name works at once, for a running container too; a taken one is refused."""
    made = start(pyrun, base_image, "web")
    start(pyrun, base_image, "db")
    pyrun.ok("rename", "web", "site")
    assert pyrun.ok("inspect", "-f", "{{.Name}} {{.Id}}", "site") == f"/site {made}"
    assert pyrun("inspect", "web").rc == 1
    done = pyrun("rename", "site", "db")
    assert done.rc == 1
    assert "pyrun: name 'db': container" in done.err


def test_restart_policy(pyrun: Pyrun, base_image: str) -> None:
    """on-failure:2 starts it twice more, then it stays down with its code."""
    pyrun.ok(
        "run", "-d", "--name", "web", "--network", "none", "--restart", "on-failure:2", base_image, "sh", "-c", "exit 3"
    )
    _until(lambda: state(pyrun, "web", "Status") == "exited", seconds=20)
    assert pyrun.ok("inspect", "-f", "{{.RestartCount}} {{.State.ExitCode}}", "web") == "2 3"


def test_restart_always_until_stopped(pyrun: Pyrun, base_image: str) -> None:
    """A container that was stopped by its user stays stopped."""
    pyrun.ok(
        "run", "-d", "--name", "web", "--network", "none", "--restart", "always", base_image, "sh", "-c", "sleep 0.1"
    )
    _until(lambda: pyrun.ok("inspect", "-f", "{{.RestartCount}}", "web") not in ("0", "1"), seconds=20)
    pyrun.ok("stop", "web")
    time.sleep(0.5)
    assert state(pyrun, "web", "Status") == "exited"
    count = pyrun.ok("inspect", "-f", "{{.RestartCount}}", "web")
    time.sleep(0.5)
    assert pyrun.ok("inspect", "-f", "{{.RestartCount}}", "web") == count


def test_cidfile(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """The id without a newline, in a new file; an existing file is refused before anything happens."""
    file = tmp_path / "cid"
    made = pyrun.ok("create", "--cidfile", str(file), base_image)
    assert file.read_text() == made
    refused = pyrun("run", "--cidfile", str(file), base_image, "true")
    assert refused.rc == 125
    assert file.read_text() == made
    assert len(pyrun.ok("ps", "-aq").split()) == 1


def test_ps(pyrun: Pyrun, base_image: str) -> None:
    """docker's table, templates, json, filters and -n, -l, -q, --no-trunc."""
    web = start(pyrun, base_image, "web", "-l", "team=a", "-p", "0:80", "--expose", "9/udp", "--network", "bridge")
    pyrun.ok("create", "--name", "db", "--network", "none", "-l", "team=b", base_image, "sleep", "5")
    head, *lines = pyrun.ok("ps", "-a").splitlines()
    assert head.split("  ")[0] == "CONTAINER ID"
    assert [line.split()[-1] for line in lines] == ["db", "web"]
    assert "\"sh -c trap 'exit 0'…\"" in lines[1] or '"sh -c' in lines[1]
    assert "Up " in lines[1]
    assert "Created" in lines[0]
    row = json.loads(pyrun.ok("ps", "--format", "json"))
    assert row["Names"] == "web"
    assert "->80/tcp" in row["Ports"]
    assert "9/udp" in row["Ports"]
    assert row["Labels"] == "team=a"
    assert pyrun.ok("ps", "-aq", "--no-trunc").split()[1] == web
    assert pyrun.ok("ps", "-a", "--filter", "label=team=b", "--format", "{{.Names}}") == "db"
    assert pyrun.ok("ps", "-a", "-f", "status=created", "--format", '{{.Names}} {{.Label "team"}}') == "db b"
    assert pyrun.ok("ps", "-lq") == pyrun.ok("ps", "-n", "1", "-q")
    assert pyrun.ok("ps", "--format", r"table {{.Names}}\t{{.State}}").splitlines() == [
        "NAMES     STATE",
        "web       running",
    ]
    assert pyrun.ok("container", "ls", "-q") == web[:12]
    wrong = pyrun("ps", "--format", "{{.Nmes}}")
    assert (wrong.rc, wrong.out) == (1, "")
    assert "did you mean 'Names'?" in wrong.err


def test_ps_size(pyrun: Pyrun, base_image: str) -> None:
    """-s counts what the container wrote."""
    pyrun.ok(
        "run", "--name", "web", "--network", "none", base_image, "dd", "if=/dev/zero", "of=/file", "bs=1000", "count=50"
    )
    assert pyrun.ok("ps", "-as", "--format", "{{.Size}}") == "50kB"


def test_container_prune(pyrun: Pyrun, base_image: str) -> None:
    """Stopped and created ones go, running ones stay; without -f it asks, and no answer is a no."""
    web = start(pyrun, base_image, "web")
    gone = pyrun.ok("create", "--name", "db", base_image)
    pyrun("container", "prune", stdin="n\n")
    assert len(pyrun.ok("ps", "-aq").split()) == 2
    done = pyrun.ok("container", "prune", "-f", "--filter", "until=1h")
    assert done == "Total reclaimed space: 0B"
    done = pyrun.ok("container", "prune", "-f")
    assert done.splitlines() == ["Deleted Containers:", gone, "", "Total reclaimed space: 0B"]
    assert pyrun.ok("ps", "-aq") == web[:12]


def test_a_damaged_container_spoils_only_itself(pyrun: Pyrun, base_image: str) -> None:
    """ps shows the others and one line about it; rm -f removes it."""
    good = pyrun.ok("create", "--name", "good", base_image)
    bad = pyrun.ok("create", "--name", "bad", base_image)
    with open(f"{pyrun.paths.container(bad)}/state.json", "w", encoding="utf-8") as file:
        file.write("{")
    done = pyrun("ps", "-aq")
    assert (done.rc, done.out) == (1, f"{good[:12]}\n")
    assert done.err.startswith(f"pyrun: container {bad[:12]}: state.json is damaged")
    assert pyrun.ok("rm", "-f", "bad") == "bad"
    assert pyrun("ps", "-a").err == ""


def _has_logged(pyrun: Pyrun, text: str) -> bool:
    return text in pyrun.ok("logs", "web")


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until condition() is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds * machine.slowness()
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
