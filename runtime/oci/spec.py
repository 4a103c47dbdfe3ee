# SPDX-License-Identifier: Apache-2.0
"""config.json of the OCI runtime-spec 1.3 as frozen records: parsed once, at the edge, and never as JSON again.

    spec = parse(json.loads(data, "config.json"))          # Spec(oci_version='1.3.0', process=Process(...), ...)

Names are the spec's in snake_case; arrays are tuples, maps dicts, absent objects None. Every record stands beside the
reader of its JSON form, field by field. What can be said of one value alone (types, ranges, absolute paths, known
words) is checked here; rules that join several fields are in validate.py. Every error is a SpecError whose text starts
with the JSON path.
"""

from __future__ import annotations

from pyrun.runtime.record import Record

from . import mount_options, seccomp
from .mount_options import PROPAGATION, MountOptions
from .process import PROCESS, variable
from .process import Capabilities as Capabilities
from .process import ConsoleSize as ConsoleSize
from .process import Process as Process
from .process import User as User
from .process import parse_process as parse_process
from .reader import (
    absolute,
    array,
    boolean,
    choice,
    int64,
    integer,
    kernel_id,
    mapping,
    nonempty,
    optional_absolute,
    raw,
    record,
    text,
    texts,
    wrong,
)
from .seccomp import Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cgroups.resources import Resources

# --- root, mounts, hooks (config.md) ----------------------------------------------------------------------------


class Root(Record):
    """The root file system; a relative path is relative to the bundle."""

    path: str
    readonly: bool = False


class IDMapping(Record):
    """`size` ids from `container_id` on are `host_id` on on the host."""

    container_id: int
    host_id: int
    size: int


class Mount(Record):
    """One mount. `destination` is absolute (a relative one is deprecated and taken from "/")."""

    destination: str
    type: str = ""
    source: str = ""
    options: MountOptions = MountOptions()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Hook(Record):
    """One hook; `timeout` in seconds, None for none."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Record):
    """Programs to run at points of the life cycle, in the order given."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


def _id_mapping(value: Any, where: str) -> IDMapping:
    found = _ID_MAPPING(value, where)
    for name, first in (("containerID", found.container_id), ("hostID", found.host_id)):
        if first + found.size > 2**32 - 1:
            raise wrong(where, f"{name} {first} and size {found.size} go beyond the last id, {2**32 - 2}")
    return found


def _mount(value: Any, where: str) -> Mount:
    found = _MOUNT(value, where)
    destination = found.destination if found.destination.startswith("/") else f"/{found.destination}"
    options = mount_options.parse(value.get("options") or (), found.type, f"{where}.options")
    return found.replace(destination=destination, options=options)


_ID_MAPPING = record(IDMapping, ("containerID", kernel_id), ("hostID", kernel_id), ("size", integer(1, 2**32 - 1)))
ID_MAPPINGS = array(_id_mapping)
_MOUNT = record(
    Mount,
    ("destination", nonempty),
    ("type", text),
    ("source", text),
    ("options", raw),  # _mount() parses them: it knows the type
    ("uidMappings", ID_MAPPINGS),
    ("gidMappings", ID_MAPPINGS),
)
_HOOK_LIST = array(
    record(Hook, ("path", absolute), ("args", texts), ("env", array(variable)), ("timeout", integer(1, 2**31 - 1)))
)
HOOKS = record(
    Hooks,
    ("prestart", _HOOK_LIST),
    ("createRuntime", _HOOK_LIST),
    ("createContainer", _HOOK_LIST),
    ("startContainer", _HOOK_LIST),
    ("poststart", _HOOK_LIST),
    ("poststop", _HOOK_LIST),
)

# --- linux (config-linux.md) ------------------------------------------------------------------------------------

NAMESPACE_TYPES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")


class Namespace(Record):
    """A namespace that is new, or, with a path, joined."""

    type: str
    path: str = ""


class TimeOffset(Record):
    """What a clock of the time namespace is ahead of the host's."""

    secs: int = 0
    nanosecs: int = 0


class Device(Record):
    """A device node; `file_mode` has only permission bits; None leaves the default (0666, root)."""

    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(Record):
    """A network device to move into the container; `name` is its name there, "" for the same."""

    name: str = ""


class Personality(Record):
    """personality(2)."""

    domain: str
    flags: tuple[str, ...] = ()


class IntelRdt(Record):
    """resctrl, as config-linux.md has it."""

    clos_id: str = ""
    schemata: tuple[str, ...] = ()
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False


