# SPDX-License-Identifier: Apache-2.0
"""Signals by name or number, as an image's STOPSIGNAL and --stop-signal write them."""

from __future__ import annotations

from pyrun.runtime.errors import UsageError


def number(text: str) -> int:
    """The signal's number: "SIGTERM", "term", "15", "RTMIN+3". signal(7). Raises UsageError."""
    import signal  # loads enum: only the commands that name a signal pay

    if text.isascii() and text.isdecimal() and len(text) < 4 and 0 < int(text) < signal.NSIG:
        return int(text)
    base, plus, offset = text.upper().removeprefix("SIG").partition("+")
    found = signal.Signals.__members__.get(f"SIG{base}")
    if found is not None and not plus:
        return int(found)
    if (
        base == "RTMIN"
        and offset.isascii()
        and offset.isdecimal()
        and len(offset) < 4
        and int(found or 0) + int(offset) <= signal.SIGRTMAX
    ):
        return int(signal.SIGRTMIN) + int(offset)
    raise UsageError(f"signal '{text}'", "no such signal", hint="kill -l lists them")
