# SPDX-License-Identifier: Apache-2.0
"""Workers: forks of the warm monitor that do one request each; and the link by which they speak to it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class WorkerLink:
    """The worker's side of its socketpair with the monitor. Every method blocks until the monitor has answered."""

    def adopt(self, session: dict[str, Any], fds: dict[str, int]) -> None:
        """Hands a process to the monitor, which from now on owns it: reads its output, reaps it, calls exited().

        Call it before the process runs the user's program: when this returns, the session is also in the keeper, so
        that no kill -9 can lose it. The fds stay the caller's to close.

        Args:
            session: {"id", "kind": "container" | "exec", "tty": bool,
                "pid": int (for `sessions`; optional),
                "log": {"dir", "max_size_bytes", "max_files"} or None,
                "stdin": "none" | "open" (stays open when a client goes) | "once" (closed with its first client),
                "attach": None, or {"stdin", "stdout", "stderr", "sig_proxy": bool, "detach_keys": str} to connect the
                    client of this request as soon as this worker calls started() or exits with 0}
            fds: "pidfd"; and either "tty" (the pty master) or "stdout", "stderr" (read ends), "stdin" (write end, optional).
        Raises PyrunError when the monitor refuses, OSError (EPIPE) when it is gone: then undo the start.
        """
        raise NotImplementedError

    def started(self, session_id: str) -> None:
        """The program runs: connect the client that adopt() or attach() named now, not at this worker's exit."""
        raise NotImplementedError

    def attach(
        self, session_id: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True,
        sig_proxy: bool = True, detach_keys: bytes = b"\x10\x11",
    ) -> None:  # fmt: skip
        """Connects the client of this request to a running session once this worker has exited with 0; the client's
        exit code is then the session's. Raises NotFound."""
        raise NotImplementedError

    def hold_sockets(self, session_id: str, fds: Sequence[int], targets: Sequence[Any]) -> None:
        """Keeps the sockets (reserved or listening: published ports) open until the session has ended.

        targets[i] (JSON) is given to handlers.make_relay() with fds[i]. The fds stay the caller's to close.
        """
        raise NotImplementedError

    def wait(self, session_id: str) -> int:
        """The exit code of a session, when it has finished. Raises NotFound at once if there is no such session."""
        raise NotImplementedError

    def request(self, name: str, **args: Any) -> Any:
        """Any call that the monitor answers itself (see pyrun.runtime.monitor)."""
        raise NotImplementedError
