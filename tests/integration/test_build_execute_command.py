# SPDX-License-Identifier: Apache-2.0
"""RUN below `pyrun build`: interrupted, killed, failing beside another stage; the shell on what a failed step left."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

import build_steps
import half_started
import leftovers
import machine
from pyrun.runtime.engine.build import debug
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli import Pyrun

pytestmark = requires(root=True)

SOON_S = 10.0


@pytest.fixture
def builder(other_pyrun: Callable[[], Pyrun], busybox_tar: str) -> Iterator[Pyrun]:
    """A Pyrun of its own with a busybox image; afterwards no container, cgroup, address or half-made layer is left."""
    pyrun = other_pyrun()
    pyrun.ok("import", busybox_tar, "busybox")
    yield pyrun
    leftovers.assert_none(pyrun)
    half_made = [name for name in leftovers.entries(f"{pyrun.paths.data}/layers") if "." in name]
    assert not half_made


def dockerfile(directory: Path, text: str) -> str:
    """A build context with this Dockerfile."""
    (directory / "Dockerfile").write_text(text)
    return str(directory)


def workers(pyrun: Pyrun) -> list[int]:
    """The monitor's workers."""
    monitor = half_started.monitor_pid(pyrun)
    return [pid for pid in half_started.children(monitor) if half_started.comm(pid) == "pyrun-worker"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_a_build_ends_its_step(builder: Pyrun, tmp_path: Path, number: int, code: int) -> None:
    """^C, SIGTERM: the step's processes are gone at once, and nothing is left; the step was cancelled, so it says."""
    context = dockerfile(tmp_path, "FROM busybox\nRUN trap '' INT TERM; exec sleep 1000\n")
    process = builder.popen("build", context)
    pid = build_steps.wait_until_running(builder.paths, "sleep")
    begun = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=SOON_S * machine.slowness())
    assert time.monotonic() - begun < SOON_S * machine.slowness()
    assert process.returncode == code, err
    assert not half_started.alive(pid)
    assert b"CANCELED\n" in err
    assert b"ERROR" not in err
    assert err.splitlines()[-1] == b"pyrun: build interrupted"


def test_a_builds_worker_that_is_killed(builder: Pyrun, tmp_path: Path) -> None:
    """kill -9: the monitor removes the step, its address and its half-made layer; the next build works."""
    context = dockerfile(tmp_path, "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked exec sleep 1000\n")
    process = builder.popen("build", context)
    pid = build_steps.wait_until_running(builder.paths, "sleep")
    (worker,) = workers(builder)
    os.kill(worker, signal.SIGKILL)
    assert process.wait(SOON_S * machine.slowness()) != 0
    half_started.until(lambda: not half_started.alive(pid), "the step to end")
    process.communicate()
    half_started.until(lambda: not leftovers.found(builder.paths), "the monitor to clean up")
    builder.ok(
        "build", "-q", dockerfile(tmp_path, "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked true\n")
    )


def test_a_monitor_that_is_killed_during_a_step(builder: Pyrun, tmp_path: Path) -> None:
    """kill -9 of the monitor: its worker ends the build and cleans up; the next build works."""
    context = dockerfile(tmp_path, "FROM busybox\nRUN exec sleep 1000\n")
    process = builder.popen("build", context)
    pid = build_steps.wait_until_running(builder.paths, "sleep")
    os.kill(half_started.monitor_pid(builder), signal.SIGKILL)
    assert process.wait(SOON_S * machine.slowness()) != 0
    process.communicate()
    half_started.until(lambda: not half_started.alive(pid), "the step to end")
    builder.ok("build", "-q", dockerfile(tmp_path, "FROM busybox\nRUN true\n"))


def test_a_stage_that_fails_ends_the_others(builder: Pyrun, tmp_path: Path) -> None:
    """Stages run at the same time; when one fails, the other's step is killed, and its error is not the one shown."""
    text = (
        "FROM busybox AS slow\nRUN sleep 1000\n"
        "FROM busybox AS bad\nRUN sleep 0.5; exit 3\n"
        "FROM busybox\nCOPY --from=slow / /a/\nCOPY --from=bad / /b/\n"
    )
    begun = time.monotonic()
    result = builder("build", dockerfile(tmp_path, text))
    assert result.rc == 1, str(result)
    assert "exit code 3" in result.err
    assert time.monotonic() - begun < 2 * SOON_S * machine.slowness()


# ---- the state of a failed step --------------------------------------------------------------------------------------


