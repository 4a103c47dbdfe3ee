# SPDX-License-Identifier: Apache-2.0
"""The exit codes of scripts/vm beside the command's own, and the exceptions that lead to them."""

from __future__ import annotations

EXIT_TIMEOUT = 124
EXIT_FAULT = 125


class VmError(Exception):
    """The VM cannot be made or has failed; the text is the one line that the user sees (exit code 125)."""


class VmTimeoutError(Exception):
    """The command did not end in the time that --timeout gives it (exit code 124)."""
