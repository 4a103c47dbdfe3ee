# SPDX-License-Identifier: Apache-2.0
"""The steps of a plan: what pyrun-init does, one class each.

Every step describes itself in one line in the words of mount(8), unshare(1), setpriv(1) or the shell, says why it is
there, and encodes itself as an operation of runtime/kernel/init/wire.h. Steps are values: two plans can be compared.
"""

from __future__ import annotations

import struct

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar

    from pyrun.runtime.oci.wire import Arg

MS_RDONLY, MS_REC, MS_BIND = 0x1, 0x4000, 0x1000
PROPAGATION = {1 << 17: "unbindable", 1 << 18: "private", 1 << 19: "slave", 1 << 20: "shared"}

#: MOUNT_ATTR_* as words, include/uapi/linux/mount.h; the atime values are a field, not bits
ATTRIBUTES = {0x1: "ro", 0x2: "nosuid", 0x4: "nodev", 0x8: "noexec", 0x80: "nodiratime", 0x200000: "nosymfollow"}
CLEARED = {0x1: "rw", 0x2: "suid", 0x4: "dev", 0x8: "exec", 0x80: "diratime", 0x200000: "symfollow"}
ATIME_FIELD = 0x70
ATIME = {0x10: "noatime", 0x20: "strictatime"}

NAMESPACE_FLAGS = {
    0x80: "time", 0x20000: "mount", 0x2000000: "cgroup", 0x4000000: "uts",
    0x8000000: "ipc", 0x10000000: "user", 0x20000000: "pid", 0x40000000: "net",
}  # fmt: skip


def attribute_words(attr_set: int, attr_clear: int = 0) -> str:
    """MOUNT_ATTR_* bits as mount(8) options, unknown bits in hex."""
    words = [word for bit, word in ATTRIBUTES.items() if attr_set & bit]
    words += [word for bit, word in CLEARED.items() if attr_clear & bit & ~attr_set]
    if attr_set & ATIME_FIELD in ATIME:
        words.append(ATIME[attr_set & ATIME_FIELD])
    if rest := attr_set & ~(sum(ATTRIBUTES) | ATIME_FIELD):
        words.append(f"{rest:#x}")
    return ",".join(words)


def propagation_word(flags: int) -> str:
    """MS_SHARED and its like as mount(8) words: "rslave"."""
    word = next((word for bit, word in PROPAGATION.items() if flags & bit), f"{flags:#x}")
    return ("r" if flags & MS_REC else "") + word


def namespace_words(flags: int) -> str:
    """CLONE_NEW* as "mount,pid,net"."""
    return ",".join(word for bit, word in NAMESPACE_FLAGS.items() if flags & bit)


class Step(Record):
    """One thing that pyrun-init does. `why` is the reason it stands where it stands."""

    op: ClassVar[str] = ""
    why: ClassVar[str] = ""

    def describe(self) -> str:
        """The step in one line, as an administrator would type it where there is such a command."""
        raise NotImplementedError

    def args(self) -> Sequence[Arg]:
        """The arguments of the wire operation, in the order of its signature: by default, the fields."""
        return [getattr(self, name) for name in self._fields]


def simple(name: str, op: str, text: str, why: str) -> type[Step]:
    """A step without fields."""
    return type(name, (Step,), {"op": op, "why": why, "describe": lambda self: text, "__module__": __name__})


class _Formatted(Step):
    """A step whose description is a format string over its fields."""

    text: ClassVar[str] = ""

    def describe(self) -> str:
        return self.text.format(**self.asdict())


# ---- talking to Python -----------------------------------------------------------------------------------------------

SYNC_POINTS = {
    1: "user and group ids are mapped", 2: "network and host side are ready", 3: "createRuntime hooks ran",
    4: "PYRUN_BREAK",
}  # fmt: skip


class Sync(Step):
    op = "SYNC"
    why = "only the host side can do this part; nothing goes on before it has"
    point: int

    def describe(self) -> str:
        return f"wait: {SYNC_POINTS.get(self.point, self.point)}"


# ---- namespaces ------------------------------------------------------------------------------------------------------

BecomeRoot = simple(
    "BecomeRoot", "BECOME_ROOT", "setpriv --reuid 0 --regid 0 --clear-groups",
    "files of the root file system belong to the mapped root",
)  # fmt: skip


