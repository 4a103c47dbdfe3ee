# SPDX-License-Identifier: Apache-2.0
"""Asking the machine what config.json needs: the user's ids, devices' numbers, other containers' namespaces, the
capabilities that can be given at all, the seccomp profile."""

from __future__ import annotations

import os
import stat

from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine import defaults
from pyrun.runtime.engine.config import DeviceNode, Resolved
from pyrun.runtime.errors import Conflict, UsageError
from pyrun.runtime.oci import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pyrun.runtime.engine.options import DeviceOption, RunOptions
    from pyrun.runtime.paths import Paths

#: --pid, --ipc, --uts, --network … -> OCI namespace type and the name under /proc/<pid>/ns
MODES = {"pid": ("pid", "pid"), "ipc": ("ipc", "ipc"), "uts": ("uts", "uts"), "network": ("network", "net")}

ETC_FILES = (("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"))


def resolve(paths: Paths, container: c.Container, root_dirs: Sequence[str]) -> Resolved:
    """What oci_config() has to know. `root_dirs` are the overlay's directories, upper first.

    Raises UsageError for a user, device or file that is not there, Conflict for a container that does not run.
    """
    from pyrun.rootfs import users

    options = container.options
    user = users.of_layers(root_dirs, container.user, options.group_add)
    names = capabilities.names(capabilities.held().permitted)
    caps = capabilities.resolve(options.cap_add, options.cap_drop, options.privileged, defaults.CAPABILITIES, names)
    return Resolved(
        uid=user.uid,
        gid=user.gid,
        groups=user.additional_gids,
        home=user.home,
        capabilities=caps,
        seccomp=seccomp(options, caps),
        namespace_paths=namespace_paths(paths, options),
        devices=tuple(device_nodes(options)),
        block_devices=block_devices(options),
        etc_files=etc_files(container),
        rootfs_propagation=rootfs_propagation(container.mounts),
    )


def etc_files(container: c.Container) -> tuple[tuple[str, str], ...]:
    """The files of ours that are bound into /etc, but for those that a mount of the user's covers."""
    covered = {point.target for point in container.mounts}
    return tuple(pair for pair in ETC_FILES if pair[1] not in covered)


def rootfs_propagation(mounts: Sequence[c.MountPoint]) -> str:
    """docker's rule: a shared mount needs a shared root, a slave one a slave root; "" else (runc's rslave)."""
    kinds = {point.propagation.removeprefix("r") for point in mounts}
    return "rshared" if "shared" in kinds else "rslave" if "slave" in kinds else ""


# ---- namespaces ------------------------------------------------------------------------------------------------------


def namespace_paths(paths: Paths, options: RunOptions) -> dict[str, str]:
    """OCI namespace type -> the path to join, "" for the host's. Types that are not named are new ones."""
    found: dict[str, str] = {}
    for field, (kind, file) in MODES.items():
        mode = getattr(options, field)
        if mode == "host":
            found[kind] = ""
        elif mode.startswith("container:"):
            found[kind] = f"/proc/{running_pid(paths, mode.partition(':')[2], f'--{field} {mode}')}/ns/{file}"
        elif mode.startswith("ns:"):
            found[kind] = mode.partition(":")[2]
            if not os.path.exists(found[kind]):
                raise UsageError(f"--{field} {mode}", "no such file", hint="`ip netns add NAME` makes /run/netns/NAME")
    if options.cgroupns == "host":
        found["cgroup"] = ""
    return found


def running_pid(paths: Paths, reference: str, what: str) -> int:
    """The pid of a running container whose namespaces are to be joined."""
    store = c.ContainerStore(paths)
    container_id = store.lookup(reference)
    state = store.load_state(container_id)
    if not state.running or not c.process_exists(state):
        raise Conflict(what, f"container {reference} is not running", hint=f"pyrun start {reference}")
    return state.pid


# ---- privileges ------------------------------------------------------------------------------------------------------


def seccomp(options: RunOptions, caps: Sequence[str]) -> dict[str, Any] | None:
    """The profile as linux.seccomp; None for none (unconfined, or privileged without a profile of its own)."""
    from pyrun.runtime.engine import seccomp_profile

    if options.privileged and not options.seccomp:
        return None
    profile = seccomp_profile.load(options.seccomp, "--security-opt seccomp")
    return seccomp_profile.resolve(profile, caps)


# ---- devices ---------------------------------------------------------------------------------------------------------


def device_nodes(options: RunOptions) -> Iterator[DeviceNode]:
    """The devices of --device, a directory standing for all below it; every one of the host's with --privileged."""
    if options.privileged:
        yield from nodes_below("/dev", "/dev", "rwm", skip=("pts", "shm", "mqueue", "console", "fd", "ptmx"))
    for option in options.devices:
        yield from device_option(option)


def device_option(option: DeviceOption) -> Iterator[DeviceNode]:
    """Raises UsageError for a path that is no device."""
    what = f"--device {option.path_on_host}"
    try:
        info = os.stat(option.path_on_host)
    except OSError as error:
        raise UsageError(what, (error.strerror or "").lower(), hint="ls /dev on the host") from None
    if stat.S_ISDIR(info.st_mode):
        yield from nodes_below(option.path_on_host, option.path_in_container, option.permissions)
    elif node := device_node(option.path_in_container, info, option.permissions):
        yield node
    else:
        raise UsageError(what, "not a device", hint="-v binds ordinary files")


def device_node(path: str, info: os.stat_result, access: str) -> DeviceNode | None:
    """The node for what stat(2) says, None if it is no device."""
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    mode = stat.S_IMODE(info.st_mode)
    return DeviceNode(
        path, kind, os.major(info.st_rdev), os.minor(info.st_rdev), mode, info.st_uid, info.st_gid, access
    )


def nodes_below(host: str, inside: str, access: str, skip: Sequence[str] = ()) -> Iterator[DeviceNode]:
    """Every device below a directory; symbolic links are not followed."""
    try:
        entries = sorted(os.scandir(host), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name in skip:
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # gone between the two calls
        if stat.S_ISDIR(info.st_mode):
            yield from nodes_below(entry.path, f"{inside}/{entry.name}", access)
        elif node := device_node(f"{inside}/{entry.name}", info, access):
            yield node


def block_devices(options: RunOptions) -> dict[str, tuple[int, int]]:
    """The numbers of the disks that --device-read-bps and its kin name. Raises UsageError."""
    found: dict[str, tuple[int, int]] = {}
    limits = (
        *options.device_read_bps, *options.device_write_bps, *options.device_read_iops, *options.device_write_iops,
        *options.blkio_weight_device,
    )  # fmt: skip
    for path, _ in limits:
        try:
            info = os.stat(path)
        except OSError as error:
            raise UsageError(f"limit on {path}", (error.strerror or "").lower(), hint="lsblk lists disks") from None
        if not stat.S_ISBLK(info.st_mode):
            raise UsageError(f"limit on {path}", "not a block device", hint="lsblk lists disks")
        found[path] = (os.major(info.st_rdev), os.minor(info.st_rdev))
    return found
