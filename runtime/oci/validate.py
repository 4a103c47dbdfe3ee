# SPDX-License-Identifier: Apache-2.0
"""Rules that join several fields of a Spec: a list of checks, each raising SpecError with the JSON path.

    validate(spec, bundle="/bundles/web")

CHECKS look only at the configuration; HOST_CHECKS also at this machine's files. To add a rule, write a function and
put it into a list. What pyrun cannot do is refused too: an unsupported value is an error (config.md, Valid values).
"""

from __future__ import annotations

import itertools
import os

from . import sysctl
from .reader import below, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .spec import IDMapping, Process, Spec

_W = "config.json: "


def namespaces_unique(spec: Spec) -> None:
    """A namespace type occurs once (config-linux.md, Namespaces)."""
    seen: dict[str, int] = {}
    for index, entry in enumerate(spec.linux.namespaces):
        if entry.type in seen:
            raise wrong(
                f"{_W}linux.namespaces[{index}].type",
                f"{entry.type!r} is already namespaces[{seen[entry.type]}]",
            )
        seen[entry.type] = index


def mount_namespace_private(spec: Spec) -> None:
    """What a container mounts must not be mounted on the host (invariant 3), nor in a tree that others use.

    A mount namespace that is joined is taken as it is, with its root.
    """
    entry = spec.linux.namespace("mount")
    if entry is None:
        raise wrong(f"{_W}linux.namespaces", "a mount namespace is needed", hint='add {"type": "mount"}')
    if not entry.path:
        return
    for key, value in (
        ("mounts", spec.mounts),
        ("linux.maskedPaths", spec.linux.masked_paths),
        ("linux.readonlyPaths", spec.linux.readonly_paths),
        ("linux.devices", spec.linux.devices),
        ("root.readonly", spec.root is not None and spec.root.readonly),
    ):
        if value:
            raise wrong(_W + key, "needs a new mount namespace, and the configuration joins one")


def names_need_uts(spec: Spec) -> None:
    """A host name that is set without a uts namespace would be the host's."""
    for key, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if not value:
            continue
        if spec.linux.namespace("uts") is None:
            raise wrong(_W + key, "needs a uts namespace", hint='add {"type": "uts"} to linux.namespaces')
        if len(value.encode()) > 64:
            raise wrong(_W + key, f"is {len(value.encode())} bytes long, and the kernel takes 64")


def user_namespace_mapped(spec: Spec) -> None:
    """A new user namespace needs mappings, a joined one has its own, and without one they mean nothing."""
    linux = spec.linux
    entry = linux.namespace("user")
    for key, found in (("uidMappings", linux.uid_mappings), ("gidMappings", linux.gid_mappings)):
        where = f"{_W}linux.{key}"
        if entry is None and found:
            raise wrong(where, "is set without a user namespace", hint='add {"type": "user"} to linux.namespaces')
        if entry is not None and entry.path and found:
            raise wrong(where, "is set, and the user namespace that is joined has its own mapping")
        if entry is not None and not entry.path and not found:
            raise wrong(where, "is missing, and a new user namespace has no ids without it")
        _no_overlap(found, where)


def _no_overlap(mappings: tuple[IDMapping, ...], where: str) -> None:
    """The kernel refuses overlapping ranges, with EINVAL and no word which; it takes 340 lines (user_namespaces(7))."""
    if len(mappings) > 340:
        raise wrong(where, f"has {len(mappings)} entries, and the kernel takes 340")
    for key, start in (("containerID", "container_id"), ("hostID", "host_id")):
        ranges = sorted((getattr(entry, start), entry.size, index) for index, entry in enumerate(mappings))
        for (low, size, first), (high, _, second) in itertools.pairwise(ranges):
            if low + size > high:
                raise wrong(f"{where}[{second}].{key}", f"overlaps with {where.rpartition('.')[2]}[{first}]")