class SetNs(Step):
    op = "SETNS"
    why = "joined before anything is made, so that new namespaces belong to it"
    fd: str
    flags: int
    label: str

    def describe(self) -> str:
        return f"nsenter --{namespace_words(self.flags).replace(',', ' --')} {self.label}"

    def args(self) -> Sequence[Arg]:
        return [self.fd, self.flags]


class Unshare(Step):
    op = "UNSHARE"
    why = "after the joined ones: a new namespace is owned by the user namespace it is made in"
    flags: int

    def describe(self) -> str:
        return f"unshare --{namespace_words(self.flags).replace(',', ' --')}"


class TimeOffsets(_Formatted):
    op = "TIME_OFFSETS"
    why = "the kernel takes them only while the namespace is empty"
    text = "echo {offsets!r} > /proc/self/timens_offsets"
    offsets: str


Fork = simple("Fork", "FORK", "fork", "setns and unshare move only children into pid and time namespaces")
LoopbackUp = simple("LoopbackUp", "LOOPBACK_UP", "ip link set lo up", "a new network namespace has it down")
Netlink = simple(
    "Netlink", "NETLINK", "hand a netlink socket of this network namespace to the host side",
    "addresses and routes are set through it, so nothing of the host enters",
)  # fmt: skip

# ---- the root file system --------------------------------------------------------------------------------------------

ProcHandle = simple(
    "ProcHandle", "PROC_HANDLE", "open a private procfs (fsopen proc)",
    "later writes below /proc must not go through the container's own /proc (CVE-2025-52881)",
)  # fmt: skip


class Propagation(Step):
    op = "PROPAGATION"
    why = "from here on no mount of ours can reach the host"
    path: str
    flags: int

    def describe(self) -> str:
        return f"mount --make-{propagation_word(self.flags)} {self.path}"


class ParentPrivate(_Formatted):
    op = "PARENT_PRIVATE"
    why = "pivot_root wants it, and the root file system must not show on the host"
    text = "mount --make-private (the mount that holds {path})"
    path: str


class RootBind(Step):
    op = "ROOT_BIND"
    why = "pivot_root wants a mount point"
    path: str
    recursive: int = 1

    def describe(self) -> str:
        return f"mount --{'rbind' if self.recursive else 'bind'} {self.path} {self.path}"


class RootOverlay(Step):
    op = "ROOT_OVERLAY"
    why = "the image's layers stay as they are; changes go to the upper directory"
    target: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: str = ""

    def describe(self) -> str:
        options = f"lowerdir={':'.join(self.lower)},upperdir={self.upper},workdir={self.work}"
        return f"mount -t overlay overlay -o {options}{',' + self.options if self.options else ''} {self.target}"


RootHere = simple("RootHere", "ROOT_HERE", "open / of the container", "later paths are resolved from it")


class Mount(Step):
    op = "MOUNT"
    why = "in the order of the configuration; the target is resolved inside the root, by descriptor"
    fstype: str
    source: str
    target: str
    attributes: int = 0
    data: str = ""
    mode: int = 0o755

    def describe(self) -> str:
        options = ",".join(word for word in (attribute_words(self.attributes), self.data) if word)
        option = f" -o {options}" if options else ""
        return f"mount -t {self.fstype}{option} {self.source or self.fstype} {self.target}"


class Bind(Step):
    op = "BIND"
    why = "the source is opened before pivot_root, while the host's paths exist"
    source: str
    target: str
    recursive: int = 0
    attr_set: int = 0
    attr_clear: int = 0
    rec_set: int = 0
    rec_clear: int = 0
    propagation: int = 0

    def describe(self) -> str:
        words = [attribute_words(self.attr_set, self.attr_clear)]
        words += [f"r{word}" for word in attribute_words(self.rec_set, self.rec_clear).split(",") if word]
        words += [propagation_word(self.propagation)] if self.propagation else []
        option = ",".join(word for word in words if word)
        how = "--rbind" if self.recursive else "--bind"
        return f"mount {how}{' -o ' + option if option else ''} {self.source} {self.target}"


