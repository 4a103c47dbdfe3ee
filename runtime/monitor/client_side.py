# SPDX-License-Identifier: Apache-2.0
"""The monitor's side of a client: one connection, one request, and the relaying while it is attached."""

from __future__ import annotations

import os
import struct

from pyrun.runtime import __version__
from pyrun.runtime.errors import Conflict, PyrunError
from pyrun.runtime.monitor import sockets, worker
from pyrun.runtime.monitor.answers import describe_error
from pyrun.runtime.monitor.calls import BUILTIN, DEFERRED
from pyrun.runtime.monitor.channel import Channel
from pyrun.runtime.monitor.protocol import (
    ACCEPTED,
    COMMAND,
    DETACH,
    DETACHED,
    ERROR,
    EXIT,
    REQUEST,
    RESIZE,
    RESULT,
    SIGNAL,
    STDIN,
    STDIN_EOF,
    ProtocolError,
    numbers,
    pack_json,
    unpack_command,
    unpack_json,
    unpack_request,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping
    from typing import Any

    from pyrun.runtime.monitor.attachment import Attachment
    from pyrun.runtime.monitor.server import Monitor
    from pyrun.runtime.monitor.session import Session
    from pyrun.runtime.monitor.task import Task

#: what a worker may be sent while it works for the client; the others wait until there is a process to send them to
FORWARDED = frozenset(worker.POLITE)
REQUEST_WITHIN_S = 30.0  # a connection that says nothing must not keep the monitor from ending


class Client:
    """A connection from the same user. After its REQUEST it has either a worker, or an attachment, or both."""

    def __init__(self, monitor: Monitor, sock: _socket.socket) -> None:
        self.monitor = monitor
        self.task: Task | None = None
        self.attachment: Attachment | None = None
        self._requested = False
        self.channel = Channel(monitor.loop, sock, self._frame, self._closed)
        self._patience = monitor.loop.after(REQUEST_WITHIN_S, self.channel.close)

    def attach(self, session: Session, spec: Mapping[str, Any], *, ready: bool) -> None:
        """Connects this client to a session; ready=False: stdin and signals only when its worker says so."""
        if self.attachment is not None:
            raise PyrunError(f"attach {session.id}", "this client is attached already")
        self.attachment = session.attach(self.channel, spec)
        if ready:
            self.attachment.ready()

    # ---- what calls need of whom they answer (calls.py)

    @property
    def client(self) -> Client:
        """Itself: a call that came without a worker in between."""
        return self

    def answer(self, value: Any) -> None:
        """The value of the call; the last frame."""
        self.channel.send(RESULT, pack_json({"value": value}))
        self.channel.finish()

    def refuse(self, error: PyrunError | Mapping[str, Any]) -> None:
        """The error of the request; the last frame."""
        described = describe_error(error) if isinstance(error, PyrunError) else error
        self.channel.send(ERROR, pack_json(described))
        self.channel.finish()

    def take_fds(self) -> list[int]:
        """The fds that came with the request."""
        return self.channel.take_fds()

    # ---- the request

    def _frame(self, kind: int, payload: bytes) -> None:
        handler = _FRAMES.get(kind)
        if handler is None or self._requested == (kind == REQUEST):
            raise ProtocolError(f"frame of type {kind} from a client")
        handler(self, payload)

    def _request(self, payload: bytes) -> None:
        self._requested = True
        self._patience.cancel()
        kind, version, data_root, body = unpack_request(payload)
        if version != __version__ and self.monitor.retire(self):
            self.channel.close()  # without ACCEPTED: the client tries again, and starts a monitor of its version
            return
        self.channel.send(ACCEPTED)  # before anything is done: without it the client may try again
        fds: list[int] = []
        try:
            self._check_data_root(data_root)
            if kind == COMMAND:
                fds = self.take_fds()
                self._command(body, fds)
            else:
                self._call(unpack_json(body))
        except PyrunError as error:
            self.refuse(error)
        except (KeyError, TypeError, ValueError, OSError) as error:
            self.refuse(PyrunError("request", f"{type(error).__name__}: {error}"))
        finally:
            sockets.close_all(fds)  # the worker has its own by fork

    def _check_data_root(self, asked: str) -> None:
        serves = self.monitor.paths
        if asked != serves.data:
            raise Conflict(
                f"use data root {asked}", f"the monitor of run root {serves.run} serves {serves.data}",
                hint="give each data root a run root of its own: --run-root",
            )  # fmt: skip

    def _command(self, payload: bytes, fds: list[int]) -> None:
        raw_argv, environ, umask = unpack_command(payload)
        if len(fds) != 4:
            raise ProtocolError(f"a command comes with stdin, stdout, stderr and cwd, not {len(fds)} descriptors")
        argv = [os.fsdecode(word) for word in raw_argv]
        setup = self.monitor.setup(argv[0] if argv else "", stdio=fds[:3], cwd_fd=fds[3], umask=umask, environ=environ)
        handlers = self.monitor.handlers
        self.task = self.monitor.start(setup, lambda link: handlers.run_command(argv, link), self._command_ended, self)

    def _call(self, args: dict[str, Any]) -> None:
        name = str(args.pop("call", ""))
        builtin = BUILTIN.get(name)
        if builtin is not None:
            value = builtin(self.monitor, self, args)
            if value is not DEFERRED:
                self.answer(value)
            return
        handlers = self.monitor.handlers
        fds = self.take_fds()
        if fds:
            args["fds"] = fds
        try:
            setup = self.monitor.setup(name, keep=fds)
            body = worker.answering(lambda link: handlers.call(name, args, link))
            self.task = self.monitor.start(setup, body, self._call_ended, self)
        finally:
            sockets.close_all(fds)

    def _command_ended(self, task: Task) -> None:
        attachment = self.attachment
        if attachment is not None and (task.code == 0 or attachment.is_ready):
            attachment.ready()
            return
        if attachment is not None:
            attachment.session.detach(attachment)
        self.channel.send(EXIT, struct.pack("<i", task.code))
        self.channel.finish()

    def _call_ended(self, task: Task) -> None:
        if task.error is not None:
            self.refuse(task.error)
        elif task.killed or task.code:
            hint = "see monitor.log in the run root"
            self.refuse(PyrunError(task.name, f"the worker ended with {task.code}", hint=hint))
        else:
            self.answer(task.value)

    # ---- while it lasts

    def _stdin(self, payload: bytes) -> None:
        attachment = self._ready_attachment()
        if attachment is not None:
            attachment.session.input(attachment, payload)

    def _stdin_eof(self, _payload: bytes) -> None:
        attachment = self._ready_attachment()
        if attachment is not None:
            attachment.session.end_of_input(attachment)

    def _signal(self, payload: bytes) -> None:
        (number,) = numbers("<B", payload)
        attachment = self._ready_attachment()
        if attachment is not None:
            if attachment.sig_proxy:
                attachment.session.signal(number)
        elif self.task is not None and number in FORWARDED:
            self.task.signal(number)

    def _resize(self, payload: bytes) -> None:
        rows, columns = numbers("<HH", payload)
        attachment = self._ready_attachment()
        if attachment is not None:
            attachment.session.resize(rows, columns)

    def _detach(self, _payload: bytes) -> None:
        attachment = self._ready_attachment()
        if attachment is not None:
            attachment.session.detach(attachment)
            self.channel.send(DETACHED)
            self.channel.finish()

    def _ready_attachment(self) -> Attachment | None:
        return self.attachment if self.attachment is not None and self.attachment.is_ready else None

    def _closed(self) -> None:
        self._patience.cancel()
        if self.task is not None and self.task.working and self._ready_attachment() is None:
            self.task.terminate()
        if self.attachment is not None:
            self.attachment.session.detach(self.attachment)
        self.monitor.forget_client(self)


_FRAMES: dict[int, Callable[[Client, bytes], None]] = {
    REQUEST: Client._request,
    STDIN: Client._stdin,
    STDIN_EOF: Client._stdin_eof,
    SIGNAL: Client._signal,
    RESIZE: Client._resize,
    DETACH: Client._detach,
}
