# SPDX-License-Identifier: Apache-2.0
"""What travels between clients, the monitor and its workers: frames over a Unix stream socket in the run root.

    u32 length of the payload (little-endian) · u8 type · payload

    client ──> monitor                                   monitor ──> client
    REQUEST    a command line or a call, with fds        ACCEPTED  the request was read; a lost connection before
    STDIN      bytes for the process; within CREDIT                this frame may be retried, after it may not
    STDIN_EOF  no more of them                           RESULT    JSON: the value of a call
    SIGNAL     u8 number                                 ERROR     JSON: {"what", "why", "hint", "code", "kind"}
    RESIZE     u16 rows, u16 columns                     STDOUT STDERR  bytes of the process
    DETACH     the user typed the detach keys            ATTACHED  u8 flags, u32 credit, the detach keys
                                                         CREDIT    u32: so many more STDIN bytes may be sent
    worker ──> monitor (its own socketpair)              EXIT      i32: the exit code; the last frame
    LINK       JSON {"call": …}, with fds                DETACHED  the monitor let go of the session; the last frame
    (answered by RESULT or ERROR); and EXIT

STDIN needs credit so that a process that does not read cannot hold up the SIGNAL frames behind its input.
Fds come as SCM_RIGHTS with the first bytes of a REQUEST or LINK frame. Both sides check SO_PEERCRED (unix(7)): only
the same uid is served, and only the same uid is trusted with an environment.
A malformed or oversized frame raises ProtocolError: whoever reads it closes that connection and goes on.
"""

from __future__ import annotations

import os
import struct

REQUEST, STDIN, STDIN_EOF, SIGNAL, RESIZE, DETACH = 1, 2, 3, 4, 5, 6
ACCEPTED, RESULT, ERROR, STDOUT, STDERR, ATTACHED, CREDIT, EXIT, DETACHED = 16, 17, 18, 19, 20, 21, 22, 23, 24
LINK = 32

HEADER = struct.Struct("<IB")
SMALL = 64 * 1024  # the most one data frame carries
LARGE = 8 << 20  # REQUEST (an environment may have ARG_MAX: 2 MiB by default, 6 MiB at most), RESULT, LINK
LIMITS = {REQUEST: LARGE, RESULT: LARGE, ERROR: LARGE, LINK: LARGE}
MAX_FDS = 250  # the kernel takes 253 in one message (SCM_MAX_FD)
STDIN_WINDOW = 64 * 1024  # bytes of STDIN a client may have under way

TTY, WANTS_STDIN, SIG_PROXY = 1, 2, 4  # flags of ATTACHED
DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q, docker's

COMMAND, CALL = b"C", b"J"  # the first byte of a REQUEST

_attached = struct.Struct("<BI")
_command = struct.Struct("<II")


class ProtocolError(Exception):
    """The other side sent what this protocol does not allow; only its connection suffers."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame, ready to be sent."""
    return HEADER.pack(len(payload), kind) + payload


class Parser:
    """Cuts a byte stream into frames: feed() what arrived, get the complete (type, payload) pairs."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Whether nothing of an unfinished frame is held."""
        return not self._buffer

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """All frames that `data` completes. Raises ProtocolError for an oversized frame, whatever follows it."""
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            length, kind = HEADER.unpack_from(buffer, start)
            if length > LIMITS.get(kind, SMALL):
                raise ProtocolError(f"frame of type {kind} has {length} bytes")
            end = start + HEADER.size + length
            if len(buffer) < end:
                break
            frames.append((kind, bytes(memoryview(buffer)[start + HEADER.size : end])))
            start = end
        del buffer[:start]
        return frames


def pack_request(kind: bytes, version: str, data_root: str, body: bytes) -> bytes:
    """The payload of a REQUEST: COMMAND or CALL, who asks (pyrun's version, the data root it means), and the rest."""
    return b"%b%b\0%b\0%b" % (kind, version.encode(), os.fsencode(data_root), body)


def unpack_request(payload: bytes) -> tuple[bytes, str, str, bytes]:
    """(kind, version, data root, body) of pack_request()'s payload. Raises ProtocolError."""
    parts = payload[1:].split(b"\0", 2)
    if payload[:1] not in (COMMAND, CALL) or len(parts) != 3:
        raise ProtocolError("not a request")
    return payload[:1], parts[0].decode("utf-8", "replace"), os.fsdecode(parts[1]), parts[2]


def pack_command(argv: list[bytes], environ: list[bytes], umask: int) -> bytes:
    """The body of a COMMAND. Strings are bytes: whatever execve(2) took, comes through."""
    return _command.pack(umask, len(argv)) + b"".join([word + b"\0" for word in argv + environ])


def unpack_command(payload: bytes) -> tuple[list[bytes], list[bytes], int]:
    """(argv, environ as KEY=VALUE, umask) of pack_command()'s body. Raises ProtocolError."""
    if len(payload) < _command.size:
        raise ProtocolError("not a command")
    umask, count = _command.unpack_from(payload)
    *strings, rest = payload[_command.size :].split(b"\0")
    if umask > 0o777 or count > len(strings) or rest:
        raise ProtocolError("command is cut off")
    return strings[:count], strings[count:], umask


def pack_json(value: object) -> bytes:
    """`value` as compact JSON; lone surrogates (undecodable bytes of paths) survive as \\udcXX."""
    import json  # 7 ms: the thin client never gets here

    return json.dumps(value, separators=(",", ":")).encode()


def unpack_json(payload: bytes) -> dict[str, object]:
    """The JSON object in `payload`. Raises ProtocolError for anything else."""
    import json

    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError("not a JSON object")
    return value


def pack_attached(*, tty: bool, stdin: bool, sig_proxy: bool, detach_keys: bytes) -> bytes:
    """The payload of ATTACHED; the credit it carries is the whole window."""
    return _attached.pack(tty * TTY | stdin * WANTS_STDIN | sig_proxy * SIG_PROXY, STDIN_WINDOW) + detach_keys


def unpack_attached(payload: bytes) -> tuple[int, int, bytes]:
    """(flags, credit, detach keys). Raises ProtocolError."""
    if len(payload) < _attached.size:
        raise ProtocolError("ATTACHED is cut off")
    flags, credit = _attached.unpack_from(payload)
    return flags, credit, payload[_attached.size :]


def numbers(form: str, payload: bytes) -> tuple[int, ...]:
    """The integers of a fixed-size payload ("<i" for EXIT, "<HH" for RESIZE, …). Raises ProtocolError."""
    try:
        return struct.unpack(form, payload)
    except struct.error:
        raise ProtocolError(f"payload of {len(payload)} bytes is not {form}") from None
