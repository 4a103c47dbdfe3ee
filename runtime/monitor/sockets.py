# SPDX-License-Identifier: Apache-2.0
"""Unix sockets in the run root: connect, listen, who is at the other end, and messages with fds.

`_socket` is the C module behind `socket`, which imports selectors, enum and more: 7 ms that every command would pay.
"""

from __future__ import annotations

import _socket
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STREAM = _socket.SOCK_STREAM
SEQPACKET = _socket.SOCK_SEQPACKET

_LONGEST = 107  # sockaddr_un.sun_path less its final NUL: unix(7)
_INT = 4


class _At:
    """The address of the socket file `path`, however long the path is: by way of its directory's fd if it must be."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._dir = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _LONGEST:
            return self._path
        directory, name = os.path.split(self._path)
        self._dir = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._dir}/{name}"

    def __exit__(self, *_: object) -> None:
        if self._dir >= 0:
            os.close(self._dir)


def connect(path: str, kind: int = STREAM) -> _socket.socket:
    """A socket connected to the one bound at `path`, which must be listened on by our own uid.

    Raises FileNotFoundError, ConnectionRefusedError (nobody listens), PermissionError (somebody else does).
    """
    sock = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        with _At(path) as address:
            sock.connect(address)
        if peer_uid(sock) != os.geteuid():
            raise PermissionError(f"{path} belongs to another user's process")
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: str, kind: int = STREAM) -> _socket.socket:
    """A non-blocking socket listening at `path`, in place of whatever socket file was there (the caller knows that
    nobody listens on it). Mode 0600. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        mask = os.umask(0o177)
        try:
            with _At(path) as address:
                sock.bind(address)
        finally:
            os.umask(mask)
        sock.listen(512)  # a burst of commands must not be refused
    except BaseException:
        sock.close()
        raise
    return sock


def accept(listener: _socket.socket) -> _socket.socket | None:
    """The next connection of our own uid, non-blocking; None when there is none (others are closed unheard)."""
    while True:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # typeshed lacks it; socket.accept() calls it
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:  # ECONNABORTED, or out of fds: the loop comes back while the backlog lasts
            return None
        sock = _socket.socket(fileno=fd)
        try:
            if peer_uid(sock) == os.geteuid():
                sock.setblocking(False)
                return sock
        except OSError:
            pass
        sock.close()


def peer_uid(sock: _socket.socket) -> int:
    """The effective uid that the other end had when it connected or listened. SO_PEERCRED, unix(7)."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], "little" if _LITTLE else "big")  # struct ucred: pid, uid, gid


def send(sock: _socket.socket, data: bytes, fds: Sequence[int] = ()) -> int:
    """sendmsg(2) of `data` and copies of `fds`; returns how many bytes went (the fds went if any did)."""
    if not fds:
        return sock.send(data, _socket.MSG_NOSIGNAL)
    raw = b"".join(fd.to_bytes(_INT, "little" if _LITTLE else "big") for fd in fds)
    return sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)], _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int]]:
    """recvmsg(2): the data ("" at the end) and the fds that came with it, close-on-exec. Raises OSError.

    EMSGSIZE when something was cut off (fds that did come are closed).
    """
    data, ancillary, flags, _ = sock.recvmsg(size, _socket.CMSG_SPACE(max_fds * _INT), _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(raw) // _INT * _INT
            fds += [int.from_bytes(raw[i : i + _INT], "little" if _LITTLE else "big") for i in range(0, whole, _INT)]
    if flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC):
        close_all(fds)
        raise OSError(90, os.strerror(90))
    return data, fds


def close_all(fds: Sequence[int]) -> None:
    """Closes every fd of the list."""
    for fd in fds:
        os.close(fd)


def _little_endian() -> bool:
    import sys

    return sys.byteorder == "little"


_LITTLE = _little_endian()
