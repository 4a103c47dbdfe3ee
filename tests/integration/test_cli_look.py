# SPDX-License-Identifier: Apache-2.0
"""logs, exec, inspect, top, stats, port, cp, volumes, networks, --explain and --trace on real containers."""

from __future__ import annotations

import io
import json
import os
import tarfile
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


@pytest.fixture
def web(pyrun: Pyrun, base_image: str) -> str:
    """The id of a running container called web that does nothing."""
    return pyrun.ok("run", "-d", "--name", "web", "--network", "none", "-e", "A=1", base_image, "sleep", "1000")


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until condition() is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds * machine.slowness()
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_logs(pyrun: Pyrun, base_image: str) -> None:
    """Both streams, on the stream they were written to; --tail, --timestamps, --since and --until choose."""
    script = "for i in 1 2 3 4; do echo out $i; done; sleep 0.1; echo err >&2; printf 'no newline'"
    pyrun("run", "--name", "web", "--network", "none", base_image, "sh", "-c", script)
    done = pyrun("logs", "web")
    assert (done.rc, done.out, done.err) == (0, "out 1\nout 2\nout 3\nout 4\nno newline", "err\n")
    assert pyrun("logs", "-n", "2", "web").err == "err\n"
    assert pyrun("logs", "--tail", "0", "web").out == ""
    assert pyrun("logs", "--tail", "all", "web").out == done.out
    stamped = pyrun("logs", "-t", "web").out.splitlines()
    times = [line.split(" ", 1)[0] for line in stamped]
    assert times == sorted(times)
    assert all(len(one) == 30 and one.endswith("Z") for one in times)
    assert pyrun("logs", "--since", times[-1], "web").out == "no newline"
    assert "no newline" not in pyrun("logs", "--until", times[3], "web").out
    assert pyrun("logs", "--since", "1h", "web").out == done.out
    assert pyrun("logs", "--until", "1h", "web").out == ""
    assert pyrun("logs", "--since", "yesterday", "web").rc == 125


def test_logs_follow_until_the_end(pyrun: Pyrun, base_image: str) -> None:
    """-f shows what comes, and ends with the container, whose last line is there."""
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"
    pyrun.ok("run", "-d", "--name", "web", "--network", "none", base_image, "sh", "-c", script)
    assert pyrun.ok("logs", "-f", "web") == "line 1\nline 2\nline 3\nline 4\nline 5"
    assert pyrun.ok("inspect", "-f", "{{.State.Status}}", "web") == "exited"
    assert pyrun.ok("logs", "-f", "--tail", "1", "web") == "line 5"


def test_logs_of_a_container_that_keeps_none(pyrun: Pyrun, base_image: str) -> None:
    """--log-driver none is said, not shown as silence."""
    pyrun("run", "--name", "web", "--network", "none", "--log-driver", "none", base_image, "echo", "x")
    done = pyrun("logs", "web")
    assert done.rc == 125
    assert "its output is not kept" in done.err


# ── exec ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_exec(pyrun: Pyrun, web: str) -> None:
    """The code, the streams, the environment, the directory and the user of another process in the container."""
    assert pyrun("exec", "web", "sh", "-c", "exit 9").rc == 9
    done = pyrun("exec", "-i", "web", "sh", "-c", "cat; echo e >&2", stdin="in")
    assert (done.rc, done.out, done.err) == (0, "in", "e\n")
    shown = pyrun.ok(
        "exec", "-e", "B=2", "-w", "/tmp", "-u", "1000:100", "web", "sh", "-c", "echo $A$B $PWD $(id -u):$(id -g)"
    )
    assert shown == "12 /tmp 1000:100"
    assert pyrun("exec", "web", "nosuch").rc == 127
    assert pyrun("exec", "web", "/etc/passwd").rc == 126
    assert pyrun("exec", "nosuch", "true").rc == 1
    assert pyrun.ok("exec", "web", "ls", "-d", "--", "/etc") == "/etc"
    pyrun.ok("exec", "-d", "web", "touch", "/made")
    until(lambda: pyrun("exec", "web", "test", "-e", "/made").rc == 0)


def test_exec_needs_a_running_container(pyrun: Pyrun, base_image: str) -> None:
    """One line says so."""
    pyrun.ok("create", "--name", "web", base_image)
    done = pyrun("exec", "web", "true")
    assert done.rc == 1
    assert "container is not running (created)" in done.err


# ── inspect, top, stats, port ────────────────────────────────────────────────────────────────────────────────────


def test_inspect(pyrun: Pyrun, web: str, base_image: str) -> None:
    """docker's JSON; several objects of several kinds; what is missing is an error after what is there."""
    shown = json.loads(pyrun.ok("inspect", "web"))
    assert [one["Id"] for one in shown] == [web]
    assert shown[0]["State"]["Running"] is True
    assert os.path.isdir(f"/proc/{shown[0]['State']['Pid']}")
    done = pyrun("inspect", "web", "nosuch", base_image)
    assert done.rc == 1
    assert [one["Id"] for one in json.loads(done.out)] == [web, pyrun.ok("images", "-q", "--no-trunc", base_image)]
    assert done.err.startswith("pyrun: no such object 'nosuch'")
    assert pyrun("inspect", "--type", "image", "web").rc == 1
    assert pyrun.ok("inspect", "-f", "{{.Config.Env}}", "web") == "[A=1]"
    for name, kind in (("web", "container"), (base_image, "image")):
        bad = pyrun("inspect", "-f", "{{.Bogus}}", name)
        assert (bad.rc, bad.err.splitlines()[0]) == (1, f"pyrun: --format: there is no field Bogus in the {kind}")


