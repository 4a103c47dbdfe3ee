# SPDX-License-Identifier: Apache-2.0
"""One command in the VM: the host's half of the protocol in guest/agent.sh, streams, terminal, time limit."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import shlex
import socket
import time
from typing import NamedTuple

from .errors import VmError, VmTimeoutError
from .machine import TERMINAL, Machine, exit_text
from .terminal import raw_terminal

BOOT_TIMEOUT = 300.0  # seconds; 5 to 20 on an idle machine
RESUME_TIMEOUT = 120.0  # seconds; half of one on an idle machine
CHUNK = 65536
ESCAPE = b"\x1d"  # ^], typed three times in a row, ends a VM that does not answer
STREAMS = {"out": 1, "err": 2, TERMINAL: 1}  # port -> this process's file descriptor


class Job(NamedTuple):
    """What the guest is to do."""

    command: str  # for bash; "" for an interactive shell
    checkout: str
    venv: str  # "" for none
    out: bool  # whether /out is a directory of the host
    tty: bool
    stdin: bool
    timeout: float | None  # seconds


class Control:
    """The agent's line protocol."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.port = machine.ports["ctl"]
        self._buffer = b""

    def lines(self) -> list[list[str]]:
        """The lines that have come, in words; reads once. Raises VmError when the agent says FAIL or is gone."""
        data = _receive(self.port)
        if not data:
            raise VmError(f"qemu ended: {exit_text(self.machine.end_status())}")
        *complete, self._buffer = (self._buffer + data).split(b"\n")
        lines = [line.decode(errors="replace").split() for line in complete if line.strip()]
        for words in lines:
            if words[0] == "FAIL":
                raise VmError(f"in the VM: {' '.join(words[1:])}")
        return lines

    def expect(self, verb: str, timeout: float = RESUME_TIMEOUT) -> None:
        """Waits for the line that starts with `verb`. Raises VmError."""
        end = time.monotonic() + timeout
        while True:
            if not select.select([self.port], [], [], max(0.0, end - time.monotonic()))[0]:
                raise VmError(f"the VM did not say {verb} within {timeout:.0f} s (--console FILE shows why)")
            for words in self.lines():
                if words[0] == verb:
                    return
                raise VmError(f"the VM said {' '.join(words)!r} instead of {verb}")

    def say(self, line: str) -> None:
        """Sends one line. Raises VmError when qemu is gone."""
        try:
            self.port.sendall(line.encode() + b"\n")
        except OSError as error:
            raise VmError("the VM closed its control port") from error


def wait_for_agent(machine: Machine) -> None:
    """Returns when a booted machine is ready for its snapshot. Raises VmError."""
    Control(machine).expect("SNAPREADY", BOOT_TIMEOUT)


def greet(machine: Machine) -> Control:
    """Brings a resumed machine to the point where it takes a job: gives it the time and a seed. Raises VmError."""
    control = Control(machine)
    control.say("HELLO")
    control.expect("RESUMED")
    control.say(
        f"{time.time():.6f} {os.urandom(32).hex()}"
    )  # its clock stood still, its random state is the snapshot's
    control.expect("READY")
    return control


def run(machine: Machine, control: Control, job: Job) -> int:
    """Runs the job in a greeted machine with this process's stdin, stdout and stderr; its exit status.

    Raises VmError, and VmTimeoutError when the job takes longer than it may.
    """
    control.say(base64.b64encode(settings(job).encode()).decode())
    control.expect("RUNNING")
    relay = Relay(machine, control, job)
    with raw_terminal(relay.resize) if job.tty else contextlib.nullcontext():
        status = relay.until_exit()
        relay.drain()
    return status


def settings(job: Job) -> str:
    """The job as assignments for the agent's shell."""
    values = {
        "command": job.command,
        "checkout": job.checkout,
        "directory": job.checkout,
        "venv": job.venv,
        "out": "yes" if job.out else "",
        "tty": "yes" if job.tty else "",
        "term": os.environ.get("TERM", "linux"),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


class Relay:
    """Moves bytes between the ports and this process's own streams until the command ends."""

    def __init__(self, machine: Machine, control: Control, job: Job) -> None:
        self.control = control
        self.ports = machine.ports
        self.deadline = time.monotonic() + job.timeout if job.timeout else None
        self.timeout = job.timeout
        self.streams = {machine.ports[name]: fd for name, fd in STREAMS.items()}
        self.input = machine.ports[TERMINAL if job.tty else "in"]
        self.pending = b""  # from stdin, not taken by the guest yet
        self.reading = job.stdin
        self.tty = job.tty
        self.escapes = 0
        if not job.stdin:
            self._end_input()

    def until_exit(self) -> int:
        """Relays until the agent reports the status of the command, and returns that."""
        while True:
            left = None if self.deadline is None else self.deadline - time.monotonic()
            if left is not None and left <= 0:
                raise VmTimeoutError(f"the command did not end within {self.timeout:g} s")
            readers: list[socket.socket | int] = [self.control.port, *self.streams]
            if self.reading and not self.pending:
                readers.append(0)
            writers = [self.input] if self.pending else []
            ready, writable, _ = select.select(readers, writers, [], left)
            for source in ready:
                if source == 0:
                    self._read_input()
                elif source is self.control.port:
                    for words in self.control.lines():
                        if words[0] == "EXIT":
                            return int(words[1])
                elif isinstance(source, socket.socket):
                    self._pass_on(source)
            if writable:
                self.pending = self.pending[self.input.send(self.pending[:4096]) :]
                if not self.pending and not self.reading:
                    self._end_input()

    def drain(self) -> None:
        """Passes on what the guest had sent before it reported the status."""
        for port in list(self.streams):
            while port in self.streams and select.select([port], [], [], 0)[0]:
                self._pass_on(port)

    def resize(self) -> None:
        """Tells the guest the size of this terminal."""
        columns, rows = os.get_terminal_size(0)
        self.control.say(f"SIZE {rows} {columns}")

    def _pass_on(self, port: socket.socket) -> None:
        data = _receive(port)
        if not data:
            del self.streams[port]  # the control port tells why
        while data:
            data = data[os.write(self.streams[port], data) :]

    def _read_input(self) -> None:
        self.pending = os.read(0, CHUNK)
        self.escapes = self.escapes + 1 if self.tty and self.pending == ESCAPE else 0
        if self.escapes == 3:
            raise KeyboardInterrupt
        if not self.pending:
            self.reading = False
            self._end_input()

    def _end_input(self) -> None:
        if not self.tty:  # the end of a terminal's input is a key
            self.input.shutdown(socket.SHUT_WR)


def _receive(port: socket.socket) -> bytes:
    try:
        return port.recv(CHUNK)
    except ConnectionResetError:
        return b""
