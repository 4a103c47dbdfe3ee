# SPDX-License-Identifier: Apache-2.0
"""The monitor's side of a worker: its process, its link, what it has said, and what to do when it has ended."""

from __future__ import annotations

import os
import signal

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.monitor import worker
from pyrun.runtime.monitor.answers import describe_error
from pyrun.runtime.monitor.calls import BUILTIN, DEFERRED, SILENT, WORKERS
from pyrun.runtime.monitor.channel import Channel
from pyrun.runtime.monitor.protocol import ERROR, EXIT, LINK, RESULT, ProtocolError, numbers, pack_json, unpack_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.runtime.monitor.client_side import Client
    from pyrun.runtime.monitor.server import Monitor

GRACE_S = 10.0  # between SIGTERM and SIGKILL for a worker whose client has gone: its clean-ups may take a while


class Task:
    """A worker. `client` is the connection it works for, if any; on_end(task) is called when it has ended.

    After the end: `code` (exit code, or 128 + N), `killed` (ended by a signal), `value` or `error` (what it said).
    """

    def __init__(
        self, monitor: Monitor, setup: worker.Setup, body: Callable[[worker.WorkerLink], int],
        on_end: Callable[[Task], object], client: Client | None = None,
    ) -> None:  # fmt: skip
        self.monitor = monitor
        self.name = setup.name
        self.client = client
        self.value: Any = None
        self.error: dict[str, Any] | None = None
        self.code = 125
        self.killed = False
        self.adopted: set[str] = set()
        self.holding: set[str] = set()
        self._over = False
        self._on_end = on_end
        self.pid, sock = worker.fork(setup, body)
        self._link = Channel(monitor.loop, sock, self._frame, lambda: None)

    def signal(self, number: int) -> None:
        """Sends a signal to the worker; it is our child and not reaped, so the pid is its own."""
        if self.pid > 0:
            os.kill(self.pid, number)

    @property
    def working(self) -> bool:
        """Whether it has neither ended nor said that it is about to."""
        return self.pid > 0 and not self._over

    def terminate(self) -> None:
        """SIGTERM now, SIGKILL after a grace."""
        self.signal(signal.SIGTERM)
        self.monitor.loop.after(GRACE_S, self._kill)

    def _kill(self) -> None:
        if self.working:
            self.signal(signal.SIGKILL)

    def reaped(self, status: int) -> None:
        """The worker is reaped; `status` is its wait status."""
        self.pid = -1
        self._link.read_rest()
        self._link.close()
        if not self._over:  # it could not say that it was about to end
            code = os.waitstatus_to_exitcode(status)
            self.killed = code < 0
            self._ended(128 - code if code < 0 else code)

    def _ended(self, code: int) -> None:
        self._over = True
        self.code = code
        for session_id in self.holding - self.adopted:
            if session_id not in self.monitor.sessions:
                self.monitor.release_sockets(session_id)
        self._on_end(self)

    # ---- what calls need of whom they answer (calls.py)

    def answer(self, value: Any) -> None:
        """The value of the call that the worker waits for."""
        self._link.send(RESULT, pack_json({"value": value}))

    def refuse(self, error: PyrunError) -> None:
        """The error of that call."""
        self._link.send(ERROR, pack_json(describe_error(error)))

    def take_fds(self) -> list[int]:
        """The fds that came with that call."""
        return self._link.take_fds()

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == EXIT and not self._over:
            self._ended(numbers("<i", payload)[0])
            return
        if kind != LINK or self._over:
            raise ProtocolError(f"frame of type {kind} from a worker")
        args = unpack_json(payload)
        name = args.pop("call", "")
        call = WORKERS.get(str(name)) or BUILTIN.get(str(name))
        try:
            if call is None:
                raise PyrunError(f"call {name}", "the monitor has no such call")
            value = call(self.monitor, self, args)
            if value is not DEFERRED and call not in SILENT:
                self.answer(value)
        except PyrunError as error:
            self.refuse(error)
        except (KeyError, TypeError, ValueError, OSError) as error:
            self.refuse(PyrunError(f"call {name}", f"{type(error).__name__}: {error}"))
