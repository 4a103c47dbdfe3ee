# SPDX-License-Identifier: Apache-2.0
"""What the monitor asks of the layers above it. `runtime.cli.monitor` builds one and hands it to server.serve().

Every method but make_relay() runs in a forked worker, never in the monitor's own process; what a worker raises or
however it dies, the monitor goes on.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from pyrun.runtime.monitor.loop import Loop
    from pyrun.runtime.monitor.worker import WorkerLink
else:
    Protocol = object  # typing costs 10 ms to import; only checkers need the real one


class Relay(Protocol):
    """Something that forwards connections of a held socket, driven by the monitor's loop."""

    def close(self) -> None:
        """Stops it: closes every fd that it opened itself (not the socket it was given)."""


class Handlers(Protocol):
    """See the module's text. `link` is the worker's line to the monitor."""

    def run_command(self, argv: list[str], link: WorkerLink) -> int:
        """Runs a command line as if this process were the client, whose stdio, directory, umask and environment it
        has; returns the exit code. Renders its own errors on fd 2. SIGINT, SIGTERM, SIGHUP and SIGQUIT of the user
        arrive as SystemExit(128 + n): clean up, let it pass."""

    def call(self, name: str, args: dict[str, Any], link: WorkerLink) -> Any:
        """The JSON value that answers client.request({"call": name, **args}). Raises PyrunError."""

    def exited(self, session_id: str, returncode: int | None, link: WorkerLink) -> dict[str, Any]:
        """A container's process has ended and its output is logged: clean up after it.

        `returncode` is the exit code, -N for death by signal N, None when nobody can know (see docs/architecture.md).
        Must be idempotent: if the monitor dies meanwhile, the next one calls it again.
        Returns {"code": what waiting clients get, "restart_after_s": seconds or None}; a restart is
        call("start", {"id": session_id, "restart": True}) in a worker.
        """

    def recover(self, link: WorkerLink) -> None:
        """Removes what crashed workers or a killed monitor left: called at the monitor's start and after a worker
        died by a signal. Containers that run but that the monitor does not know (link.request("sessions")) can be
        adopted again with link.adopt()."""

    def begin(self, loop: Loop, later: Callable[[str, float, str, dict[str, Any]], None]) -> None:
        """Called once in the monitor, before it serves: may watch descriptors on its loop. later(key, seconds, name,
        args) runs call(name, args) in a worker. Must not block, must not raise."""

    def make_relay(self, fd: int, target: Any, loop: Loop) -> Relay | None:
        """Starts forwarding from the listening (or UDP) socket `fd` to `target` (the JSON given to hold_sockets());
        None when holding the socket is all that is wanted. Runs in the monitor: must not block, must not raise."""
