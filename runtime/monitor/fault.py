# SPDX-License-Identifier: Apache-2.0
"""Where a test kills the monitor: PYRUN_MONITOR_FAULT=<point>[:<n>] makes it SIGKILL itself there, the nth time."""

from __future__ import annotations

import os

_point, _, _count = os.environ.get("PYRUN_MONITOR_FAULT", "").partition(":")
_left = int(_count) if _count.isascii() and _count.isdigit() else 1


def fault(point: str) -> None:
    """Ends this process as kill -9 would, if the environment says: here."""
    global _left
    if point == _point:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), 9)