class BindTree(Step):
    op = "BIND_TREE"
    why = "somebody else filled the tree: the path is resolved inside it, by descriptor (CVE-2024-1753)"
    place: str  # an empty directory of ours: an overlay of several directories is mounted there for a moment
    lower: tuple[str, ...]  # topmost first
    upper: str  # "" for none: changes are not possible then
    work: str
    options: str
    source: str  # below the tree
    target: str
    attr_set: int = 0

    def describe(self) -> str:
        tree = self.lower[0]
        lines = []
        if len(self.lower) > 1 or self.upper:
            tree = self.place
            upper = f",upperdir={self.upper},workdir={self.work}" if self.upper else ""
            lines.append(f"mount -t overlay overlay -o lowerdir={':'.join(self.lower)}{upper} {tree}")
        words = attribute_words(self.attr_set)
        lines.append(f"mount --bind{f' -o {words}' if words else ''} {tree}/{self.source.lstrip('/')} {self.target}")
        if tree == self.place:
            lines.append(f"umount {tree}")
        return "; ".join(lines)


class MountPropagation(Step):
    op = "MOUNT_PROPAGATION"
    why = "the configuration asks for it on this mount"
    target: str
    flags: int

    def describe(self) -> str:
        return f"mount --make-{propagation_word(self.flags)} {self.target}"


class Mkdir(Step):
    op = "MKDIR"
    why = "made component by component below the root's descriptor"
    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"mkdir -p -m {self.mode:o} {self.path}"


class Symlink(_Formatted):
    op = "SYMLINK"
    why = "programs expect it"
    text = "ln -s {target} {path}"
    target: str
    path: str


class Mknod(Step):
    op = "MKNOD"
    why = "a device of the container's own /dev; the cgroup's device program decides who may open it"
    path: str
    mode: int
    device: int
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        import os

        kind = {0o020000: "c", 0o060000: "b", 0o010000: "p"}.get(self.mode & 0o170000, "?")
        numbers = "" if kind == "p" else f" {os.major(self.device)} {os.minor(self.device)}"
        return f"mknod -m {self.mode & 0o7777:o} {self.path} {kind}{numbers}"


class Mask(_Formatted):
    op = "MASK"
    why = "it tells about, or changes, the host: hidden behind an empty directory or /dev/null"
    text = "mask {path}"
    path: str


class ReadonlyPath(_Formatted):
    op = "READONLY"
    why = "readable, but writing would change the host"
    text = "mount --rbind -o rro {path} {path}"
    path: str


RootReadonly = simple(
    "RootReadonly", "ROOT_READONLY", "mount -o remount,bind,ro /", "after everything that makes mount points in it"
)
PivotRoot = simple(
    "PivotRoot", "PIVOT_ROOT", "pivot_root . . && umount -l .", "from here on the host's files do not exist"
)


class RootPropagation(Propagation):
    why = "what the configuration asks for, now that the host's mounts are gone"


class Sysctl(Step):
    op = "SYSCTL"
    why = "namespaced: holds for this container only"
    path: str
    value: str

    def describe(self) -> str:
        return f"echo {self.value} > /proc/sys/{self.path}"


class OomScoreAdj(Step):
    op = "PROC_WRITE"
    why = "before the ids change: raising it is free, lowering it needs CAP_SYS_RESOURCE"
    value: int

    def describe(self) -> str:
        return f"echo {self.value} > /proc/self/oom_score_adj"

    def args(self) -> Sequence[Arg]:
        return ["self/oom_score_adj", str(self.value)]


class Hostname(_Formatted):
    op = "HOSTNAME"
    why = "needs CAP_SYS_ADMIN, so before Capabilities"
    text = "hostname {name}"
    name: str


class Domainname(_Formatted):
    op = "DOMAINNAME"
    why = "needs CAP_SYS_ADMIN, so before Capabilities"
    text = "domainname {name}"
    name: str


# ---- the process -----------------------------------------------------------------------------------------------------


class Terminal(Step):
    op = "TERMINAL"
    why = "from the container's own devpts, by descriptor (CVE-2025-52565); the master end goes to the host side"
    rows: int
    columns: int
    owner: int
    console: int = 1

    def describe(self) -> str:
        return f"open a terminal {self.rows}x{self.columns}{' on /dev/console' if self.console else ''}"


class Stdio(Step):
    op = "STDIO"
    why = "what the program reads and writes"
    stdin: str | None
    stdout: str | None
    stderr: str | None

    def describe(self) -> str:
        return f"<{self.stdin or '&0'} >{self.stdout or '&1'} 2>{self.stderr or '&2'}"


class StdioOwner(_Formatted):
    op = "STDIO_OWNER"
    why = "so that a user who is not root can open /dev/stdout"
    text = "chown {uid} /dev/stdin /dev/stdout /dev/stderr"
    uid: int


