# SPDX-License-Identifier: Apache-2.0
"""Calls to the monitor, from a worker by its link and from any other process by the socket."""

from __future__ import annotations

from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths


def request(paths: Paths, link: WorkerLink | None, name: str, **args: Any) -> Any:
    """The answer of the running monitor to one of its own calls. Raises NotFound when none runs, PyrunError."""
    if link is not None:
        return link.request(name, **args)
    from pyrun.runtime.monitor import client

    return client.request(paths, {"call": name, **args}, start=False)


def wait_for_end(paths: Paths, link: WorkerLink | None, container_id: str) -> int | None:
    """The exit code of a container when it has ended and been cleaned up; None when the monitor does not know it."""
    try:
        if link is not None:
            return link.wait(container_id)
        return int(request(paths, link, "wait", id=container_id)["code"])
    except NotFound:
        return None