def test_inspect_shows_what_was_asked_for(pyrun: Pyrun, base_image: str, tmp_path: Path) -> None:
    """The flags of create can be read back."""
    pyrun.ok(
        "create", "--name", "web", "-v", f"{tmp_path}:/data:ro", "-p", "127.0.0.1:0:80", "--restart", "always",
        "-l", "a=b", "--read-only", "--cap-add", "SYS_TIME", "-w", "/tmp", "-u", "5", base_image, "sleep", "5",
    )  # fmt: skip
    found = json.loads(pyrun.ok("inspect", "web"))[0]
    assert found["HostConfig"]["Binds"] == [f"{tmp_path}:/data:ro"]
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert found["HostConfig"]["PortBindings"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": ""}]
    assert found["HostConfig"]["CapAdd"] == ["CAP_SYS_TIME"]
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["Config"]["Labels"] == {"a": "b"}
    assert (found["Config"]["User"], found["Config"]["WorkingDir"]) == ("5", "/tmp")
    assert found["Mounts"][0]["Source"] == str(tmp_path)
    assert found["Config"]["Cmd"] == ["sleep", "5"]


def test_top(pyrun: Pyrun, web: str) -> None:
    """The host's pids of the container's processes, and what ps cannot show."""
    pyrun.ok("exec", "-d", "web", "sleep", "2000")
    until(lambda: len(pyrun.ok("top", "web").splitlines()) == 3)
    head, *rows = [line.split() for line in pyrun.ok("top", "web", "-o", "pid,nspid,seccomp,args").splitlines()]
    assert head == ["PID", "NSPID", "SECCOMP", "COMMAND"]
    assert rows[0][0] == pyrun.ok("inspect", "-f", "{{.State.Pid}}", "web")
    assert [row[1:] for row in rows] == [["1", "filter", "sleep", "1000"], [rows[1][1], "filter", "sleep", "2000"]]
    pyrun.ok("stop", "-t", "0", "web")
    assert pyrun("top", "web").rc == 1


def test_stats(pyrun: Pyrun, web: str) -> None:
    """One table; json for programs; a stopped container only with -a."""
    head, line = pyrun.ok("stats", "--no-stream").splitlines()
    assert head.split("  ")[0] == "CONTAINER ID"
    assert line.startswith(web[:12])
    row = json.loads(pyrun.ok("stats", "--no-stream", "--format", "json", "web"))
    assert row["Name"] == "web"
    assert row["PIDs"] == "1"
    assert row["CPUPerc"].endswith("%")
    pyrun.ok("stop", "-t", "0", "web")
    assert pyrun.ok("stats", "--no-stream", "--format", "{{.Name}}") == ""
    assert pyrun.ok("stats", "--no-stream", "-a", "--format", "{{.Name}} {{.PIDs}}") == "web --"


def test_port(pyrun: Pyrun, base_image: str) -> None:
    """All mappings, or one port's; a port that is not published is an error."""
    pyrun.ok("run", "-d", "--name", "web", "-p", "127.0.0.1::80", base_image, "sleep", "1000")
    line = pyrun.ok("port", "web")
    assert line.startswith("80/tcp -> 127.0.0.1:")
    assert pyrun.ok("port", "web", "80") == line.split(" -> ")[1]
    done = pyrun("port", "web", "81")
    assert done.rc == 1
    assert done.err == "pyrun: no public port '81/tcp' published for web\n"


# ── cp ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("running", [True, False])
def test_cp(pyrun: Pyrun, base_image: str, tmp_path: Path, running: bool) -> None:
    """Both ways, a file and a directory, running or not, and as a tar stream."""
    pyrun.ok("create", "--name", "web", "--network", "none", base_image, "sleep", "1000")
    if running:
        pyrun.ok("start", "web")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("hello")
    pyrun.ok("cp", str(tmp_path / "in"), "web:/srv")
    pyrun.ok("cp", str(tmp_path / "in" / "file"), "web:/etc/copied")
    pyrun.ok("cp", "web:/etc/copied", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "hello"
    pyrun.ok("cp", "web:/srv", str(tmp_path / "dir"))
    assert (tmp_path / "dir" / "file").read_text() == "hello"
    stream = pyrun.popen("cp", "web:/srv", "-")
    data, _ = stream.communicate(timeout=30)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert sorted(archive.getnames()) == ["srv", "srv/file"]
    if running:
        assert pyrun.ok("exec", "web", "cat", "/srv/file", "/etc/copied") == "hellohello"


@pytest.mark.parametrize(
    ("words", "rc", "message"),
    [
        (("web:/nosuch", "."), 1, "pyrun: no such path '/nosuch' in container web\n"),
        (("nosuch:/etc", "."), 1, "no such container 'nosuch'"),
        (("/nosuch", "web:/tmp"), 1, "no such"),
        (("a", "b"), 125, "neither side is a container"),
        (("web:/a", "web:/b"), 125, "both sides are containers"),
    ],
)
def test_cp_mistakes(pyrun: Pyrun, web: str, tmp_path: Path, words: tuple[str, ...], rc: int, message: str) -> None:
    """One line each."""
    done = pyrun("cp", *words, cwd=str(tmp_path))
    assert done.rc == rc
    assert message in done.err
    assert os.listdir(tmp_path) == []


# ── volumes and networks ─────────────────────────────────────────────────────────────────────────────────────────


def test_volumes(pyrun: Pyrun, base_image: str) -> None:
    """Named ones stay, anonymous ones go with rm -v; one in use is not removed; prune and filters."""
    assert pyrun.ok("volume", "create", "--label", "team=a", "cache") == "cache"
    pyrun.ok("run", "--rm", "--network", "none", "-v", "cache:/data", base_image, "sh", "-c", "echo x > /data/file")
    assert pyrun.ok("run", "--rm", "--network", "none", "-v", "cache:/data:ro", base_image, "cat", "/data/file") == "x"
    pyrun.ok("create", "--name", "web", "-v", "cache:/data", "-v", "/anonymous", base_image)
    assert len(pyrun.ok("volume", "ls", "-q").split()) == 2
    assert pyrun.ok("volume", "ls", "-q", "-f", "label=team=a") == "cache"
    assert pyrun.ok("volume", "ls", "-q", "-f", "dangling=true") == ""
    assert pyrun.ok("volume", "inspect", "-f", "{{.Labels.team}} {{.Driver}}", "cache") == "a local"
    refused = pyrun("volume", "rm", "cache")
    assert refused.rc == 1
    assert "container web uses it" in refused.err
    pyrun.ok("rm", "-v", "web")
    assert pyrun.ok("volume", "ls", "--format", "{{.Name}}") == "cache"
    assert "Total reclaimed space: 0B" in pyrun.ok("volume", "prune", "-f")
    assert "cache" in pyrun.ok("volume", "prune", "-af")
    assert pyrun.ok("volume", "ls", "-q") == ""
    assert pyrun("volume", "inspect", "cache").rc == 1


def test_networks(pyrun: Pyrun, base_image: str) -> None:
    """The default network and the two that are none; inspect shows who is on it."""
    web = pyrun.ok("run", "-d", "--name", "web", base_image, "sleep", "1000")
    assert pyrun.ok("network", "ls", "--format", "{{.Name}}").split() == ["bridge", "host", "none"]
    found = json.loads(pyrun.ok("network", "inspect", "bridge"))[0]
    address = pyrun.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")
    assert found["Containers"][web]["IPv4Address"].split("/")[0] == address
    assert pyrun("network", "inspect", "nosuch").rc == 1


# ── explain and trace ────────────────────────────────────────────────────────────────────────────────────────────


def test_explain_runs_nothing(pyrun: Pyrun, base_image: str) -> None:
    """The plan is printed and nothing is there afterwards; the same as JSON."""
    text = pyrun.ok("run", "--explain", "-p", "80", base_image, "true")
    assert "In the container:" in text
    assert "pivot_root" in text
    steps = json.loads(pyrun.ok("run", "--explain", "--format", "json", base_image, "true"))
    assert {step["where"] for step in steps} == {"host", "container"}
    assert all(set(step) == {"where", "area", "what", "why"} for step in steps)
    assert steps[-1]["where"] == "host"
    assert [step for step in steps if step["what"] == "exec true"]
    assert pyrun.ok("ps", "-aq") == ""


def test_trace_shows_every_step_with_its_time(pyrun: Pyrun, base_image: str) -> None:
    """On stderr, so that the program's output stays clean; the container's steps are those that explain names."""
    done = pyrun("run", "--rm", "--network", "none", "--trace", "--format", "json", base_image, "echo", "hi")
    assert (done.rc, done.out) == (0, "hi\n")
    traced = [json.loads(line) for line in done.err.splitlines()]
    assert all(not step["error"] and step["microseconds"] >= 0 for step in traced)
    inside = [step["area"] for step in traced if step["where"] == "container"]
    plan = json.loads(pyrun.ok("run", "--explain", "--format", "json", "--network", "none", base_image, "echo", "hi"))
    assert inside == [step["area"] for step in plan if step["where"] == "container"]
    people = pyrun("run", "--rm", "--network", "none", "--trace", base_image, "true").err
    assert " µs  ok      container  pivot-root" in people


def test_trace_of_a_failure_names_the_step(pyrun: Pyrun, base_image: str) -> None:
    """The last line of the trace is the step that failed, then comes the error."""
    done = pyrun("run", "--network", "none", "--trace", base_image, "nosuch")
    assert done.rc == 127
    assert any("failed" in line and "container" in line for line in done.err.splitlines())
    assert 'pyrun: exec "nosuch"' in done.err
