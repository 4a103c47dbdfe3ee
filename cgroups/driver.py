# SPDX-License-Identifier: Apache-2.0
"""Cgroup drivers by name: who makes the directory and owns the limits.

cgroupfs   pyrun writes the files itself: group.Cgroup

Another driver is another class with Cgroup's methods; most of them (freeze, kill, procs, remove) work on the files and
can be inherited.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .group import Cgroup
    from .mount import Mount

DRIVERS = {"cgroupfs": ("pyrun.cgroups.group", "Cgroup")}


def open_cgroup(path: str, *, driver: str = "cgroupfs", mount: Mount | None = None) -> Cgroup:
    """The cgroup at `path`, by the named driver; makes nothing. Raises UsageError for an unknown driver."""
    if driver not in DRIVERS:
        raise UsageError(f"cgroup driver '{driver}'", "no such driver", hint=f"there is {', '.join(sorted(DRIVERS))}")
    from importlib import import_module  # a driver is imported when it is chosen

    module, name = DRIVERS[driver]
    cgroup: type[Cgroup] = getattr(import_module(module), name)
    return cgroup(path, mount)
