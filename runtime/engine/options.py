# SPDX-License-Identifier: Apache-2.0
"""RunOptions: everything that `pyrun run` and `pyrun create` can say, typed, normalised and free of the command line.

This is also the Python API: `RunOptions(image="flask-app", publish=(PortSpec(...),), memory=64 << 20)`.
Field names are docker's long flags in snake_case; sizes are bytes, times are seconds, `None` is "not said".
The command line builds one in runtime/cli/run_flags.py; the engine turns one into an OCI config.
"""

from __future__ import annotations

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, TypeVar

    from pyrun.netns.ports import PortSpec

    R = TypeVar("R", bound=Record)

UNLIMITED = -1  # for memory_swap, pids_limit and ulimits
DETACH_KEYS = "ctrl-p,ctrl-q"  # docker's default


class MountOption(Record):
    """One of -v, --mount or --tmpfs.

    `source` is an absolute host path (bind), a volume's name or "" for an anonymous one (volume), "" (tmpfs).
    """

    type: str  # bind | volume | tmpfs
    source: str
    target: str  # absolute, inside the container
    readonly: bool = False
    create_source: bool = False  # -v makes a missing host directory; --mount refuses it
    propagation: str = ""  # "" (the engine's default, rprivate) or [r]private, [r]shared, [r]slave
    recursive: str = "enabled"  # bind-recursive: enabled | disabled | writable | readonly
    selinux: str = ""  # "z" shared label, "Z" private label
    nocopy: bool = False  # do not fill an empty new volume from the image
    subpath: str = ""  # a directory inside the volume, relative
    driver: str = ""  # volume driver; "" is local
    driver_opts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()  # for a volume that this mount creates
    tmpfs_size: int | None = None  # bytes; None is the kernel's default, half of the memory
    tmpfs_mode: int = 0o1777
    tmpfs_options: tuple[str, ...] = ()  # further options of --tmpfs, such as noexec, uid=1000


class DeviceOption(Record):
    """--device path_on_host:path_in_container:permissions; a directory on the host stands for all devices below it."""

    path_on_host: str
    path_in_container: str
    permissions: str = "rwm"  # a subset of r(ead), w(rite), m(knod), in this order


class RestartPolicy(Record):
    """--restart: no | always | unless-stopped | on-failure[:max_retries]; 0 retries is no bound."""

    name: str = "no"
    max_retries: int = 0


class Ulimit(Record):
    """--ulimit name=soft[:hard]; UNLIMITED is no limit. The name is prlimit's in lower case, such as nofile."""

    name: str
    soft: int
    hard: int


class RunOptions(Record):
    """One container as asked for. Everything but the image has a default that means "not said"."""

    image: str
    command: tuple[str, ...] = ()  # after the image; () is the image's CMD
    name: str = ""  # "" lets the engine choose adjective_name

    # how this command behaves
    detach: bool = False
    interactive: bool = False
    tty: bool = False
    attach: tuple[str, ...] = ()  # of stdin, stdout, stderr; () is all that fits
    detach_keys: str = DETACH_KEYS
    sig_proxy: bool = True
    rm: bool = False
    cidfile: str = ""
    pull: str = "missing"  # missing | always | never
    platform: str = ""  # os/architecture[/variant]; "" is this machine's
    quiet: bool = False
    explain: bool = False
    trace: bool = False
    format: str = ""  # of --explain and --trace: "" for people, "json"

    # the process
    entrypoint: tuple[str, ...] | None = None  # None is the image's; () removes the image's
    env: tuple[tuple[str, str], ...] = ()  # final: --env-file, then -e; the later one wins
    unset_env: tuple[str, ...] = ()  # `-e NAME` with NAME not set here: taken out of the image's
    workdir: str = ""
    user: str = ""  # name|uid[:group|gid]
    group_add: tuple[str, ...] = ()
    init: bool = False
    stop_signal: str = ""  # "SIGTERM"; "" is the image's
    stop_timeout: int | None = None  # seconds; -1 waits for ever
    oom_score_adj: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    restart: RestartPolicy = RestartPolicy()

    # what it sees
    hostname: str = ""
    domainname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    mounts: tuple[MountOption, ...] = ()
    volumes_from: tuple[str, ...] = ()  # container[:ro|:rw]
    read_only: bool = False
    shm_size: int | None = None  # bytes; None is 64 MiB
    devices: tuple[DeviceOption, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()  # "c 1:3 rwm"
    sysctls: tuple[tuple[str, str], ...] = ()
    pid: str = ""  # "" its own | host | container:NAME
    ipc: str = ""  # "" its own | private | shareable | none | host | container:NAME
    uts: str = ""  # "" its own | host
    userns: str = ""  # "" the engine's default | host
    cgroupns: str = ""  # "" private | private | host

    # what it may do
    privileged: bool = False
    cap_add: tuple[str, ...] = ()  # "CAP_NET_ADMIN", or "ALL"
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = ""  # "" the default profile | "unconfined" | the JSON text of a profile
    apparmor: str = ""  # "" the default | "unconfined" | a profile's name
    selinux_labels: tuple[str, ...] = ()  # of --security-opt label=…: "disable", "type:…"
    systempaths_unconfined: bool = False

    # the network
    network: str = "bridge"  # bridge | none | host | container:NAME | ns:PATH | a network's name
    network_aliases: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    mac_address: str = ""
    publish: tuple[PortSpec, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()  # "80/tcp"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    add_hosts: tuple[tuple[str, str], ...] = ()  # (name, address or "host-gateway")

    # limits (cgroup v2)
    cgroup_parent: str = ""
    memory: int | None = None  # bytes
    memory_swap: int | None = None  # bytes of memory and swap together; UNLIMITED
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None  # 2..262144
    cpu_period: int | None = None  # microseconds
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None  # UNLIMITED
    blkio_weight: int | None = None  # 10..1000
    blkio_weight_device: tuple[tuple[str, int], ...] = ()
    device_read_bps: tuple[tuple[str, int], ...] = ()  # (device's path, bytes per second)
    device_write_bps: tuple[tuple[str, int], ...] = ()
    device_read_iops: tuple[tuple[str, int], ...] = ()
    device_write_iops: tuple[tuple[str, int], ...] = ()

    # its output
    log_driver: str = "json-file"  # json-file | none
    log_opts: tuple[tuple[str, str], ...] = ()  # max-size, max-file as given

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON values: nested records are objects, tuples lists."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The options that to_json() gave. Raises TypeError for a field that this version does not know."""
        fields = {name: _frozen(item) for name, item in value.items()}
        nested: dict[str, type[Record]] = {"mounts": MountOption, "devices": DeviceOption, "ulimits": Ulimit}
        if "publish" in value:
            from pyrun.netns.ports import PortSpec  # here, because a container without ports need not load it

            nested["publish"] = PortSpec
        for name, kind in nested.items():
            if name in value:
                fields[name] = tuple(record_from_json(kind, item) for item in value[name])
        if "restart" in value:
            fields["restart"] = record_from_json(RestartPolicy, value["restart"])
        return cls(**fields)


def to_json(record: Record) -> dict[str, Any]:
    """A Record as a JSON object: only fields that differ from their class's default, so that defaults stay readable."""
    kind = type(record)
    missing = object()
    values = record.asdict().items()
    return {name: _plain(item) for name, item in values if getattr(kind, name, missing) != item}


def record_from_json(kind: type[R], value: dict[str, Any]) -> R:
    """The Record of class `kind` whose to_json() is `value`: lists become tuples. Raises TypeError."""
    return kind(**{name: _frozen(item) for name, item in value.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return to_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
