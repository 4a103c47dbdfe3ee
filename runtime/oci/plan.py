# SPDX-License-Identifier: Apache-2.0
"""The plan: what pyrun-init does between clone3 and the user's program, as one ordered list.

plan(spec, extras) is pure: no system call, no file. Its order is load-bearing; each step says why it stands there
(runtime/oci/steps.py), and the comments here say why it stands *before or after* its neighbours.
"""

from __future__ import annotations

from pyrun.runtime.errors import Unsupported
from pyrun.runtime.oci import steps as s
from pyrun.runtime.oci import sysctl
from pyrun.runtime.oci.namespaces import FLAGS, NamespacePlan, plan_namespaces
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyrun.runtime.oci.capabilities import CapabilitySets
    from pyrun.runtime.oci.spec import Mount, Personality, Process, Spec

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SYNC_IDS_MAPPED, SYNC_HOST_READY, SYNC_HOOKS = 1, 2, 3

S_IFCHR, S_IFBLK, S_IFIFO = 0o020000, 0o060000, 0o010000
DEVICE_TYPES = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}


def makedev(major: int, minor: int) -> int:
    """The kernel's dev_t as mknod(2) takes it; gnu_dev_makedev(3)."""
    return (major & 0xFFF) << 8 | (major & ~0xFFF) << 32 | (minor & 0xFF) | (minor & ~0xFF) << 12


#: config-linux.md, "Default Devices": path, major, minor
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

#: runtime-linux.md, "Dev symbolic links"; ptmx belongs to the container's own devpts
DEFAULT_SYMLINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)

PROPAGATION = {
    "private": 1 << 18, "rprivate": 1 << 18 | s.MS_REC, "slave": 1 << 19, "rslave": 1 << 19 | s.MS_REC,
    "shared": 1 << 20, "rshared": 1 << 20 | s.MS_REC, "unbindable": 1 << 17, "runbindable": 1 << 17 | s.MS_REC,
}  # fmt: skip


PRIVATE = PROPAGATION["rprivate"]


class Extras(Record):
    """What a start needs to know beyond config.json; the engine and pyrun-oci fill it in."""

    overlay: s.RootOverlay | None = None  # None: root.path is the root file system itself
    root_path: str = ""  # root.path made absolute
    seccomp: tuple[int, bytes] | None = None  # SECCOMP_FILTER_FLAG_*, compiled program
    stdio: tuple[str | None, str | None, str | None] | None = None  # names of descriptors; None inherits 0, 1, 2
    rows: int = 0
    columns: int = 0
    host_ready: bool = False  # the host side has work (network) that must be done before the program runs
    netlink: bool = False  # hand out a netlink socket of the new network namespace
    wait_for_start: bool = False  # `create`: stop before exec until `start`
    reaper: bool = False  # --init
    keyring: str = ""  # name of the session keyring; "" keeps the caller's
    cgroup_directory: str = ""  # of the container, on the host's cgroup2; "" mounts a new cgroup2 instead of binding it
    instead: tuple[tuple[str, s.Step], ...] = ()  # target of a bind mount -> the step that makes it in another way
    capabilities: CapabilitySets | None = None  # what can really be given (capabilities.grantable); None: as configured


class Plan(Record):
    """How to start one process: the flags of clone3, the namespaces to open, the steps of pyrun-init."""

    clone_flags: int
    joined: tuple[tuple[str, str], ...]  # descriptor's name -> path of a namespace
    steps: tuple[s.Step, ...]
    maps_ids: bool = False  # the parent writes uid_map and gid_map


def plan(spec: Spec, extras: Extras) -> Plan:
    """The plan for a container's init.

    Raises Unsupported for what this version cannot do. `spec` has been validated.
    """
    namespaces = plan_namespaces(spec)
    return Plan(
        clone_flags=namespaces.clone_flags,
        joined=namespaces.joined,
        steps=tuple(container_steps(spec, extras, namespaces)),
        maps_ids=namespaces.maps_ids,
    )