class Shell:
    """`pyrun builder debug` on a terminal."""

    def __init__(self, pyrun: Pyrun, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [pyrun.command, "builder", "debug", *args], stdin=slave, stdout=slave, stderr=slave, env=pyrun.environ,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def expect(self, text: bytes) -> None:
        """Reads until `text` has come."""
        deadline = time.monotonic() + SOON_S * machine.slowness()
        while text not in self.seen:
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
            assert time.monotonic() < deadline, f"waited for {text!r}, saw {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(SOON_S * machine.slowness())
        finally:
            os.close(self.master)


FAILS = """FROM busybox AS base
RUN echo base >/base
FROM busybox
ENV WHO=builder
WORKDIR /work
RUN --mount=type=cache,target=/cache --mount=type=secret,id=key --mount=from=base,source=/base,target=/mnt/base \
    echo half >half; echo kept >/cache/kept; exit 9
"""


def test_a_shell_where_a_step_failed(builder: Pyrun, tmp_path: Path) -> None:
    """The files as the step left them, its variables, directory and caches; what is done there stays there."""
    (tmp_path / "key").write_text("s3cret")
    result = builder("build", "--secret", f"id=key,src={tmp_path}/key", dockerfile(tmp_path, FAILS))
    assert result.rc == 1
    state = debug.last_failed(builder.paths)
    assert state is not None
    assert "s3cret" not in str(state)
    for _ in range(2):  # it is as it was, also after somebody has changed things in a shell
        shell = Shell(builder)
        shell.expect(b"secret on /run/secrets/key")
        shell.expect(b"# ")
        os.write(shell.master, b'echo "[$WHO $(pwd) $(cat half /mnt/base /cache/kept | tr "\\n" " ")$(ls | wc -l)]"\n')
        shell.expect(b"[builder /work half base kept 1]")
        os.write(shell.master, b"rm half; touch other; exit 7\n")
        assert shell.end() == 7
    leftovers.assert_none(builder)


def test_a_program_instead_of_the_shell(builder: Pyrun, tmp_path: Path) -> None:
    """builder debug COMMAND runs that."""
    builder("build", dockerfile(tmp_path, "FROM busybox\nUSER 1000\nRUN exit 1\n"))
    shell = Shell(builder, "id", "-u")
    shell.expect(b"1000")
    assert shell.end() == 0


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "terminal", "detach", "monitor"])
def test_a_shell_ends_with_its_client(builder: Pyrun, tmp_path: Path, how: str) -> None:
    """However the client goes: no process, no container and no directory stays, and the state can be opened again."""
    builder("build", dockerfile(tmp_path, "FROM busybox\nRUN exit 1\n"))
    images = builder.ok("images", "-aq")
    shell = Shell(builder)
    shell.expect(b"# ")
    os.write(shell.master, b"sleep 7654 & echo $((3 + 4))up\n")
    shell.expect(b"7up")
    (container_id,) = builder.ok("ps", "-q", "--no-trunc").split()
    pid = int(builder.ok("inspect", "--format", "{{.State.Pid}}", container_id))
    if how == "terminal":
        os.close(shell.master)
        shell.process.wait(SOON_S * machine.slowness())
    elif how == "monitor":  # the next one takes over a shell that has no client any more
        os.kill(half_started.monitor_pid(builder), signal.SIGKILL)
        shell.end()
        builder.ok("build", "-q", dockerfile(tmp_path, "FROM busybox\nRUN true\n"), "-t", "next")
        images = builder.ok("images", "-aq")
    else:
        os.write(shell.master, b"\x10\x11") if how == "detach" else shell.process.send_signal(getattr(signal, how))
        shell.end()
    half_started.until(lambda: not half_started.alive(pid), "the shell to end")
    half_started.until(lambda: not builder.ok("ps", "-aq"), "its container to be removed")
    assert not os.path.exists(builder.paths.container(container_id))
    assert builder.ok("images", "-aq") == images
    assert debug.last_failed(builder.paths) is not None


def test_no_failed_step(builder: Pyrun) -> None:
    """There is none: said so."""
    result = builder("builder", "debug")
    assert result.rc == 1
    assert "no failed step" in result.err


def test_three_states_are_kept_with_their_layers(builder: Pyrun, tmp_path: Path) -> None:
    """The newest three; the layers below them stay though nothing else needs them, until `builder prune -af`."""
    for number in range(5):
        text = f"FROM busybox\nRUN echo {number} >/n\nRUN exit {number + 1}\n"
        assert builder("build", dockerfile(tmp_path, text)).rc == 1
    states = debug.failed(builder.paths)
    assert [state.argv[-1] for state in states] == ["exit 5", "exit 4", "exit 3"]
    assert len(os.listdir(debug.directory(builder.paths))) == 3
    builder.ok("image", "prune", "-af")
    layers = f"{builder.paths.data}/layers"
    assert all(os.path.isdir(f"{layers}/{one.removeprefix('sha256:')}/fs") for state in states for one in state.layers)
    stray = f"{layers}/new-0123.kept"
    os.mkdir(stray)
    os.utime(stray, (0, 0))
    builder.ok("builder", "prune", "-af")
    assert debug.failed(builder.paths) == []
    assert [name for name in os.listdir(layers) if name != "lock"] == []
