# SPDX-License-Identifier: Apache-2.0
"""Calls to the monitor, from a worker by its link and from any other process by the socket."""

from __future__ import annotations

from pyrun.runtime.errors import MonitorEnded, NotFound, PyrunError

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


def wait_for_end(paths: Paths, link: WorkerLink | None, container_id: str, *, start: bool = False) -> int | None:
    """The exit code of a container when it has ended and been cleaned up; None when the monitor does not know it.

    When the monitor is killed meanwhile, the next one is asked. `start`: start one if none runs.
    """
    from pyrun.runtime.monitor import client

    while True:
        try:
            if link is not None:
                return link.wait(container_id)
            return int(client.request(paths, {"call": "wait", "id": container_id}, start=start)["code"])
        except NotFound:
            return None
        except MonitorEnded:
            start = True


def ensure(paths: Paths) -> None:
    """A monitor runs: started, if somebody has killed it. Raises PyrunError when that is impossible."""
    from pyrun.runtime.monitor import spawn

    connection = spawn.connect(paths)
    if connection is not None:
        connection.close()


def answers(paths: Paths) -> bool:
    """Whether a monitor runs. Starts none."""
    from pyrun.runtime.monitor import spawn

    try:
        connection = spawn.connect(paths, start=False)
    except (PyrunError, OSError):
        return False
    if connection is not None:
        connection.close()
    return connection is not None
