# SPDX-License-Identifier: Apache-2.0
"""One framed, non-blocking connection of the monitor: to a client, or to a worker."""

from __future__ import annotations

import os
from collections import deque

from pyrun.runtime.monitor import sockets
from pyrun.runtime.monitor.loop import READ, WRITE, Loop
from pyrun.runtime.monitor.protocol import HEADER, MAX_FDS, Parser, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

READ_SIZE = 128 * 1024


class Channel:
    """Calls on_frame(kind, payload) for every frame and on_close() once, when the other side or close() ended it.

    `fds` holds what came by SCM_RIGHTS and nobody has taken yet; what is left when a frame has been handled is closed.
    """

    def __init__(
        self, loop: Loop, sock: _socket.socket, on_frame: Callable[[int, bytes], object], on_close: Callable[[], object]
    ) -> None:
        self.fds: list[int] = []
        self.on_drain: Callable[[], object] | None = None
        self.queued = 0  # bytes waiting to be sent
        self.open = True
        self._loop = loop
        self._sock = sock
        self._on_frame = on_frame
        self._on_close = on_close
        self._parser = Parser()
        self._out: deque[memoryview] = deque()
        self._closing = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._ready)

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Queues a frame, and sends at once what the socket takes. Nothing happens on a closed channel."""
        if not self.open or self._closing:
            return
        self._out.append(memoryview(HEADER.pack(len(payload), kind)))
        if payload:
            self._out.append(memoryview(payload))
        self.queued += HEADER.size + len(payload)
        self._flush()

    def finish(self) -> None:
        """close(), once everything queued has been sent."""
        self._closing = True
        if not self._out:
            self.close()

    def close(self) -> None:
        """Ends the connection now."""
        if not self.open:
            return
        self.open = False
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._close_fds()
        self._out.clear()
        self.queued = 0
        self._on_close()

    def take_fds(self) -> list[int]:
        """The fds received with the frame being handled; they are the caller's from now on."""
        fds, self.fds = self.fds, []
        return fds

    def read_rest(self) -> None:
        """Handles all that is there to be read, now: what a worker said just before it ended."""
        while self.open and self._read():
            pass

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & ~WRITE:
            self._read()

    def _read(self) -> bool:
        """Whether there may be more to read."""
        try:
            data, fds = sockets.receive(self._sock, READ_SIZE, MAX_FDS)
        except BlockingIOError:
            return False
        except OSError:  # reset, or more fds than allowed
            self.close()
            return False
        self.fds += fds
        try:
            if not data or len(self.fds) > MAX_FDS:
                raise ProtocolError("end of file" if not data else "too many descriptors")
            for kind, payload in self._parser.feed(data):
                if not self.open:
                    return False
                self._on_frame(kind, payload)
            if self._parser.empty:  # else they belong to the frame that is still coming
                self._close_fds()
        except ProtocolError:
            self.close()
            return False
        return True

    def _close_fds(self) -> None:
        sockets.close_all(self.take_fds())

    def _flush(self) -> None:
        fd = self._sock.fileno()
        try:
            while self._out:
                self._sent(os.writev(fd, [self._out[i] for i in range(min(len(self._out), 64))]))
        except BlockingIOError:
            self._loop.watch(fd, READ | WRITE, self._ready)
            return
        except OSError:
            self.close()
            return
        if not self.open:  # on_drain() may have closed it
            return
        self._loop.watch(fd, READ, self._ready)
        if self._closing:
            self.close()

    def _sent(self, count: int) -> None:
        self.queued -= count
        while count:
            first = self._out[0]
            if count < len(first):
                self._out[0] = first[count:]
                break
            count -= len(first)
            self._out.popleft()
        if self.on_drain is not None:
            self.on_drain()
