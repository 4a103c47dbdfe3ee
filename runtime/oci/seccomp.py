# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles of the OCI runtime-spec (config-linux.md, Seccomp), compiled to a BPF program.

    program(parse(raw, "config.json: linux.seccomp"), cache_dir) -> (bpf, filter_flags)

pyrun-init gives both to seccomp(2). Compiling (seccomp_bpf.py) is libseccomp's work and takes 20 ms, so the program is
kept in `cache_dir` by its content, and only the first start pays.
"""

from __future__ import annotations

import os

from pyrun.runtime.record import Record

from .reader import array, choice, integer, nonempty, record, text, texts, uint32, uint64, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# <linux/seccomp.h>: flags of seccomp(2) SECCOMP_SET_MODE_FILTER.
FILTER_FLAG_LOG = 1 << 1
FILTER_FLAG_SPEC_ALLOW = 1 << 2
FILTER_FLAG_NEW_LISTENER = 1 << 3
FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

# TSYNC is accepted and needs nothing: pyrun-init has one thread.
FLAGS: dict[str, int] = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": FILTER_FLAG_WAIT_KILLABLE_RECV,
}
ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
)
OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
# libseccomp's names (seccomp_arch_resolve_name(3)); in a profile they are upper case, after "SCMP_ARCH_".
_ARCHITECTURES = (
    "x86",
    "x86_64",
    "x32",
    "arm",
    "aarch64",
    "mips",
    "mips64",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "ppc",
    "ppc64",
    "ppc64le",
    "s390",
    "s390x",
    "parisc",
    "parisc64",
    "riscv64",
    "loongarch64",
    "m68k",
    "sh",
    "sheb",
)
ARCHITECTURES = tuple([f"SCMP_ARCH_{name.upper()}" for name in _ARCHITECTURES])
_WITH_VALUE = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")


class Condition(Record):
    """A comparison of one argument: `value_two` is what the masked argument must equal, for SCMP_CMP_MASKED_EQ."""

    index: int
    value: int
    op: str
    value_two: int = 0


class Rule(Record):
    """What happens to some system calls; `errno_ret` None means EPERM."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[Condition, ...] = ()


