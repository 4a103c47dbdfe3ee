# SPDX-License-Identifier: Apache-2.0
"""The thin client: sends a request to the monitor (starting one if there is none) and relays stdio and signals."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..paths import Paths


def forward(argv: Sequence[str], paths: Paths) -> int:
    """Runs the command line `argv` (without the program's name) in a worker of the monitor; returns its exit code.

    If the command leaves this client attached to a container, relays stdin, output, signals and the window size until
    that ends, or the detach keys are typed.
    """
    raise NotImplementedError


def request(paths: Paths, call: dict[str, Any], fds: Sequence[int] = (), *, start: bool = True) -> Any:
    """The value of {"call": name, …arguments}. Raises the PyrunError that the monitor or the engine raised.

    start=False: NotFound when no monitor runs, instead of starting one.
    """
    raise NotImplementedError


def attach(
    paths: Paths, session_id: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True,
    sig_proxy: bool = True, detach_keys: bytes = b"\x10\x11",
) -> int:  # fmt: skip
    """Connects this process's stdio to a running container; returns its exit code, or 0 after the detach keys."""
    raise NotImplementedError