def container_steps(spec: Spec, extras: Extras, namespaces: NamespacePlan) -> Iterator[s.Step]:
    """What PID 1 does before it becomes the user's program."""
    process = spec.process
    assert process is not None  # validate: a start needs one
    linux = spec.linux
    in_userns = namespaces.in_userns

    yield from namespaces.steps  # first of all: everything below happens inside them
    yield s.ProcHandle()  # after Fork: procfs shows the pid namespace it is made in
    if namespaces.new_net:
        yield s.LoopbackUp()  # needs CAP_NET_ADMIN, so before Capabilities
        if extras.netlink:
            yield s.Netlink()  # early: the host side sets up the network while the mounts are made here
    if namespaces.new_mount:
        yield from root(spec, extras)
        # sources are opened while the host is visible
        yield from mounts(spec, extras.cgroup_directory if namespaces.private_cgroup else "", dict(extras.instead))
        yield from devices(spec, bind=in_userns)  # after the mounts: /dev is one of them
        if process.cwd != "/":
            yield s.Mkdir(process.cwd)  # before the root becomes read-only; docker and runc make it too
    if process.terminal:
        size = process.console_size
        rows, columns = (size.height, size.width) if size is not None else (extras.rows, extras.columns)
        # before PivotRoot and the read-only root: /dev/console is a mount point in it
        yield s.Terminal(rows, columns, process.user.uid, 1 if namespaces.new_mount else 0)
    elif extras.stdio is not None:
        yield s.Stdio(*extras.stdio)
        yield s.Session()
    else:
        yield s.Session()
        yield s.StdioOwner(process.user.uid)
    if namespaces.new_mount:
        # after the mounts that they cover, before pivot_root: a mask is made of the host's /dev/null
        for path in linux.readonly_paths:
            yield s.ReadonlyPath(path)
        for path in linux.masked_paths:
            yield s.Mask(path)
        if spec.root is not None and spec.root.readonly:
            yield s.RootReadonly()
        yield s.PivotRoot()
        if linux.rootfs_propagation:
            yield s.RootPropagation("/", PROPAGATION[linux.rootfs_propagation])
    if spec.hostname:
        yield s.Hostname(spec.hostname)
    if spec.domainname:
        yield s.Domainname(spec.domainname)
    if extras.host_ready:
        yield s.Sync(SYNC_HOST_READY)  # as late as possible, but before sysctls of interfaces that it makes
    for key, value in (linux.sysctl or {}).items():
        yield s.Sysctl(sysctl.path(key), value)
    yield from become(process, extras, linux.personality)


def exec_plan(process: Process, flags: int, extras: Extras) -> Plan:
    """The plan for another process in a container that runs (`exec`).

    `flags` are the CLONE_NEW* that differ from ours; the container's init stands behind the descriptor "pidfd".
    """
    return Plan(clone_flags=0, joined=(), steps=tuple(exec_steps(process, flags, extras)))


def exec_steps(process: Process, flags: int, extras: Extras) -> Iterator[s.Step]:
    """Into the container's namespaces, but its pid namespace only when nothing is left to give up.

    Before the fork no process of the container can see this one. After it, one with CAP_SYS_PTRACE could stop it and
    use what it has (CVE-2016-9962): that is then no more than the program itself gets.
    """
    yield s.SetNs("pidfd", flags, "the container")  # all at once: setns(2) of a pidfd, kernel 5.8
    if flags & FLAGS["user"]:
        yield s.BecomeRoot()  # of the container's user namespace
    yield s.RootHere()
    if process.oom_score_adj is not None:
        yield s.ProcHandle()
    yield from give_up(process, extras)
    if flags & (FLAGS["pid"] | FLAGS["time"]):
        yield s.Fork()  # only a child is in the pid and time namespaces
    if process.terminal:
        size = process.console_size
        rows, columns = (size.height, size.width) if size is not None else (extras.rows, extras.columns)
        yield s.Terminal(rows, columns, process.user.uid, 0)  # its session must be that of the process that stays
    elif extras.stdio is not None:
        yield s.Stdio(*extras.stdio)
        yield s.Session()
    else:
        yield s.Session()
    if extras.host_ready:
        yield s.Sync(SYNC_HOST_READY)
    yield from run_program(process, extras)


def root(spec: Spec, extras: Extras) -> Iterator[s.Step]:
    """The root file system, in a mount namespace that no longer reaches the host."""
    wanted = spec.linux.rootfs_propagation
    # "/" stays shared with the host only when the configuration says so (a shared bind mount needs it)
    yield s.Propagation("/", PROPAGATION[wanted] if wanted else PROPAGATION["rslave"])
    if extras.overlay is not None:
        if "shared" in wanted:
            yield s.ParentPrivate(extras.overlay.target)
        yield extras.overlay
    else:
        if "shared" in wanted:
            yield s.ParentPrivate(extras.root_path)
        yield s.RootBind(extras.root_path)


def mounts(spec: Spec, cgroup_directory: str = "", instead: Mapping[str, s.Step] | None = None) -> Iterator[s.Step]:
    """The configuration's mounts, in its order.

    A container's cgroup file system is its own directory of the host's, bound: mounting cgroup2 anew shows the same in
    a cgroup namespace, but the kernel takes 12 ms for it (measured on 6.18).
    """
    for index, mount in enumerate(spec.mounts):
        where = f"config.json: mounts[{index}]"
        options = mount.options
        if mount.uid_mappings or mount.gid_mappings or options.idmap:
            raise Unsupported(where, "id-mapped mounts are not supported yet")
        if options.tmpcopyup:
            raise Unsupported(where, "tmpcopyup is not supported yet")
        if options.bind:
            yield (instead or {}).get(mount.destination) or bind(mount)
            continue
        if mount.type in ("cgroup", "cgroup2") and cgroup_directory:
            yield s.Bind(cgroup_directory, mount.destination, 0, options.attr_set, options.attr_clear, 0, 0, PRIVATE)
            continue
        yield file_system(mount)
        for flags in options.propagation:
            yield s.MountPropagation(mount.destination, flags)


