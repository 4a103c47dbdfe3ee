# SPDX-License-Identifier: Apache-2.0
"""The user's terminal while a container has it: raw mode, its size, the detach keys."""

from __future__ import annotations

import fcntl
import os
import struct
import termios


class RawTerminal:
    """The terminal `fd` in raw mode from enter() to leave(), as cfmakeraw(3) sets it. Both may be called repeatedly."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[int | list[bytes | int]] | None = None

    def enter(self) -> None:
        """Raw mode. What is not a terminal is left alone."""
        if self._saved is not None:
            return
        try:
            self._saved = termios.tcgetattr(self._fd)
        except termios.error:
            return
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(self._fd)
        iflag &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
            | termios.ICRNL | termios.IXON
        )  # fmt: skip
        oflag &= ~termios.OPOST
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])

    def leave(self) -> None:
        """What it was before enter()."""
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, saved)
            except termios.error:
                pass  # hung up

    def size(self) -> tuple[int, int]:
        """(rows, columns); (0, 0) when it is no terminal."""
        try:
            rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._fd, termios.TIOCGWINSZ, bytes(8)))
        except OSError:
            return 0, 0
        return rows, columns


class DetachKeys:
    """Finds a key sequence in what is typed. Keys that may be its beginning are held back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """(what goes to the process, whether the sequence was completed; what follows it is dropped)."""
        if not self._keys:
            return typed, False
        out = bytearray()
        for byte in typed:
            while self._matched and byte != self._keys[self._matched]:
                # What was held back is no sequence; but its end may be the beginning of one.
                held = self._keys[: self._matched]
                self._matched = next(n for n in range(self._matched - 1, -1, -1) if held.endswith(self._keys[:n]))
                out += held[: len(held) - self._matched]
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False


def is_terminal(fd: int) -> bool:
    """Whether `fd` is a terminal."""
    return os.isatty(fd)
