# SPDX-License-Identifier: Apache-2.0
"""exec of an OCI runtime ($RUNTIME), and the sockets that create and exec hand descriptors to."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import tarfile
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from oci_bundle import CAPABILITIES, IS_PYRUN, Oci
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = requires(root=True)


@pytest.fixture(scope="module")
def rootfs(busybox_tar: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    made = tmp_path_factory.mktemp("rootfs")
    with tarfile.open(busybox_tar) as tar:
        tar.extractall(made)
    return made


@pytest.fixture(scope="module")
def oci(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Iterator[Oci]:
    """The runtime, with the container "box" running; afterwards its containers are removed."""
    made = Oci(tmp_path_factory.mktemp("oci"), rootfs)
    made.start("box", "sleep", "1000")
    yield made
    made.end()


def process_file(oci: Oci, *args: str, **more: Any) -> str:
    """A file for --process, as containerd writes it."""
    process = {
        "args": list(args), "cwd": "/", "env": ["PATH=/bin", "FROM=file"], "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES}, **more,
    }  # fmt: skip
    path = oci.directory / "process.json"
    path.write_text(json.dumps(process))
    return str(path)


def detached(oci: Oci, *words: str) -> int:
    """Runs a command whose process outlives it: its streams are the null device. Gives the exit code."""
    null = subprocess.DEVNULL
    return subprocess.run(oci.words(*words), stdin=null, stdout=null, stderr=null, timeout=60, check=False).returncode


def test_streams_and_exit_code(oci: Oci) -> None:
    """In the foreground the program has our streams, and its exit code is ours."""
    done = oci("exec", "box", "sh", "-c", "cat; echo err >&2; exit 7", stdin="typed\n")
    assert (done.code, done.out, done.err) == (7, "typed\n", "err\n")


def test_exit_code_of_a_signal(oci: Oci) -> None:
    """128 and the signal."""
    assert oci("exec", "box", "sh", "-c", "kill -9 $$").code == 137


def test_flags_change_the_container_s_process(oci: Oci) -> None:
    """-e, -u, -g and --cwd stand in for the parts of the container's own process; the rest stays."""
    words = ("-e", "A=b c", "--user", "5:6", "--additional-gids", "7", "--cwd", "/tmp")
    out = oci.ok("exec", *words, "box", "sh", "-c", 'echo "$FROM/$A/$(pwd)"; id -u; id -g; id -G')
    assert out.splitlines() == ["bundle/b c//tmp", "5", "6", "6 7"]


def test_flags_of_the_program_are_its_own(oci: Oci) -> None:
    """After the id nothing is a flag of ours."""
    assert oci.ok("exec", "box", "echo", "-e", "--user", "x") == "--user x\n"


def test_process_file(oci: Oci) -> None:
    """--process replaces the container's process as a whole, streaming as CRI-O calls it."""
    done = oci("exec", "--process", process_file(oci, "sh", "-c", "echo $FROM; exit 4"), "box")
    assert (done.code, done.out) == (4, "file\n")


def test_capabilities_and_no_new_privileges(oci: Oci) -> None:
    """--cap adds to the container's capabilities; --no-new-privs is seen in /proc."""

    def status(*flags: str) -> dict[str, str]:
        out = oci.ok("exec", *flags, "box", "cat", "/proc/self/status")
        return dict(line.partition(":\t")[::2] for line in out.splitlines())

    plain, more = status(), status("--cap", "CAP_NET_RAW", "--no-new-privs")
    assert int(more["CapEff"], 16) == int(plain["CapEff"], 16) | 1 << 13
    assert (plain["NoNewPrivs"], more["NoNewPrivs"]) == ("0", "1")


def test_own_failures_are_255(oci: Oci) -> None:
    """A program that is not there, a container that is not there; the words are those that callers look for."""
    missing = oci("exec", "box", "/no/such/program")
    assert missing.code == 255
    assert "no such file or directory" in missing.err
    nobody = oci("exec", "nobody", "true")
    assert nobody.code == 255 if IS_PYRUN else nobody.code
    assert "does not exist" in nobody.err