def bind(mount: Mount) -> s.Step:
    """A bind mount; attributes and propagation are set on the detached copy or right after attaching."""
    options = mount.options
    propagation = options.propagation[-1] if options.propagation else PROPAGATION["rprivate"]
    return s.Bind(
        mount.source,
        mount.destination,
        1 if options.recursive else 0,
        options.attr_set,
        options.attr_clear,
        options.rec_attr_set,
        options.rec_attr_clear,
        propagation,
    )


def file_system(mount: Mount) -> s.Step:
    """A new file system. `cgroup` means cgroup2 here: pyrun knows no other (invariant 7)."""
    options = mount.options
    fstype = "cgroup2" if mount.type == "cgroup" else mount.type
    mode = 0o1777 if fstype == "mqueue" else 0o755
    data = ",".join((*(word for word in options.superblock if word != "ro"), *options.data_words))
    return s.Mount(fstype, mount.source or fstype, mount.destination, options.attr_set, data, mode)


def devices(spec: Spec, *, bind: bool) -> Iterator[s.Step]:
    """Default devices and symbolic links, then the configuration's devices.

    Not when /dev is a bind mount: then it is somebody else's. In a user namespace mknod is refused, so the host's nodes
    are bound instead.
    """
    if any(m.destination.rstrip("/") == "/dev" and m.options.bind for m in spec.mounts):
        return
    extra = spec.linux.devices
    taken = {device.path for device in extra}
    for path, major, minor in DEFAULT_DEVICES:
        if path not in taken:
            yield device_step(path, S_IFCHR | 0o666, major, minor, bind=bind)
    for device in extra:
        mode = DEVICE_TYPES[device.type] | (device.file_mode if device.file_mode is not None else 0o666) & 0o7777
        yield device_step(device.path, mode, device.major, device.minor, device.uid or 0, device.gid or 0, bind=bind)
    for target, path in DEFAULT_SYMLINKS:
        yield s.Symlink(target, path)


def device_step(path: str, mode: int, major: int, minor: int, uid: int = 0, gid: int = 0, *, bind: bool) -> s.Step:
    """One device node, made or, where that is not allowed, bound from the host."""
    if bind and mode & 0o170000 != S_IFIFO:
        return s.Bind(path, path)
    return s.Mknod(path, mode, makedev(major, minor), uid, gid)


def personality_number(personality: Personality) -> int:
    """personality(2); config-linux.md knows two domains and no flags yet."""
    return {"LINUX": 0, "LINUX32": 8}[personality.domain]


def capability_sets(process: Process, extras: Extras) -> CapabilitySets | None:
    """The masks that the process gets; None keeps what pyrun has."""
    from pyrun.runtime.oci.capabilities import CapabilitySets, mask

    caps = process.capabilities
    if caps is None or extras.capabilities is not None:
        return extras.capabilities
    sets = (caps.bounding, caps.effective, caps.inheritable, caps.permitted)
    bounding, effective, inheritable, permitted = (mask(names)[0] for names in sets)
    # capabilities(7): a capability can be ambient only if it is permitted and inheritable
    ambient = mask(caps.ambient)[0] & permitted & inheritable
    return CapabilitySets(bounding, effective, inheritable, permitted, ambient)


def become(process: Process, extras: Extras, personality: Personality | None = None) -> Iterator[s.Step]:
    """From here to the user's program: limits, identity, privileges."""
    yield from give_up(process, extras, personality)
    yield from run_program(process, extras)


def give_up(process: Process, extras: Extras, personality: Personality | None = None) -> Iterator[s.Step]:
    """Limits, identity, privileges: afterwards the process is no more than the user's program will be."""
    if extras.keyring:
        yield s.Keyring(extras.keyring)
    for limit in process.rlimits:
        yield s.Rlimit(limit.number, limit.soft, limit.hard, limit.type)
    if process.oom_score_adj is not None:
        yield s.OomScoreAdj(process.oom_score_adj)
    if personality is not None:
        yield s.Personality(personality_number(personality))
    user = process.user
    yield s.Umask(user.umask if user.umask is not None else 0o022)
    caps = capability_sets(process, extras)
    if caps is not None:
        yield s.Bounding(caps.bounding)
    yield s.Ids(user.uid, user.gid, user.additional_gids)
    if process.no_new_privileges:
        yield s.NoNewPrivs()
    elif extras.seccomp is not None:
        yield s.Seccomp(*extras.seccomp)  # without no_new_privs a filter needs CAP_SYS_ADMIN: while we still have it
    if caps is not None:
        yield s.Capabilities(caps.effective, caps.permitted, caps.inheritable, caps.ambient)


def run_program(process: Process, extras: Extras) -> Iterator[s.Step]:
    """The working directory, the program, and execve."""
    yield s.Chdir(process.cwd)  # as the user: a directory that only root may enter must refuse
    path = next((item[5:] for item in reversed(process.env) if item.startswith("PATH=")), DEFAULT_PATH)
    yield s.Lookup(process.args[0], path)
    if process.no_new_privileges and extras.seccomp is not None:
        yield s.Seccomp(*extras.seccomp)  # as late as possible
    if extras.wait_for_start:
        yield s.WaitForStart()
    if extras.reaper:
        yield s.Reaper()  # last: PID 1 keeps the program's identity and limits
    yield s.Exec(process.args, process.env)
