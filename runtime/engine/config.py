# SPDX-License-Identifier: Apache-2.0
"""config.json of a container: its options in the words of the OCI runtime-spec.

oci_config() is pure: what needs the machine (users of the image, ports, namespaces of other containers) comes in as
Resolved. The result is written to <data>/containers/<id>/config.json, is a complete OCI bundle configuration, and goes
through the same parser and validation as any other (runtime/oci/spec.py).
"""

from __future__ import annotations

from pyrun.runtime.engine import defaults
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pyrun.runtime.engine.containers import Container, MountPoint
    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.paths import Paths

DEFAULT_CPU_PERIOD = 100_000


class DeviceNode(Record):
    """A device of the host that the container gets: numbers as stat(2) gave them."""

    path: str
    type: str  # b, c
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"


class Resolved(Record):
    """What the machine had to be asked for."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    capabilities: tuple[str, ...]
    seccomp: dict[str, Any] | None
    namespace_paths: dict[str, str]  # type -> path to join; "" stays in the host's
    devices: tuple[DeviceNode, ...] = ()
    block_devices: dict[str, tuple[int, int]] = {}  # read only
    etc_files: tuple[tuple[str, str], ...] = ()  # (file of the container's directory, path in the container)
    rootfs_propagation: str = ""


def oci_config(paths: Paths, container: Container, resolved: Resolved) -> dict[str, Any]:
    """The configuration of one container, as JSON values.

    Args:
        paths: the roots, for the bundle's own files.
        container: the record, with its options.
        resolved: what was found out on this machine.
    """
    options = container.options
    linux: dict[str, Any] = {
        "cgroupsPath": container.cgroup_path,
        "namespaces": list(namespaces(resolved)),
        "resources": resources(options, resolved),
    }
    if not options.privileged and not options.systempaths_unconfined:
        linux["maskedPaths"] = list(defaults.masked_paths())
        linux["readonlyPaths"] = list(defaults.READONLY_PATHS)
    if sysctls := dict(options.sysctls):
        linux["sysctl"] = sysctls
    if resolved.seccomp is not None:
        linux["seccomp"] = resolved.seccomp
    if resolved.devices:
        linux["devices"] = [device_json(device) for device in resolved.devices]
    if resolved.rootfs_propagation:
        linux["rootfsPropagation"] = resolved.rootfs_propagation
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": process(container, resolved),
        "root": {"path": f"{paths.container(container.id)}/rootfs", "readonly": options.read_only},
        "mounts": mounts(paths, container, resolved),
        "annotations": dict(options.annotations),
        "linux": linux,
    }
    if "uts" not in resolved.namespace_paths:
        config["hostname"] = container.hostname
        if options.domainname:
            config["domainname"] = options.domainname
    return config


def namespaces(resolved: Resolved) -> Iterator[dict[str, str]]:
    """New ones for all but those that are joined or stay the host's."""
    for kind in defaults.NAMESPACES:
        path = resolved.namespace_paths.get(kind)
        if path is None:
            yield {"type": kind}
        elif path:
            yield {"type": kind, "path": path}


def process(container: Container, resolved: Resolved) -> dict[str, Any]:
    """The user's program: command line, environment, identity, privileges."""
    options = container.options
    caps = list(resolved.capabilities)
    value: dict[str, Any] = {
        "terminal": options.tty,
        "user": {"uid": resolved.uid, "gid": resolved.gid, "additionalGids": list(resolved.groups), "umask": 0o022},
        "args": [container.path, *container.args],
        "env": environment(container, resolved),
        "cwd": container.workdir or "/",
        # inheritable stays empty: CVE-2022-24769 and its like
        "capabilities": {"bounding": caps, "effective": caps if resolved.uid == 0 else [], "permitted": caps},
        "noNewPrivileges": options.no_new_privileges,
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": rlimit(limit.soft), "hard": rlimit(limit.hard)}
            for limit in options.ulimits
        ],
    }
    if resolved.uid != 0:
        value["capabilities"]["permitted"] = []
    if options.oom_score_adj is not None:
        value["oomScoreAdj"] = options.oom_score_adj
    return value


def rlimit(value: int) -> int:
    """UNLIMITED as the spec writes it."""
    return 2**64 - 1 if value < 0 else value


def environment(container: Container, resolved: Resolved) -> list[str]:
    """The image's variables and the user's over docker's own (PATH, HOSTNAME, TERM, HOME)."""
    found: dict[str, str] = {"PATH": defaults.PATH, "HOSTNAME": container.hostname}
    if container.options.tty:
        found["TERM"] = "xterm"
    for item in container.env:
        name, _, value = item.partition("=")
        found[name] = value
    found.setdefault("HOME", resolved.home or "/")
    return [f"{name}={value}" for name, value in found.items()]


