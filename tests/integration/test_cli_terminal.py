# SPDX-License-Identifier: Apache-2.0
"""-it, attach and exec -it on a real terminal: raw mode, sizes, signals, detach keys."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

import machine
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli import Pyrun

pytestmark = requires(root=True)

DETACH = b"\x10\x11"  # ctrl-p ctrl-q


class Terminal:
    """A pyrun command on a terminal of its own, as a person sees it."""

    def __init__(self, pyrun: Pyrun, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [pyrun.command, *args], stdin=slave, stdout=slave, stderr=slave, env=pyrun.environ, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def expect(self, text: bytes, seconds: float = 10) -> None:
        """Reads until `text` has come; drops everything up to its end."""
        deadline = time.monotonic() + seconds * machine.slowness()
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self.seen += os.read(self.master, 65536)
            assert time.monotonic() < deadline, f"waited for {text!r}, saw {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def wait(self, seconds: float = 10) -> int:
        """The exit code; what is still written is read meanwhile, as a terminal does."""
        deadline = time.monotonic() + seconds * machine.slowness()
        while self.process.poll() is None:
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if ready:
                self.seen += os.read(self.master, 65536)
            assert time.monotonic() < deadline, f"still running; saw {self.seen!r}"
        return self.process.returncode

    def restored(self) -> bool:
        """Whether the terminal's settings are what they were."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """A list whose terminals are closed after the test."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def open_terminal(terminals: list[Terminal], pyrun: Pyrun, *args: str) -> Terminal:
    terminals.append(Terminal(pyrun, *args))
    return terminals[-1]


def test_a_shell(pyrun: Pyrun, base_image: str, terminals: list[Terminal]) -> None:
    """It is a terminal of the right size with job control; the exit code is the shell's; the user's settings return."""
    terminal = open_terminal(terminals, pyrun, "run", "--rm", "-it", "--network", "none", base_image, "sh")
    terminal.expect(b"# ")
    terminal.type(b"tty; stty size; echo $TERM\n")
    terminal.expect(b"/dev/pts/0\r\n24 80\r\nxterm\r\n")
    terminal.resize(40, 132)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.type(b"sleep 0.2; stty size\n")
    terminal.expect(b"\r\n40 132\r\n")
    terminal.type(b"sleep 100\n")
    time.sleep(0.3)
    terminal.type(b"\x03")  # ^C ends the sleep, not the shell
    terminal.type(b"echo alive$?\n")
    terminal.expect(b"alive130")
    terminal.type(b"exit 7\n")
    assert terminal.wait() == 7
    assert terminal.restored()


def test_detach_and_attach(pyrun: Pyrun, base_image: str, terminals: list[Terminal]) -> None:
    """ctrl-p ctrl-q leaves it running; attach comes back; its end is the end of attach too."""
    first = open_terminal(terminals, pyrun, "run", "-it", "--name", "web", "--network", "none", base_image, "sh")
    first.expect(b"# ")
    first.type(DETACH)
    assert first.wait() == 0
    assert first.restored()
    assert pyrun.ok("ps", "--format", "{{.Names}}") == "web"
    second = open_terminal(terminals, pyrun, "attach", "web")
    time.sleep(0.3)
    second.type(b"echo back\n")
    second.expect(b"\r\nback\r\n")
    second.type(b"exit 3\n")
    assert second.wait() == 3
    assert pyrun.ok("inspect", "-f", "{{.State.ExitCode}}", "web") == "3"


def test_own_detach_keys(pyrun: Pyrun, base_image: str, terminals: list[Terminal]) -> None:
    """--detach-keys replaces them: ctrl-p is then an ordinary key."""
    command = ("run", "-it", "--name", "web", "--detach-keys", "ctrl-a,d", "--network", "none", base_image, "cat")
    terminal = open_terminal(terminals, pyrun, *command)
    terminal.type(b"hello\n")
    terminal.expect(b"hello\r\nhello\r\n")
    terminal.type(b"\x01d")
    assert terminal.wait() == 0
    assert pyrun.ok("ps", "-q")


def test_exec_with_a_terminal(pyrun: Pyrun, base_image: str, terminals: list[Terminal]) -> None:
    """A second shell beside the program."""
    pyrun.ok("run", "-d", "--name", "web", "--network", "none", base_image, "sleep", "1000")
    terminal = open_terminal(terminals, pyrun, "exec", "-it", "web", "sh")
    terminal.expect(b"# ")
    terminal.type(b"stty size; exit 5\n")
    terminal.expect(b"24 80\r\n")
    assert terminal.wait() == 5
    assert terminal.restored()
    assert pyrun.ok("inspect", "-f", "{{.State.Running}}", "web") == "true"


def test_t_without_a_terminal_is_refused(pyrun: Pyrun, base_image: str) -> None:
    """As docker: `echo x | pyrun run -it` cannot be meant."""
    done = pyrun("run", "--rm", "-it", "--network", "none", base_image, "cat", stdin="x")
    assert done.rc == 125
    assert "the input device is not a terminal" in done.err


def test_signals_reach_the_program(pyrun: Pyrun, base_image: str) -> None:
    """SIGTERM to an attached `pyrun run` is the program's; its answer is the exit code."""
    process = pyrun.popen(
        "run", "--rm", "--network", "none", base_image, "sh", "-c",
        "trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.05; done",
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (6, b"bye\n")


def test_closing_stdin_ends_the_program(pyrun: Pyrun, base_image: str) -> None:
    """-i without a terminal: the end of the input is the program's end of file."""
    process = pyrun.popen("run", "--rm", "-i", "--network", "none", base_image, "cat")
    out, _ = process.communicate(b"one\ntwo", timeout=30)
    assert (process.returncode, out) == (0, b"one\ntwo")


def test_a_closed_stdout_does_not_stop_the_container(pyrun: Pyrun, base_image: str) -> None:
    """`pyrun logs -f | head -1` ends quietly."""
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
    process = pyrun.popen("logs", "-f", "web")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"x\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == b""
    assert pyrun.ok("ps", "-q")
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()
