# SPDX-License-Identifier: Apache-2.0
"""A client on a session: what it gets of the output, what it may send, and how it hears of the end."""

from __future__ import annotations

import struct

from pyrun.runtime.monitor.protocol import ATTACHED, EXIT, STDERR, STDIN_WINDOW, STDOUT, pack_attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyrun.runtime.monitor.channel import Channel
    from pyrun.runtime.monitor.session import Session

FRAMES = {"stdout": STDOUT, "stderr": STDERR}


class Attachment:
    """One client on a session, from ready() on: what the process wrote before is held until then, because a terminal
    must be raw before it gets output. EXIT comes when both the session and the worker that attached it are through."""

    def __init__(self, channel: Channel, session: Session, spec: Mapping[str, Any]) -> None:
        self.channel = channel
        self.session = session
        self.streams = {name for name in FRAMES if spec.get(name)}
        self.stdin = bool(spec.get("stdin")) and session.stdin_fd >= 0
        self.sig_proxy = bool(spec.get("sig_proxy"))
        self.detach_keys = str(spec.get("detach_keys", "\x10\x11")).encode("latin-1", "replace")
        self.is_ready = False
        self.credit = STDIN_WINDOW
        self._held: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self._code: int | None = None

    def ready(self) -> None:
        """Tells the client that it is attached."""
        if self.is_ready:
            return
        self.is_ready = True
        self.channel.send(
            ATTACHED,
            pack_attached(
                tty=self.session.tty, stdin=self.stdin, sig_proxy=self.sig_proxy, detach_keys=self.detach_keys
            ),
        )
        held, self._held, self._held_bytes = self._held, [], 0
        for kind, data in held:
            self.channel.send(kind, data)
        if self._code is not None:
            self.end(self._code)

    @property
    def behind(self) -> int:
        """Bytes of output that the client has not taken yet."""
        return self.channel.queued + self._held_bytes

    def output(self, kind: int, data: bytes) -> None:
        """What the process wrote: a STDOUT or STDERR frame."""
        if self.is_ready:
            self.channel.send(kind, data)
        else:
            self._held.append((kind, data))
            self._held_bytes += len(data)

    def end(self, code: int) -> None:
        """The session is over; the client hears it when it has been told that it is attached."""
        self._code = code
        if self.is_ready:
            self.channel.send(EXIT, struct.pack("<i", code))
            self.channel.finish()