def resources(options: RunOptions, resolved: Resolved) -> dict[str, Any]:
    """linux.resources: the limits that were asked for, and the device rules."""
    found: dict[str, Any] = {"devices": device_rules(options, resolved)}
    memory = {
        "limit": options.memory,
        "swap": memory_swap(options),
        "reservation": options.memory_reservation,
    }
    cpu: dict[str, Any] = {
        "shares": options.cpu_shares or None,
        "quota": options.cpu_quota or None,
        "period": options.cpu_period or None,
        "cpus": options.cpuset_cpus or None,
        "mems": options.cpuset_mems or None,
    }
    if options.cpus:
        cpu["period"] = DEFAULT_CPU_PERIOD
        cpu["quota"] = round(options.cpus * DEFAULT_CPU_PERIOD)
    block: dict[str, Any] = {"weight": options.blkio_weight or None}
    block["weightDevice"] = [
        {"major": resolved.block_devices[path][0], "minor": resolved.block_devices[path][1], "weight": weight}
        for path, weight in options.blkio_weight_device
    ] or None
    for key, limits in (
        ("throttleReadBpsDevice", options.device_read_bps),
        ("throttleWriteBpsDevice", options.device_write_bps),
        ("throttleReadIOPSDevice", options.device_read_iops),
        ("throttleWriteIOPSDevice", options.device_write_iops),
    ):
        block[key] = [
            {"major": resolved.block_devices[path][0], "minor": resolved.block_devices[path][1], "rate": rate}
            for path, rate in limits
        ] or None
    for name, values in (("memory", memory), ("cpu", cpu), ("blockIO", block)):
        if given := {key: value for key, value in values.items() if value is not None}:
            found[name] = given
    if options.pids_limit:
        found["pids"] = {"limit": options.pids_limit}
    return found


def memory_swap(options: RunOptions) -> int | None:
    """--memory-swap as docker counts: memory and swap together; unset with -m is twice the memory."""
    if options.memory_swap is not None and options.memory_swap != 0:
        return options.memory_swap
    return None if options.memory is None else 2 * options.memory


def device_rules(options: RunOptions, resolved: Resolved) -> list[dict[str, Any]]:
    """The device list of the cgroup: everything when privileged, else docker's default and what was given."""
    rules = defaults.device_rules(privileged=options.privileged)
    if options.privileged:
        return rules
    rules += [
        {"allow": True, "type": device.type, "major": device.major, "minor": device.minor, "access": device.access}
        for device in resolved.devices
    ]
    for rule in options.device_cgroup_rules:
        kind, numbers, access = rule.split()
        major, _, minor = numbers.partition(":")
        entry: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        entry |= {key: int(text) for key, text in (("major", major), ("minor", minor)) if text != "*"}
        rules.append(entry)
    return rules


def device_json(device: DeviceNode) -> dict[str, Any]:
    """One entry of linux.devices."""
    return {
        "path": device.path, "type": device.type, "major": device.major, "minor": device.minor,
        "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
    }  # fmt: skip


# ---- mounts ----------------------------------------------------------------------------------------------------------


def mounts(paths: Paths, container: Container, resolved: Resolved) -> list[dict[str, Any]]:
    """Docker's default mounts, then the user's in the order of their depth, so that none hides another."""
    options = container.options
    found = default_mounts(options, resolved)
    for file, target in resolved.etc_files:
        found.append(bind_json(f"{paths.container(container.id)}/{file}", target, ["rbind", "rprivate"]))
    found += [mount_json(mount) for mount in sorted(container.mounts, key=lambda m: m.target.count("/"))]
    taken = {mount.target.rstrip("/") or "/" for mount in container.mounts}
    return [
        m
        for index, m in enumerate(found)
        if m["destination"] not in taken or index >= len(found) - len(container.mounts)
    ]


def default_mounts(options: RunOptions, resolved: Resolved) -> list[dict[str, Any]]:
    """proc, /dev and its parts, sysfs, the cgroup; the host's /dev/shm where the IPC namespace is the host's."""
    shm_size = defaults.SHM_SIZE if options.shm_size is None else options.shm_size
    found = defaults.mounts(shm_size=shm_size, privileged=options.privileged)
    if resolved.namespace_paths.get("ipc") == "":
        for index, mount in enumerate(found):
            if mount["destination"] in ("/dev/shm", "/dev/mqueue"):
                found[index] = bind_json(
                    mount["destination"], mount["destination"], ["rbind", "nosuid", "nodev", "noexec"]
                )
    return found


def bind_json(source: str, target: str, options: list[str]) -> dict[str, Any]:
    """A bind mount as the spec writes it."""
    return {"destination": target, "type": "bind", "source": source, "options": options}


def mount_json(mount: MountPoint) -> dict[str, Any]:
    """One of the user's mounts."""
    if mount.type == "tmpfs":
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": list(mount.words)}
    return bind_json(mount.source, mount.target, list(mount.words))
