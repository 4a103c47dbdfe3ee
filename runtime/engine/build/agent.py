# SPDX-License-Identifier: Apache-2.0
"""RUN --mount=type=ssh: a socket for the step that leads to the caller's agent.

Not the agent's own socket: that belongs to the caller, and a step whose user is not root could not connect to it. This
one has the owner and mode that the mount asks for, and is gone with the step. A step may see the keys and sign with
them, and nothing else: no removing, adding or locking, and no PKCS#11 library loaded into the caller's agent
(CVE-2023-38408). BuildKit draws the same line.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading

from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

CHUNK = 64 << 10
MAX_CONNECTIONS = 64
MAX_MESSAGE = 256 << 10  # bytes: OpenSSH's
# the agent protocol (draft-ietf-sshm-ssh-agent): 4 bytes of length, one that tells the kind, and the rest
REQUEST_IDENTITIES, SIGN_REQUEST, EXTENSION = 11, 13, 27
FAILURE = b"\0\0\0\1\5"
EXTENSIONS = (b"session-bind@openssh.com", b"query")  # for keys that are good for certain hosts only


class AgentRelay:
    """Listens at `directory`/agent, from start() to close(), in a thread of its own."""

    def __init__(self, directory: str, agent: str) -> None:
        self.path = f"{directory}/agent"
        self._directory = directory
        self._agent = agent
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._wake, self._waker = socket.socketpair()
        self._peers: dict[int, tuple[socket.socket, socket.socket]] = {}  # fd -> (it, the other end)
        self._asked: dict[int, bytearray] = {}  # fd of a client -> the beginning of a request
        self._thread = threading.Thread(target=self._serve, name="ssh agent", daemon=True)

    def start(self, uid: int, gid: int, mode: int) -> Self:
        """Raises NotFound when nobody listens at the agent's socket, OSError."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
                probe.connect(self._agent)
        except OSError as error:
            self._close_sockets()
            what = f"ssh agent at {self._agent}"
            raise NotFound(what, os.strerror(error.errno or 0).lower(), hint="is $SSH_AUTH_SOCK still right?") from None
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{directory}/agent")  # sun_path has 108 bytes
        finally:
            os.close(directory)
        os.chown(self.path, uid, gid)
        os.chmod(self.path, mode)
        self._listener.listen(MAX_CONNECTIONS)
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends all connections. The socket's file goes with its directory."""
        self._waker.close()
        for one, _ in list(self._peers.values()):
            try:
                one.shutdown(socket.SHUT_RDWR)  # the thread may be sending to one that does not read
            except OSError:
                continue
        if self._thread.ident is not None:
            self._thread.join()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in (self._listener, self._wake, self._waker):
            one.close()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake.fileno():
                    for one, _other in list(self._peers.values()):
                        one.close()
                    return
                if fd == self._listener.fileno():
                    self._accept(poll)
                elif fd in self._peers:  # else its other end has just gone
                    self._pass_on(poll, fd)

    def _accept(self, poll: select.poll) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if len(self._peers) >= 2 * MAX_CONNECTIONS:
                raise ConnectionRefusedError
            agent.connect(self._agent)
        except OSError:
            client.close()
            agent.close()
            return
        for one, other in ((client, agent), (agent, client)):
            self._peers[one.fileno()] = (one, other)
            poll.register(one, select.POLLIN)
        self._asked[client.fileno()] = bytearray()

    def _pass_on(self, poll: select.poll, fd: int) -> None:
        source, target = self._peers[fd]
        try:
            data = source.recv(CHUNK)
            if data:
                target.sendall(self._allowed(source, data) if fd in self._asked else data)
                return
        except OSError:
            pass
        for one in (source, target):
            poll.unregister(one)
            del self._peers[one.fileno()]
            self._asked.pop(one.fileno(), None)
            one.close()

    def _allowed(self, client: socket.socket, data: bytes) -> bytes:
        """The whole requests so far that the agent may get; the others are answered here. OSError for what is none."""
        waiting = self._asked[client.fileno()]
        waiting += data
        passed = b""
        while len(waiting) >= 4:
            end = 4 + int.from_bytes(waiting[:4], "big")
            if not 4 < end <= MAX_MESSAGE:
                raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
            if len(waiting) < end:
                break
            request = bytes(waiting[:end])
            del waiting[:end]
            if _harmless(request):
                passed += request
            else:
                client.sendall(FAILURE)
        return passed


def _harmless(request: bytes) -> bool:
    if request[4] == EXTENSION:
        length = int.from_bytes(request[5:9], "big")
        return request[9 : 9 + length] in EXTENSIONS
    return request[4] in (REQUEST_IDENTITIES, SIGN_REQUEST)
