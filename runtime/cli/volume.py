# SPDX-License-Identifier: Apache-2.0
"""pyrun volume ls, create, rm, inspect, prune."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:

    from pyrun.runtime.cli.context import Context

COLUMNS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Labels": "LABELS",
    "Mountpoint": "MOUNTPOINT",
    "Scope": "SCOPE",
    "Size": "SIZE",
    "Links": "LINKS",
}
DEFAULT = ("Driver", "Name")
FILTERS = ("name", "label", "driver", "dangling")


def users(ctx: Context) -> dict[str, list[str]]:
    """volume -> names of the containers that have it."""
    from pyrun.runtime.engine.containers import ContainerStore

    found, _ = ContainerStore(ctx.paths).all()
    using: dict[str, list[str]] = {}
    for container, _ in found:
        for mount in container.mounts:
            if mount.type == "volume":
                using.setdefault(mount.name, []).append(container.name)
    return using