class Seccomp(Record):
    """A profile. The architecture that pyrun runs on is always part of it."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Rule, ...] = ()

    @property
    def notifies(self) -> bool:
        """Whether a listener is needed."""
        return any(rule.action == "SCMP_ACT_NOTIFY" for rule in self.syscalls)


ACTION = choice(ACTIONS, "action")
_ERRNO = integer(0, 4095)  # the kernel caps SECCOMP_RET_ERRNO at MAX_ERRNO
CONDITION = record(
    Condition,
    ("index", integer(0, 5)),  # a system call has six arguments
    ("value", uint64),
    ("op", choice(OPERATORS, "operator")),
    ("valueTwo", uint64),
)
_RULE = record(Rule, ("names", texts), ("action", ACTION), ("errnoRet", uint32), ("args", array(CONDITION)))
_SECCOMP = record(
    Seccomp,
    ("defaultAction", ACTION),
    ("defaultErrnoRet", uint32),
    ("architectures", array(choice(ARCHITECTURES, "architecture"))),
    ("flags", array(choice(FLAGS, "flag"))),
    ("listenerPath", text),
    ("listenerMetadata", text),
    ("syscalls", array(_RULE)),
)


def parse(value: Any, where: str) -> Seccomp:
    """The profile in linux.seccomp. Raises SpecError with the path of what is wrong."""
    found: Seccomp = _SECCOMP(value, where)
    _check_errno(found.default_action, found.default_errno_ret, where, "defaultErrnoRet")
    if found.default_action == "SCMP_ACT_NOTIFY":
        raise wrong(f"{where}.defaultAction", "SCMP_ACT_NOTIFY would stop pyrun-init before anybody listens")
    for index, rule in enumerate(found.syscalls):
        here = f"{where}.syscalls[{index}]"
        if not rule.names:
            raise wrong(f"{here}.names", "needs at least one system call")
        if "" in rule.names:
            nonempty("", f"{here}.names[{rule.names.index('')}]")
        _check_errno(rule.action, rule.errno_ret, here, "errnoRet")
        if rule.action == "SCMP_ACT_NOTIFY":
            _check_notify(rule, found, where, here)
    if found.listener_metadata and not found.listener_path:
        raise wrong(f"{where}.listenerMetadata", "is set without listenerPath")
    return found


def _check_errno(action: str, value: int | None, where: str, key: str) -> None:
    if value is None:
        return
    if action not in _WITH_VALUE:
        raise wrong(f"{where}.{key}", f"{action} takes no errno")
    if action == "SCMP_ACT_ERRNO":
        _ERRNO(value, f"{where}.{key}")
    elif value > 65535:
        raise wrong(f"{where}.{key}", f"{value} is not between 0 and 65535")


def _check_notify(rule: Rule, whole: Seccomp, where: str, here: str) -> None:
    if not whole.listener_path:
        raise wrong(f"{where}.listenerPath", "is missing, and a rule has the action SCMP_ACT_NOTIFY")
    for name in ("write", "sendmsg"):  # pyrun-init hands the listener over with these, after the filter is loaded
        if name in rule.names:
            raise wrong(f"{here}.names[{rule.names.index(name)}]", f"SCMP_ACT_NOTIFY cannot be used for {name}")


def filter_flags(seccomp: Seccomp) -> int:
    """The flags for seccomp(2)."""
    bits = FILTER_FLAG_NEW_LISTENER if seccomp.notifies else 0
    for name in seccomp.flags:
        bits |= FLAGS[name]
    if not seccomp.notifies:  # the kernel refuses it without a listener
        bits &= ~FILTER_FLAG_WAIT_KILLABLE_RECV
    return bits


def compile(seccomp: Seccomp) -> tuple[bytes, int]:  # noqa: A001 - the verb that fits; used as seccomp.compile()
    """The BPF program of a profile (struct sock_filter[], native byte order) and the flags for seccomp(2).

    Takes some 20 ms for docker's default profile. Raises Unsupported, naming the system call or architecture, for
    what this libseccomp or kernel cannot do.
    """
    from . import seccomp_bpf  # loads libseccomp

    return seccomp_bpf.bpf(seccomp), filter_flags(seccomp)


# --- the cache ----------------------------------------------------------------------------------------------------

# A file: the magic line, a line that says which libseccomp made it, SHA-256 of all that follows or stands before, BPF.
_MAGIC = b"pyrun seccomp 1\n"
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
KEEP = 128  # programs in the cache


def _sha256(data: bytes) -> bytes:
    """SHA-256 without `import hashlib`, which loads OpenSSL: 9 ms instead of 0.05."""
    for name in ("_sha2", "_sha256", "hashlib"):  # CPython 3.12 and later, 3.11, any other
        try:
            digest: bytes = __import__(name).sha256(data).digest()
            return digest
        except ImportError:
            continue
    raise AssertionError("unreachable: hashlib is part of Python")


def cache_key(seccomp: Seccomp) -> str:
    """What names a program: the profile as far as it decides the program, architecture and kernel."""
    machine = os.uname()
    rules = [
        (rule.names, rule.action, rule.errno_ret, [(arg.index, arg.value, arg.op, arg.value_two) for arg in rule.args])
        for rule in seccomp.syscalls
    ]
    content = (
        _MAGIC,
        machine.machine,
        machine.release,
        seccomp.default_action,
        seccomp.default_errno_ret,
        seccomp.architectures,
        rules,
    )
    return _sha256(repr(content).encode()).hex()


def program(seccomp: Seccomp, cache_dir: str) -> tuple[bytes, int]:
    """compile(), remembered in `cache_dir` (created with mode 0700).

    A cached file counts only if it is this user's, writable by nobody else, whole, and made by the libseccomp that is
    still there: then libseccomp is not even loaded. A cache that cannot be written costs time, never a start.
    Raises Unsupported as compile() does.
    """
    path = f"{cache_dir}/{cache_key(seccomp)}.bpf"
    found = _read_cached(path)
    if found is None:
        found, _ = compile(seccomp)
        _write_cached(cache_dir, path, found)
    return found, filter_flags(seccomp)


def _read_cached(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        about = os.fstat(fd)
        if about.st_mode & 0o170022 != 0o100000 or about.st_uid != os.geteuid():  # a regular file, g-w, o-w
            return None
        data = os.read(fd, 8 * _MAX_INSTRUCTIONS + 8192)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not data.startswith(_MAGIC):
        return None
    library, newline, rest = data[len(_MAGIC) :].partition(b"\n")
    digest, body = rest[:32], rest[32:]
    if not newline or not body or len(body) % 8 or len(body) > 8 * _MAX_INSTRUCTIONS:
        return None
    if _sha256(library + body) != digest:
        return None
    return body if library == _identity(library.rpartition(b"|")[2]) else None


def _identity(path: bytes) -> bytes:
    """Which build of libseccomp the file at `path` is, without reading it: an upgrade replaces the file."""
    try:
        about = os.stat(path)
    except OSError:
        return b""
    return b"%d|%d|%d|%s" % (about.st_ino, about.st_size, about.st_mtime_ns, path)


def _library() -> bytes:
    """The path of the libseccomp that this process has loaded; of the extension module if it is linked in there."""
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            path = line.rstrip(b"\n").partition(b"/")
            if b"libseccomp" in path[2]:
                return b"/" + path[2]
    from pyrun.runtime.kernel import libseccomp as lib

    return lib.EXTENSION


def _write_cached(cache_dir: str, path: str, body: bytes) -> None:
    from pyrun.runtime.files import private_dir, write_atomic

    try:
        private_dir(cache_dir)
        library = _identity(_library())
        write_atomic(path, _MAGIC + library + b"\n" + _sha256(library + body) + body, sync=False)
        entries = [entry.path for entry in os.scandir(cache_dir) if entry.name.endswith(".bpf")]
        for old in sorted(entries, key=lambda name: os.stat(name).st_mtime_ns)[:-KEEP]:
            os.unlink(old)
    except OSError:
        pass  # a full or read-only disk, or another pyrun at the same work: the program is in hand
