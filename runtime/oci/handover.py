# SPDX-License-Identifier: Apache-2.0
"""Handing a descriptor to the caller through its Unix socket: --console-socket and --pidfd-socket."""

from __future__ import annotations

import os
import struct

from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

AF_UNIX, SOCK_STREAM, SOCK_CLOEXEC, SOL_SOCKET, SCM_RIGHTS = 1, 1, 0o2000000, 1, 1
SUN_PATH = 108  # unix(7): bytes of an address, with its NUL


def connect(path: str) -> socket:
    """A connection to the listening socket at `path`, of any length. Raises PyrunError."""
    from _socket import socket

    made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    directory = -1
    try:
        address = path
        if len(os.fsencode(path)) >= SUN_PATH:
            head, tail = os.path.split(path)
            directory = os.open(head or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            address = f"/proc/self/fd/{directory}/{tail}"
        made.connect(address)
    except OSError as error:
        made.close()
        raise PyrunError(f"connect to {path}", (error.strerror or str(error)).lower()) from None
    finally:
        if directory >= 0:
            os.close(directory)
    return made


def send(connection: socket, name: str, fd: int) -> None:
    """One message: `name` as the payload, the descriptor beside it. Closes the connection. Raises PyrunError."""
    try:
        connection.sendmsg([name.encode()], [(SOL_SOCKET, SCM_RIGHTS, struct.pack("=i", fd))])
    except OSError as error:
        raise PyrunError(f"send {name}", (error.strerror or str(error)).lower()) from None
    finally:
        connection.close()
