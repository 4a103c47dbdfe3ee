# SPDX-License-Identifier: Apache-2.0
"""This process's terminal, handed to the guest: every key goes there, and its size."""

from __future__ import annotations

import contextlib
import signal
import termios
import tty
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def raw_terminal(resize: Callable[[], None]) -> Iterator[None]:
    """The terminal on stdin in raw mode for the `with` block; `resize` is called now and whenever its size changes."""
    before = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, lambda *_: resize())
    tty.setraw(0)
    try:
        resize()
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