def process_ids_mapped(spec: Spec) -> None:
    """setuid(2) to an id outside the mapping fails with EINVAL."""
    entry = spec.linux.namespace("user")
    if entry is None or entry.path or spec.process is None:
        return
    user = spec.process.user
    wanted = (
        ("uid", user.uid, spec.linux.uid_mappings),
        ("gid", user.gid, spec.linux.gid_mappings),
        *((f"additionalGids[{i}]", gid, spec.linux.gid_mappings) for i, gid in enumerate(user.additional_gids)),
    )
    for key, number, mappings in wanted:
        if not any(m.container_id <= number < m.container_id + m.size for m in mappings):
            raise wrong(f"{_W}process.user.{key}", f"{number} is not mapped in the user namespace")


def time_offsets_need_namespace(spec: Spec) -> None:
    """Offsets can be set only in a new time namespace, before anything runs in it (time_namespaces(7))."""
    if not spec.linux.time_offsets:
        return
    entry = spec.linux.namespace("time")
    if entry is None or entry.path:
        raise wrong(
            f"{_W}linux.timeOffsets", "needs a new time namespace", hint='add {"type": "time"} to linux.namespaces'
        )


def sysctls_namespaced(spec: Spec) -> None:
    """Only parameters of namespaces that the container doesn't share with the host (see sysctl.py)."""
    private = [entry.type for entry in spec.linux.namespaces]
    for name, value in (spec.linux.sysctl or {}).items():
        sysctl.check(name, value, private, below(f"{_W}linux.sysctl", name))


def mounts_sensible(spec: Spec) -> None:
    """Options that fit the kind of mount, and sources where one is needed."""
    for index, mount in enumerate(spec.mounts):
        where = f"{_W}mounts[{index}]"
        options = mount.options
        if options.bind and not mount.source:
            raise wrong(f"{where}.source", "is missing, and a bind mount needs it")
        if "remount" in options.words:
            raise wrong(f"{where}.options[{options.words.index('remount')}]", "remount is not supported by pyrun")
        if not options.bind and not mount.type:
            raise wrong(f"{where}.type", "is missing, and the mount is not a bind mount")
        if options.tmpcopyup and mount.type != "tmpfs":
            raise wrong(f"{where}.options", f"tmpcopyup is for tmpfs, not for {mount.type or 'a bind mount'}")
        if bool(mount.uid_mappings) != bool(mount.gid_mappings):
            raise wrong(where, "uidMappings and gidMappings must be given together")
        if options.idmap or mount.uid_mappings:
            _idmap_possible(spec, index, where)


def _idmap_possible(spec: Spec, index: int, where: str) -> None:
    mount = spec.mounts[index]
    if not mount.options.bind:
        raise wrong(where, "an id-mapped mount must be a bind mount")
    if not mount.uid_mappings and spec.linux.namespace("user") is None:
        raise wrong(where, f"{mount.options.idmap} needs uidMappings and gidMappings, or a user namespace")
    _no_overlap(mount.uid_mappings, f"{where}.uidMappings")
    _no_overlap(mount.gid_mappings, f"{where}.gidMappings")


def devices_unique(spec: Spec) -> None:
    """Two nodes at one path cannot both be there."""
    seen: dict[str, int] = {}
    for index, device in enumerate(spec.linux.devices):
        path = os.path.normpath(device.path)
        if path in seen:
            raise wrong(f"{_W}linux.devices[{index}].path", f"{path} is already devices[{seen[path]}]")
        seen[path] = index


def cgroups_path_sane(spec: Spec) -> None:
    """No way out of the hierarchy, and nothing that a cgroup's name cannot be.

    Three parts with ":" are the systemd driver's form (slice:prefix:name).
    """
    path = spec.linux.cgroups_path
    where = f"{_W}linux.cgroupsPath"
    if ".." in path.split("/") or ".." in path.split(":"):
        raise wrong(where, f"{path!r} contains '..'")
    if "\n" in path:
        raise wrong(where, "contains a line break")
    if len(path.encode()) > 4000 or any(len(step.encode()) > 255 for step in path.split("/")):
        raise wrong(where, "is too long for a path")


