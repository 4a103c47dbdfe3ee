# SPDX-License-Identifier: Apache-2.0
"""Controllers: turning them on along the way down to a cgroup, and saying why one is not there.

A cgroup has the controllers that its parent's cgroup.subtree_control names, and a parent can only name those that
it has itself: the way is from the root down. Below the root the "no internal processes" rule holds: a cgroup that
gives memory, io, cpuset, … to its children must not hold processes itself.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import PyrunError, Unsupported

from .cgroupfs import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .mount import Mount

# Turned on wherever they can be had, asked for or not: `stats`, OOM reports and a later `update` live on them.
USUAL = ("cpu", "io", "memory", "pids")


def enable(directory: str, wanted: Iterable[str]) -> None:
    """Names in cgroup.subtree_control those of `wanted` that the cgroup has. What cannot be had is left out.

    Whoever needs one looks into the child's cgroup.controllers afterwards, and asks missing() for the reason.
    Raises OSError when the cgroup itself is gone.
    """
    have = read(directory, "cgroup.controllers").split()
    on = read(directory, "cgroup.subtree_control").split()
    add = [f"+{name}" for name in wanted if name in have and name not in on]
    if not add or _holds_processes(directory):
        return
    try:
        write(directory, "cgroup.subtree_control", " ".join(add))
    except OSError:
        if len(add) == 1:
            return
        for name in add:  # all or nothing is the kernel's rule for one write
            try:
                write(directory, "cgroup.subtree_control", name)
            except OSError:
                continue


def _holds_processes(directory: str) -> bool:
    """Whether the "no internal processes" rule forbids controllers here.

    For cpu and pids the kernel would not refuse: it would turn the cgroup into a threaded one, and those below it
    could not hold a container any more. So we look first. The root, which has no cgroup.type, is exempt.
    """
    try:
        return read(directory, "cgroup.type") != "domain\n" or bool(read(directory, "cgroup.procs"))
    except FileNotFoundError:
        return False


def missing(needed: Mapping[str, str], mount: Mount, parents: Iterable[str]) -> Unsupported | None:
    """The error for the first controller that the last of `parents` cannot give, None when all are there.

    `needed` is needed_controllers(); `parents` are directories from the mount down to the cgroup's parent.
    """
    for controller, asked in needed.items():
        if controller not in mount.controllers:
            why, hint = _not_at_the_root(controller)
            return Unsupported(asked, f"cgroup v2 has no {controller} controller here: {why}", hint=hint)
        for parent in parents:
            if controller not in read(parent, "cgroup.subtree_control").split():
                why, hint = _not_given(controller, parent)
                return Unsupported(
                    asked, f"{parent} does not give its children the {controller} controller: {why}", hint=hint
                )
    return None


BUILD_OPTIONS = {
    "memory": "CONFIG_MEMCG",
    "cpu": "CONFIG_CGROUP_SCHED",
    "io": "CONFIG_BLK_CGROUP",
    "cpuset": "CONFIG_CPUSETS",
}
V1_NAMES = {"io": "blkio"}
GIVE_TO_V2 = (
    "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line (without systemd: cgroup_no_v1=all)"
)


def _not_at_the_root(controller: str) -> tuple[str, str]:
    """Why the root cgroup lacks it, and what to do: proc(5), /proc/cgroups."""
    name = V1_NAMES.get(controller, controller)
    try:
        with open("/proc/cgroups", encoding="ascii") as file:
            rows = {line.split()[0]: line.split()[1:] for line in file if not line.startswith("#")}
    except OSError:
        rows = {}
    hierarchy, _, enabled = rows.get(name, ("", "", ""))
    if enabled == "0":
        return (
            "it was turned off when this kernel was started",
            f"boot with cgroup_enable={controller} on the kernel command line, or without cgroup_disable={controller}",
        )
    if hierarchy not in ("", "0"):
        return "cgroup v1 holds it (hybrid mode)", GIVE_TO_V2
    if enabled == "1":
        return "this cgroup namespace was not given it", "give it to the machine or container that pyrun runs in"
    return (
        "this kernel was built without it",
        f"use a kernel with {BUILD_OPTIONS.get(controller, 'CONFIG_CGROUP_' + controller.upper())}=y",
    )


def _not_given(controller: str, parent: str) -> tuple[str, str]:
    """Why `parent` does not pass on a controller that the root has: tries once more, to hear the kernel's reason."""
    if controller not in read(parent, "cgroup.controllers").split():
        return "it does not have it itself", "ask for it where that cgroup is made (systemd: Delegate=yes)"
    if _holds_processes(parent):
        return (
            f"it holds processes itself ({_some_processes(parent)})",
            f"move them to a cgroup of their own: mkdir {parent}/self && echo PID > {parent}/self/cgroup.procs",
        )
    try:
        write(parent, "cgroup.subtree_control", f"+{controller}")
    except PermissionError:
        return (
            "not delegated to this user",
            "systemd: 'systemctl edit user@.service', [Service] Delegate=cpu cpuset io memory pids",
        )
    except OSError as error:
        return os.strerror(error.errno or 0).lower(), ""
    return "somebody turned it off a moment ago", "try again"


def _some_processes(directory: str) -> str:
    try:
        pids = read(directory, "cgroup.procs").split()
    except OSError:
        return "which cannot be listed"
    return ("pid " if len(pids) == 1 else "pids ") + " ".join(pids[:5]) + (" …" if len(pids) > 5 else "")


def check_cpus(listed: str, parent: str, kind: str) -> None:
    """Raises PyrunError when cpuset.`kind` (cpus, mems) asks for some that `parent` has not.

    The kernel takes such a list and silently uses what its parent has.
    """
    from .resources import cpu_list

    there = read(parent, f"cpuset.{kind}.effective").strip()
    lacking = cpu_list(listed, f"cpuset.{kind}") - cpu_list(there, f"{parent}/cpuset.{kind}.effective")
    if lacking:
        some = ",".join(str(number) for number in sorted(lacking)[:8])
        raise PyrunError(f"cpuset.{kind} = {listed}", f"{kind} {some} cannot be had: {there} can")
