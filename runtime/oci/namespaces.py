# SPDX-License-Identifier: Apache-2.0
"""Which namespaces clone3 makes, which are joined, and in what order (config-linux.md, "Namespaces").

The simple case, everything new or joined without a user namespace, is one clone3. The rest needs care:

- A new namespace belongs to the user namespace it is made in, so with a joined or a mixed-in new user namespace all
  others are made by unshare(2) after it.
- Joining another's namespace needs privileges over it, which a new user namespace takes away: joins come first.
- setns(2) and unshare(2) move only children into pid and time namespaces: then pyrun-init forks once, and the offsets
  of a time namespace are written while it is still empty.
"""

from __future__ import annotations

from pyrun.runtime.oci import steps as s
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.oci.spec import Spec

#: OCI type -> CLONE_NEW*, include/uapi/linux/sched.h
FLAGS = {
    "time": 0x80, "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000,
    "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000,
}  # fmt: skip


class NamespacePlan(Record):
    """How the process gets into its namespaces."""

    clone_flags: int
    joined: tuple[tuple[str, str], ...]
    steps: tuple[s.Step, ...]
    maps_ids: bool
    in_userns: bool  # a new one, or another than ours joined
    new_mount: bool
    new_net: bool
    private_cgroup: bool


def plan_namespaces(spec: Spec) -> NamespacePlan:
    """See the module's text. Pure; `spec` has been validated (no namespace twice)."""
    namespaces = spec.linux.namespaces
    new = sum(FLAGS[ns.type] for ns in namespaces if not ns.path)
    joined = {ns.type: ns.path for ns in namespaces if ns.path}
    offsets = spec.linux.time_offsets or {}
    new_user = bool(new & FLAGS["user"])

    steps: list[s.Step] = []
    for kind, path in sorted(joined.items(), key=lambda item: item[0] == "user"):  # the user namespace last
        steps.append(s.SetNs(f"ns:{kind}", FLAGS[kind], path))
    # What clone3 can make at once: nothing that must belong to, or come after, something that steps do.
    by_clone = new
    if "user" in joined or (new_user and joined):
        by_clone = 0
    if new & FLAGS["time"]:
        by_clone &= ~(FLAGS["time"] | FLAGS["pid"])  # CLONE_PARENT is refused to the init of a pid namespace
    rest = new & ~by_clone
    if new_user and rest & FLAGS["user"]:
        steps.append(s.Unshare(FLAGS["user"]))
        rest &= ~FLAGS["user"]
    if new_user:
        steps.append(s.Sync(1))
        steps.append(s.BecomeRoot())
    elif "user" in joined:
        steps.append(s.BecomeRoot())
    if rest:
        steps.append(s.Unshare(rest))
    if new & FLAGS["time"] and offsets:
        steps.append(s.ProcHandle())
        lines = "".join(f"{clock} {o.secs} {o.nanosecs}\n" for clock, o in offsets.items())
        steps.append(s.TimeOffsets(lines))
    if "pid" in joined or "time" in joined or rest & (FLAGS["pid"] | FLAGS["time"]):
        steps.append(s.Fork())
    return NamespacePlan(
        clone_flags=by_clone,
        joined=tuple((f"ns:{kind}", path) for kind, path in joined.items()),
        steps=tuple(steps),
        maps_ids=new_user,
        in_userns=new_user or "user" in joined,
        new_mount=bool(new & FLAGS["mount"]),
        new_net=bool(new & FLAGS["network"]),
        private_cgroup=bool(new & FLAGS["cgroup"]) or "cgroup" in joined,
    )