def scheduler_consistent(spec: Spec) -> None:
    """sched_setattr(2): which numbers go with which policy."""
    process = spec.process
    if process is None or process.scheduler is None:
        return
    found, where = process.scheduler, f"{_W}process.scheduler"
    if found.policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= found.nice <= 19:
        raise wrong(f"{where}.nice", f"{found.nice} is not between -20 and 19")
    if found.priority and found.policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise wrong(f"{where}.priority", f"{found.policy} takes none")
    if (found.runtime or found.deadline or found.period) and found.policy != "SCHED_DEADLINE":
        raise wrong(where, f"runtime, deadline and period are for SCHED_DEADLINE, not for {found.policy}")


# Fields that are read and understood, and that no step of the plan can do yet: refused, never silently ignored.
_UNSUPPORTED_PROCESS = {
    "apparmorProfile": "apparmor_profile",
    "selinuxLabel": "selinux_label",
    "scheduler": "scheduler",
    "ioPriority": "io_priority",
}
_UNSUPPORTED_LINUX = {
    "mountLabel": "mount_label",
    "intelRdt": "intel_rdt",
    "memoryPolicy": "memory_policy",
    "netDevices": "net_devices",
}


def only_supported(spec: Spec) -> None:
    """An unsupported value is an error (config.md, Valid values)."""
    if spec.process is not None:
        process_supported(spec.process, f"{_W}process")
    for key, name in _UNSUPPORTED_LINUX.items():
        if getattr(spec.linux, name):
            raise wrong(f"{_W}linux.{key}", "is not supported by pyrun")
    if spec.linux.seccomp is not None and spec.linux.seccomp.notifies:
        raise wrong(f"{_W}linux.seccomp.syscalls", "SCMP_ACT_NOTIFY is not supported by pyrun")


def process_supported(process: Process, where: str) -> None:
    """The same for a Process alone: `exec --process` uses it too, with its own `where`.

    execCPUAffinity is not here: it says nothing about the container's first process.
    """
    for key, name in _UNSUPPORTED_PROCESS.items():
        if getattr(process, name):
            raise wrong(f"{where}.{key}", "is not supported by pyrun")


def rootfs_is_directory(spec: Spec, bundle: str) -> None:
    """The root file system is there, and is a directory (config.md, Root)."""
    if spec.root is None:
        raise wrong(f"{_W}root", "is missing")
    where, path = f"{_W}root.path", os.path.join(bundle, spec.root.path)
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise wrong(where, f"{path}: {(error.strerror or str(error)).lower()}") from None
    os.close(fd)


def joined_namespaces_fit(spec: Spec, bundle: str) -> None:
    """A parameter of a namespace that is joined by path must not be the host's own after all."""
    for name in spec.linux.sysctl or {}:
        kind = sysctl.namespace_of(name)
        entry = spec.linux.namespace(kind)
        if entry is not None and entry.path and _is_ours(entry.path, kind):
            raise wrong(
                below(f"{_W}linux.sysctl", name), f"the {kind} namespace that is joined, {entry.path}, is the host's"
            )


def _is_ours(path: str, kind: str) -> bool:
    own = f"/proc/self/ns/{'net' if kind == 'network' else kind}"
    try:
        theirs, ours = os.stat(path), os.stat(own)
    except OSError:
        return False  # joining it will fail, and say so
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


CHECKS: tuple[Callable[[Spec], None], ...] = (
    namespaces_unique,
    mount_namespace_private,
    names_need_uts,
    user_namespace_mapped,
    process_ids_mapped,
    time_offsets_need_namespace,
    sysctls_namespaced,
    mounts_sensible,
    devices_unique,
    cgroups_path_sane,
    scheduler_consistent,
    only_supported,
)

HOST_CHECKS: tuple[Callable[[Spec, str], None], ...] = (rootfs_is_directory, joined_namespaces_fit)


def validate(spec: Spec, bundle: str) -> None:
    """Every check; `bundle` is the directory that a relative root.path starts from. Raises SpecError."""
    for check in CHECKS:
        check(spec)
    for host_check in HOST_CHECKS:
        host_check(spec, bundle)
