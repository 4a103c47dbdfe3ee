# SPDX-License-Identifier: Apache-2.0
"""Encoding a plan for pyrun-init, by the signatures of runtime/kernel/init/wire.h (read by cffi, never repeated)."""

from __future__ import annotations

import os
import struct

from pyrun.runtime.kernel import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    #: u: int · s: str · b: bytes · l: sequence of str · f: a descriptor's name, None for none
    Arg = int | str | bytes | Sequence[str] | None


class Wire:
    """Collects encoded steps and the descriptors that they name."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self.fd_names: list[str] = []

    def add(self, operation: str, args: Sequence[Arg]) -> None:
        """Appends one step. Raises ValueError when the arguments do not fit the operation's signature."""
        number, signature = wire.OPERATIONS[operation]
        if len(args) != len(signature):
            raise ValueError(f"{operation} takes {len(signature)} arguments, got {len(args)}")
        body = b"".join([self._encode(kind, arg) for kind, arg in zip(signature, args, strict=True)])
        self._records.append(struct.pack("=HHI", number, 0, len(body)) + body)

    def finish(self, *, trace: bool) -> bytes:
        """The whole plan as pyrun-init reads it."""
        flags = wire.PLAN_TRACE if trace else 0
        header = struct.pack("=IIIII", wire.MAGIC, wire.VERSION, flags, len(self._records), len(self.fd_names))
        return header + b"".join(self._records)

    def _encode(self, kind: str, arg: Arg) -> bytes:
        if kind == "u" and isinstance(arg, int):
            return struct.pack("=Q", arg & 0xFFFFFFFFFFFFFFFF)
        if kind == "s" and isinstance(arg, str):
            return _text(arg)
        if kind == "b" and isinstance(arg, bytes):
            return struct.pack("=I", len(arg)) + arg + b"\0"
        if kind == "l" and not isinstance(arg, (int, str, bytes)) and arg is not None:
            return struct.pack("=I", len(arg)) + b"".join([_text(item) for item in arg])
        if kind == "f" and arg is None:
            return struct.pack("=Q", wire.NO_FD)
        if kind == "f" and isinstance(arg, str):
            if arg not in self.fd_names:
                self.fd_names.append(arg)
            return struct.pack("=Q", self.fd_names.index(arg))
        raise ValueError(f"argument {arg!r} does not fit '{kind}'")


def _text(value: str) -> bytes:
    raw = os.fsencode(value)
    if b"\0" in raw:
        raise ValueError(f"string with a NUL byte: {value!r}")
    return struct.pack("=I", len(raw)) + raw + b"\0"
