# SPDX-License-Identifier: Apache-2.0
"""The published ports of a container, as `pyrun port` prints them."""

from __future__ import annotations

from pyrun.netns.ports import format_port
from pyrun.runtime.engine.containers import ContainerStore
from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.paths import Paths


def published(paths: Paths, name: str, port: str = "") -> list[str]:
    """Lines such as "80/tcp -> 0.0.0.0:8080"; with `port` ("80", "80/udp") only the host addresses of that one.

    Raises NotFound for the container, or when that port is not published; UsageError for what is no port.
    """
    store = ContainerStore(paths)
    container_id = store.lookup(name)
    state = store.settle(container_id, store.load_state(container_id))
    lines = format_port(state.ports if state.running else (), port)
    if port and not lines:
        shown = port if "/" in port else f"{port}/tcp"
        raise NotFound(f"no public port '{shown}' published for {store.load(container_id).name}")
    return lines
