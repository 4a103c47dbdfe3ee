# SPDX-License-Identifier: Apache-2.0
"""A running process that the monitor owns: its output to the log and to clients, their input to it, its end.

    running ──pidfd readable──> draining ──output ended, or DRAIN_S──> finishing (container: finisher fork) ──> over

What is read goes to the log first, exactly once (inbox.py), then to every attached client. A client that does not
read holds up the process, as docker's does: its queue is bounded, and the source is not read while it is full.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
import termios
import time
from collections import deque
from functools import partial

from pyrun.runtime.monitor.attachment import FRAMES, Attachment
from pyrun.runtime.monitor.fault import fault
from pyrun.runtime.monitor.inbox import BATCH, TAIL
from pyrun.runtime.monitor.logs import MAX_FILES, MAX_SIZE_BYTES, LogWriter, render, render_rest
from pyrun.runtime.monitor.loop import READ, WRITE
from pyrun.runtime.monitor.pidfd import pid_of, returncode_of
from pyrun.runtime.monitor.protocol import CREDIT
from pyrun.runtime.monitor.sockets import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from pyrun.runtime.monitor.channel import Channel
    from pyrun.runtime.monitor.inbox import Ledger
    from pyrun.runtime.monitor.keeper import Keeper
    from pyrun.runtime.monitor.loop import Loop, Timer

    class Host(Protocol):
        """What a session needs of the monitor."""

        loop: Loop
        ledger: Ledger
        keeper: Keeper

        def note(self, text: str) -> None: ...
        def exited(self, session: Session) -> None: ...


DRAIN_S = 2.0  # moby waits as long for the output of a process that has ended; a daemonised child may hold it for ever
RETRY_S = 1.0  # after an error that may pass
QUEUE = 256 * 1024  # bytes a client may be behind before the process is held up

RUNNING, DRAINING, FINISHING, OVER = "running", "draining", "finishing", "over"


class Output:
    """One stream of the process: the fd to read, its name, its slot in the ledger (-1: not logged)."""

    __slots__ = ("fd", "name", "slot")

    def __init__(self, fd: int, name: str, slot: int) -> None:
        self.fd = fd
        self.name = name
        self.slot = slot


class Session:
    """See the module's text. `spec` is what WorkerLink.adopt() was given; `fds` are the session's from now on."""

    def __init__(
        self, host: Host, spec: dict[str, Any], fds: dict[str, int], slots: dict[str, int] | None = None
    ) -> None:
        self.host = host
        self.spec = spec
        self.id: str = spec["id"]
        self.kind: str = spec["kind"]
        self.tty = bool(spec.get("tty"))
        self.leash = bool((spec.get("attach") or {}).get("leash"))
        self.state = RUNNING
        self.returncode: int | None = None
        self.attached: list[Attachment] = []
        self.on_over: list[Callable[[int], object]] = []
        self._fds = fds
        self.pidfd = fds["pidfd"]
        self.pid = pid_of(self.pidfd)
        self.stdin_fd = os.dup(fds["tty"]) if self.tty else fds.get("stdin", -1)
        self._input: deque[tuple[Attachment, memoryview]] = deque()
        self._lost = 0
        self._deadline: Timer | None = None
        self._paused = False
        log = spec.get("log")
        self.log = None
        if log:
            limits = {"max_size_bytes": MAX_SIZE_BYTES, "max_files": MAX_FILES, **log}
            self.log = LogWriter(limits["dir"], max_size_bytes=limits["max_size_bytes"], max_files=limits["max_files"])
        names = {"tty": "stdout"} if self.tty else {name: name for name in FRAMES}
        names = {key: name for key, name in names.items() if key in fds}
        if slots is None:
            slots = {name: host.ledger.claim() for name in names.values()} if self.log else {}
        self.slots = slots
        self.outputs = [Output(fds[key], name, slots.get(name, -1)) for key, name in names.items()]
        for output in self.outputs:
            os.set_blocking(output.fd, False)
        if self.stdin_fd >= 0:
            os.set_blocking(self.stdin_fd, False)

    def keep(self) -> None:
        """Gives the keeper a copy of everything that a later monitor needs to go on."""
        data = {"session": self.spec, "names": list(self._fds), "slots": self.slots}
        self.host.keeper.put(self.id, json.dumps(data).encode(), list(self._fds.values()))

    def run(self) -> None:
        """Begins to serve it."""
        self.host.loop.watch(self.pidfd, READ, self.process_ended)
        self._resume()
        self._nobody_left()  # the client went before the hand-over, or with a former monitor

    # ---- output

    def _resume(self) -> None:
        self._paused = False
        for output in self.outputs:
            self.host.loop.watch(output.fd, READ, partial(self._readable, output))

    def _pause(self) -> None:
        self._paused = True
        for output in self.outputs:
            self.host.loop.unwatch(output.fd)

    def _client_drained(self) -> None:
        if self._paused and all(one.behind < QUEUE // 2 for one in self.attached):
            self._resume()

    def _readable(self, output: Output, _events: int) -> None:
        self._read(output)

    def _read(self, output: Output) -> bool:
        """Reads one batch; whether there may be more."""
        if output.fd < 0:
            return False
        try:
            data = self._take(output)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # no memory: what is in the pipe stays there
                self._try_later(output, error)
                return False
            data = b""  # nobody has the terminal open any more
        if not data:
            self._close_output(output)
            return False
        self._fan_out(output.name, data)
        return True

    def _try_later(self, output: Output, error: OSError) -> None:
        self.host.note(f"{self.id}: reading {output.name}: {error}")
        self._pause()
        self.host.loop.after(RETRY_S, self._client_drained)

    def _take(self, output: Output) -> bytes:
        if self.log is None:
            return os.read(output.fd, BATCH)
        ledger = self.host.ledger
        ledger.begin(output.slot, self.log.inode, self.log.size)
        try:
            data = ledger.take(output.fd, self._batch(), terminal=self.tty)
        except OSError:
            ledger.cancel()
            raise
        if not data:
            ledger.cancel()
            return b""
        self.record(output, data)
        return data

    def _batch(self) -> int:
        """How much to take at once: less for a log whose files are small, which are rotated between batches only."""
        assert self.log is not None
        limit = self.log.max_size_bytes
        return max(1024, min(BATCH, limit // 16)) if limit > 0 else BATCH

    def record(self, output: Output, data: bytes) -> None:
        """Logs what is in the ledger's inbox and ends the transfer."""
        ledger = self.host.ledger
        former = ledger.tail(output.slot)
        lines, tail = render(former + data, output.name, time.time_ns())
        self._append(lines, len(former) + len(data) - len(tail))
        ledger.commit(output.slot, tail)

    def _append(self, lines: bytes, count: int) -> None:
        if not lines or self.log is None:
            return
        try:
            if self._lost:
                said = f"pyrun: {self._lost} bytes of output are missing here: the disk was full\n".encode()
                lines = render(said, "stderr", time.time_ns())[0] + lines
            if self.log.make_room(len(lines)):
                fault("log-rotated")
                self.host.ledger.rotated(self.log.inode, self.log.size)
            self.log.append(lines)
            self._lost = 0
        except OSError as error:  # the process is not held up for its log
            if not self._lost:
                self.host.note(f"{self.id}: log: {error}")
            self._lost += count
        fault("logged")

    def _fan_out(self, name: str, data: bytes) -> None:
        for attachment in tuple(self.attached):
            if name not in attachment.streams:
                continue
            attachment.output(FRAMES[name], data)
            if attachment.behind > QUEUE and not self._paused:
                self._pause()

    def _close_output(self, output: Output) -> None:
        self.host.loop.unwatch(output.fd)
        os.close(output.fd)
        for key, fd in tuple(self._fds.items()):
            if fd == output.fd:
                del self._fds[key]
        output.fd = -1
        self.outputs.remove(output)
        self._flush_tail(output)
        if not self.outputs and self.state == DRAINING:
            self._finish()

    def _flush_tail(self, output: Output) -> None:
        """Logs the line that the stream left unfinished."""
        if output.slot < 0 or self.log is None:
            return
        ledger = self.host.ledger
        tail = ledger.tail(output.slot)
        if tail:
            ledger.begin(output.slot, self.log.inode, self.log.size)
            self._append(render_rest(tail, output.name, time.time_ns()), len(tail))
            ledger.commit(output.slot, b"")

    # ---- clients

    def attach(self, channel: Channel, spec: Mapping[str, Any]) -> Attachment:
        """Connects a client: output from now on."""
        attachment = Attachment(channel, self, spec)
        self.attached.append(attachment)
        channel.on_drain = self._client_drained
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """The client has gone, or typed the detach keys. The process goes on, unless it is on a leash."""
        if attachment not in self.attached:
            return
        self.attached.remove(attachment)
        self._input = deque(item for item in self._input if item[0] is not attachment)
        if attachment.stdin and self.spec.get("stdin") == "once" and not self.tty:
            self._input_ends(attachment)
        if self._paused and self.state in (RUNNING, DRAINING):
            self._client_drained()
        self._nobody_left()

    def _nobody_left(self) -> None:
        """What is only there for its client ends with it: a shell that nobody can type into would stay for ever."""
        if self.leash and not self.attached and self.state == RUNNING:
            self.signal(signal.SIGKILL)

    def input(self, attachment: Attachment, data: bytes) -> None:
        """Bytes from a client for the process; they count against its credit until the process has taken them."""
        attachment.credit -= len(data)
        if attachment.credit < 0:
            attachment.channel.close()
        elif attachment.stdin and self.stdin_fd >= 0:
            self._input.append((attachment, memoryview(data)))
            self._write_input(WRITE)
        else:
            self._give_credit(attachment, len(data))

    def end_of_input(self, attachment: Attachment) -> None:
        """The client's stdin has ended."""
        if attachment.stdin and self.spec.get("stdin") == "once" and not self.tty:
            self._input_ends(attachment)

    def _input_ends(self, attachment: Attachment) -> None:
        attachment.stdin = False
        if self._input:
            self._input.append((attachment, memoryview(b"")))  # after what is still to be written
        else:
            self._close_stdin()

    def _write_input(self, _events: int) -> None:
        while self._input and self.stdin_fd >= 0:
            attachment, data = self._input[0]
            if not data:
                self._close_stdin()
                return
            try:
                written = os.write(self.stdin_fd, data)
            except BlockingIOError:
                self.host.loop.watch(self.stdin_fd, WRITE, self._write_input)
                return
            except OSError:  # EPIPE, EIO: the process has closed its stdin
                self._close_stdin()
                return
            if written == len(data):
                self._input.popleft()
            else:
                self._input[0] = (attachment, data[written:])
            self._give_credit(attachment, written)
        if self.stdin_fd >= 0:
            self.host.loop.unwatch(self.stdin_fd)

    @staticmethod
    def _give_credit(attachment: Attachment, count: int) -> None:
        attachment.credit += count
        attachment.channel.send(CREDIT, struct.pack("<I", count))

    def _close_stdin(self) -> None:
        if self.stdin_fd < 0:
            return
        self.host.loop.unwatch(self.stdin_fd)
        os.close(self.stdin_fd)
        self.stdin_fd = -1
        pending, self._input = self._input, deque()
        for attachment, data in pending:
            if data:
                self._give_credit(attachment, len(data))
        if self._fds.pop("stdin", None) is not None and self.state == RUNNING:
            self.keep()  # without the write end: the process reads end of file only when no copy is open

    def signal(self, number: int) -> None:
        """Sends a signal to the process, by pidfd: never to another one."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except (ProcessLookupError, PermissionError, OSError, ValueError):
            pass  # ended, or not a signal

    def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size; the kernel sends SIGWINCH."""
        if self.tty and "tty" in self._fds:
            fcntl.ioctl(self._fds["tty"], termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # ---- the end

    def process_ended(self, _events: int = 0) -> None:
        """The pidfd is readable, or the monitor has met the zombie: takes the exit status, drains the output."""
        if self.state != RUNNING:
            return
        self.host.loop.unwatch(self.pidfd)
        self.state = DRAINING
        self.returncode = returncode_of(self.pidfd)
        fault("exited")
        if self.outputs:
            self._deadline = self.host.loop.after(DRAIN_S, self._drain_no_longer)
        else:
            self._finish()

    def _drain_no_longer(self) -> None:
        """Somebody still holds the output: take what is there, a pipe's worth, and let go."""
        for output in tuple(self.outputs):
            for _ in range(16):
                if not self._read(output):
                    break
            if output.fd >= 0:
                self._close_output(output)

    def _finish(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.state = FINISHING
        self._close_stdin()
        for slot in self.slots.values():
            self.host.ledger.release(slot)
        if self.log is not None:
            self.log.close()
        self.host.exited(self)

    def over(self, code: int) -> None:
        """Everything is cleaned up: tells all who wait. Called by the monitor."""
        self.state = OVER
        close_all(list(self._fds.values()))
        for attachment in tuple(self.attached):  # each may detach itself when its connection closes
            attachment.end(code)
        self.attached.clear()
        for callback in self.on_over:
            callback(code)


assert TAIL >= 16 * 1024 - 1  # render() never leaves more