Session = simple("Session", "SESSION", "setsid", "no terminal of the caller's to push characters into")


class Keyring(_Formatted):
    op = "KEYRING"
    why = "the caller's keys are not the container's"
    text = "keyctl new_session {name}"
    name: str


class Rlimit(Step):
    op = "RLIMIT"
    why = "before the ids change: raising a hard limit needs CAP_SYS_RESOURCE"
    resource: int
    soft: int
    hard: int
    name: str

    def describe(self) -> str:
        def word(value: int) -> str:
            return "unlimited" if value >= 0xFFFFFFFFFFFFFFFF else str(value)

        return f"prlimit --{self.name.removeprefix('RLIMIT_').lower()}={word(self.soft)}:{word(self.hard)}"

    def args(self) -> Sequence[Arg]:
        return [self.resource, self.soft, self.hard]


class Umask(Step):
    op = "UMASK"
    why = "the program's, not the caller's"
    mask: int

    def describe(self) -> str:
        return f"umask {self.mask:04o}"


class Personality(Step):
    op = "PERSONALITY"
    why = "the configuration asks for it"
    value: int

    def describe(self) -> str:
        return f"setarch {self.value:#x}"


def _capability_words(mask: int) -> str:
    from pyrun.runtime.oci.capabilities import names

    return ",".join(name.removeprefix("CAP_").lower() for name in names(mask)) or "none"


class Bounding(Step):
    op = "BOUNDING"
    why = "needs CAP_SETPCAP, so before Ids and Capabilities"
    mask: int

    def describe(self) -> str:
        return f"setpriv --bounding-set {_capability_words(self.mask)}"


class Ids(Step):
    op = "IDS"
    why = "before Capabilities: setuid would clear them"
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def describe(self) -> str:
        groups = f" --groups {','.join(map(str, self.groups))}" if self.groups else " --clear-groups"
        return f"setpriv --reuid {self.uid} --regid {self.gid}{groups}"

    def args(self) -> Sequence[Arg]:
        return [self.uid, self.gid, struct.pack(f"={len(self.groups)}I", *self.groups)]


class Capabilities(Step):
    op = "CAPABILITIES"
    why = "the last step but the filter that needs any"
    effective: int
    permitted: int
    inheritable: int
    ambient: int

    def describe(self) -> str:
        text = f"capset effective={_capability_words(self.effective)}"
        if self.permitted != self.effective:
            text += f" permitted={_capability_words(self.permitted)}"
        if self.inheritable:
            text += f" inheritable={_capability_words(self.inheritable)}"
        if self.ambient:
            text += f" ambient={_capability_words(self.ambient)}"
        return text


NoNewPrivs = simple("NoNewPrivs", "NO_NEW_PRIVS", "setpriv --no-new-privs", "set-user-id programs gain nothing")


class Seccomp(Step):
    op = "SECCOMP"
    why = "as late as possible: everything before it may use any system call"
    flags: int
    program: bytes

    def describe(self) -> str:
        return (
            f"seccomp filter of {len(self.program) // 8} instructions{f' flags={self.flags:#x}' if self.flags else ''}"
        )


class Chdir(_Formatted):
    op = "CHDIR"
    why = "as the user, and checked to be inside the root (CVE-2024-21626)"
    text = "cd {path}"
    path: str


class Lookup(Step):
    op = "LOOKUP"
    why = "as the user, inside the container: a missing program is found out before `start`"
    name: str
    path: str

    def describe(self) -> str:
        return f"command -v {self.name}"


class WaitForStart(Step):
    op = "WAIT_START"
    why = "`create` returns here; `start` opens the FIFO"
    fd: str = "exec.fifo"

    def describe(self) -> str:
        return "wait for `start` (open exec.fifo)"


Reaper = simple("Reaper", "REAPER", "stay as PID 1 and reap; the child goes on", "--init: orphans are reaped")


class Exec(Step):
    op = "EXEC"
    why = "does not return"
    argv: tuple[str, ...]
    env: tuple[str, ...]

    def describe(self) -> str:
        import shlex

        return f"exec {shlex.join(self.argv)}"


def check_steps() -> list[str]:
    """Operations of the wire format that no step class encodes, and step classes without one (for a test)."""
    from pyrun.runtime.kernel.wire import OPERATIONS

    used: set[str] = set()
    pending: list[type[Step]] = [Step]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if kind.op:
            used.add(kind.op)
    return sorted(used.symmetric_difference(OPERATIONS))
