# SPDX-License-Identifier: Apache-2.0
"""Removing what a crash left: cgroups of containers that are no more."""

from __future__ import annotations

import os

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import step

from .cgroupfs import child_groups
from .group import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from .mount import Mount


def recover(
    prefix: str, live_ids: Callable[[], Container[str]], *, mount: Mount | None = None, timeout_s: float = 2.0
) -> list[str]:
    """Kills and removes the cgroups below `prefix` (/pyrun[-instance]) of no live container; returns their ids.

    `live_ids` is called after the cgroups are listed, and a container's state is on disk before its cgroup is made:
    so one that is just starting is live, never a leftover. Only names that are container ids (64 hexadecimal digits)
    count: whatever else is there is somebody else's. Processes that do not die in time keep their cgroup, for
    the next call. `prefix` itself goes when it is empty.
    """
    top = Cgroup(prefix, mount)
    names = child_groups(top.directory)
    live = live_ids() if names else ()
    removed = []
    for name in names:
        if name in live or not is_container_id(name):
            continue
        group = Cgroup(f"{top.path}/{name}", top.mount)
        try:
            group.kill()
            group.remove(timeout_s)
        except (PyrunError, OSError):  # the next command tries again; this one has other work to do
            continue
        removed.append(name)
    if not child_groups(top.directory) and top.exists():
        try:
            with step("cgroup", f"rmdir {top.directory}"):
                os.rmdir(top.directory)
        except OSError:  # somebody moved in: fine
            pass
    return removed


def is_container_id(name: str) -> bool:
    """Whether it is an id as the engine makes them."""
    return len(name) == 64 and not set(name) - set("0123456789abcdef")