class MemoryPolicy(Record):
    """set_mempolicy(2)."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class Linux(Record):
    """The Linux part of a configuration."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    time_offsets: dict[str, TimeOffset] | None = None
    devices: tuple[Device, ...] = ()
    net_devices: dict[str, NetDevice] | None = None
    cgroups_path: str = ""
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    resources: Resources | None = None
    personality: Personality | None = None
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None

    def namespace(self, kind: str) -> Namespace | None:
        """The entry for a namespace type ("network"), or None if the container shares the runtime's."""
        for entry in self.namespaces:
            if entry.type == kind:
                return entry
        return None


def _device(value: Any, where: str) -> Device:
    found = _DEVICE(value, where)
    if found.type != "p":
        for key in ("major", "minor"):
            if value.get(key) is None:
                raise wrong(where, f"{key!r} is missing")
    return found.replace(file_mode=found.file_mode & 0o7777) if found.file_mode is not None else found


def _resources(value: Any, where: str) -> Resources:
    from pyrun.cgroups import resources

    return resources.parse(value, where)


_MAJOR = integer(0, 2**12 - 1)  # dev_t in the kernel: 12 bits of major, 20 of minor
_MINOR = integer(0, 2**20 - 1)
_DEVICE = record(
    Device,
    ("type", choice(("c", "b", "u", "p"), "device type")),
    ("path", absolute),
    ("major", _MAJOR),
    ("minor", _MINOR),
    ("fileMode", integer(0, 0o177777)),  # docker before 23 put the file type in as well
    ("uid", kernel_id),
    ("gid", kernel_id),
)
_NAMESPACE = record(Namespace, ("type", choice(NAMESPACE_TYPES, "namespace type")), ("path", optional_absolute))
_POLICIES = (
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
)
_POLICY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")
_CLOCK = choice(("monotonic", "boottime"), "clock")  # time_namespaces(7) has these two

LINUX = record(
    Linux,
    ("namespaces", array(_NAMESPACE)),
    ("uidMappings", ID_MAPPINGS),
    ("gidMappings", ID_MAPPINGS),
    ("timeOffsets", mapping(record(TimeOffset, ("secs", int64), ("nanosecs", integer(0, 10**9 - 1))), _CLOCK)),
    ("devices", array(_device)),
    ("netDevices", mapping(record(NetDevice, ("name", text)))),
    ("cgroupsPath", text),
    ("rootfsPropagation", choice(("", *PROPAGATION), "propagation")),
    ("seccomp", seccomp.parse),
    ("sysctl", mapping(text)),
    ("maskedPaths", array(absolute)),
    ("readonlyPaths", array(absolute)),
    ("mountLabel", text),
    ("resources", _resources),
    (
        "personality",
        record(Personality, ("domain", choice(("LINUX", "LINUX32"), "domain")), ("flags", array(choice((), "flag")))),
    ),
    (
        "intelRdt",
        record(
            IntelRdt,
            ("closID", text),
            ("schemata", texts),
            ("l3CacheSchema", text),
            ("memBwSchema", text),
            ("enableMonitoring", boolean),
        ),
    ),
    (
        "memoryPolicy",
        record(
            MemoryPolicy,
            (
                "mode",
                choice(_POLICIES, "memory policy"),
            ),
            ("nodes", text),
            (
                "flags",
                array(choice(_POLICY_FLAGS, "policy flag")),
            ),
        ),
    ),
)

# --- the whole --------------------------------------------------------------------------------------------------


class Spec(Record):
    """A configuration. `process` and `root` are optional until a container is started."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: dict[str, str] | None = None
    linux: Linux = Linux()


def _version(value: Any, where: str) -> str:
    """A SemVer below 2: within 1.x every configuration is compatible (config.md, Specification version).

    0.x are the drafts of 1.0; the spec's own examples still say so.
    """
    parts = text(value, where).partition("+")[0].partition("-")[0].split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise wrong(where, f"{value!r} is not a version such as 1.3.0")
    if int(parts[0]) > 1:
        raise wrong(where, f"version {value} is not compatible with 1.3", hint="pyrun reads versions up to 1.x")
    return str(value)


_SPEC = record(
    Spec,
    ("ociVersion", _version),
    ("process", PROCESS),
    ("root", record(Root, ("path", nonempty), ("readonly", boolean))),
    ("hostname", text),
    ("domainname", text),
    ("mounts", array(_mount)),
    ("hooks", HOOKS),
    ("annotations", mapping(text)),
    ("linux", LINUX),
)


def parse(value: object, where: str = "config.json") -> Spec:
    """The Spec in a decoded JSON document; `where` names it in messages. Raises SpecError and nothing else."""
    return _SPEC(value, f"{where}: ")