def test_detached_with_pid_file(oci: Oci, tmp_path: Path) -> None:
    """The pid file has digits and no newline when exec returns, and the process is the caller's orphan."""
    pid_file = tmp_path / "pid"
    assert (
        detached(
            oci, "exec", "--process", process_file(oci, "sleep", "50"), "--detach", "--pid-file", str(pid_file), "box"
        )
        == 0
    )
    pid = pid_file.read_text()
    assert pid.isdecimal()
    assert int(pid) in json.loads(oci.ok("ps", "--format", "json", "box"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["pid"]
    os.kill(int(pid), signal.SIGKILL)


def test_failed_detached_writes_no_pid_file(oci: Oci, tmp_path: Path) -> None:
    """conmon knows a failure by the missing pid file."""
    assert detached(oci, "exec", "--detach", "--pid-file", str(tmp_path / "pid"), "box", "/no/such/program") == 255
    assert not list(tmp_path.iterdir())


def test_signals_are_forwarded(oci: Oci) -> None:
    """SIGTERM to exec in the foreground reaches the program, which decides what becomes of it."""
    words = oci.words(
        "exec", "box", "sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, out) == (5, "got\n")


def test_paused_container(oci: Oci) -> None:
    """exec is refused while the container is paused."""
    oci.ok("pause", "box")
    try:
        assert oci("exec", "box", "true").code == 255
    finally:
        oci.ok("resume", "box")


def received(listener: socket.socket) -> tuple[bytes, int]:
    """What a caller of the console socket gets: the payload, and the descriptor."""
    listener.settimeout(30)
    connection, _ = listener.accept()
    with connection:
        data, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    ((_, kind, raw),) = control
    assert kind == socket.SCM_RIGHTS
    return data, array.array("i", raw)[0]


def listening(path: Path) -> socket.socket:
    """A socket that listens at the path."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def read_until(fd: int, text: bytes) -> bytes:
    """What a terminal says up to `text`."""
    data = b""
    end = time.monotonic() + 30
    while text not in data and time.monotonic() < end:
        try:
            data += os.read(fd, 4096)
        except OSError:
            break
    return data


def test_console_socket_of_exec(oci: Oci, tmp_path: Path) -> None:
    """The master end of the terminal comes through the socket, and what is typed there is the program's input."""
    with listening(tmp_path / "console") as listener:
        words = ("--console-socket", str(tmp_path / "console"), "--detach", "--tty")
        assert detached(oci, "exec", *words, "box", "sh", "-c", "tty; read x; echo got-$x") == 0
        name, fd = received(listener)
    assert name
    os.write(fd, b"typed\n")
    said = read_until(fd, b"got-typed")
    assert b"/dev/pts/" in said
    assert b"got-typed" in said
    os.close(fd)


def test_console_socket_of_create(oci: Oci, tmp_path: Path) -> None:
    """The same for a container with process.terminal; its size is the configuration's."""
    bundle = oci.bundle("sh", "-c", "stty size", terminal=True, consoleSize={"height": 33, "width": 99})
    with listening(tmp_path / "console") as listener:
        oci.create("term", bundle, "--console-socket", str(tmp_path / "console"))
        _, fd = received(listener)
    oci.ok("start", "term")
    assert b"33 99" in read_until(fd, b"33 99")
    os.close(fd)


@pytest.mark.parametrize("command", ["exec", "run"])
def test_terminal_in_the_foreground(oci: Oci, command: str) -> None:
    """Without a socket the program's terminal is relayed to ours: its size, what is typed, the exit code."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 21, 77, 0, 0))
    script = ("sh", "-c", "stty size; read x; echo got-$x; exit 3")
    if command == "exec":
        words = oci.words("exec", "--tty", "box", *script)
    else:
        words = oci.words("run", "--bundle", str(oci.bundle(*script, terminal=True)), "relayed")
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as running:
        os.close(theirs)
        said = read_until(ours, b"21 77")
        os.write(ours, b"typed\r")
        said += read_until(ours, b"got-typed")
        assert running.wait(30) == 3
    os.close(ours)
    assert b"21 77" in said
    assert b"got-typed" in said


def test_terminal_needs_a_socket(oci: Oci, tmp_path: Path) -> None:
    """Nothing is left behind when there is nobody to give the terminal to."""
    bundle = oci.bundle("true", terminal=True)
    refused = oci("create", "--bundle", str(bundle), "none")
    assert refused.code == 1
    assert "cannot allocate" in refused.err
    assert detached(oci, "create", "--bundle", str(bundle), "--console-socket", str(tmp_path / "no"), "none") == 1
    assert "does not exist" in oci("state", "none").err
    assert detached(oci, "exec", "--detach", "--tty", "box", "true") != 0


@pytest.mark.skipif(not IS_PYRUN, reason="requires pyrun: runc 1.1 has no such flag")
def test_pidfd_socket(oci: Oci, tmp_path: Path) -> None:
    """The init's pidfd comes through the socket."""
    with listening(tmp_path / "pidfd") as listener:
        pid = oci.create("pidfd", oci.bundle("true"), "--pidfd-socket", str(tmp_path / "pidfd"))
        _, fd = received(listener)
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        assert f"Pid:\t{pid}\n" in file.read()
    os.close(fd)
