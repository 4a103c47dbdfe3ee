# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles of the OCI runtime-spec (config-linux.md, Seccomp), compiled to a BPF program.

    program(parse(raw, "config.json: linux.seccomp"), cache_dir) -> (bpf, filter_flags)

pyrun-init gives both to seccomp(2). Compiling is libseccomp's work and takes milliseconds, so the program is kept in
`cache_dir` by its content: a start pays for it once. In front of libseccomp's program stands a short one that answers
ENOSYS to system calls newer than any that the profile names: programs fall back to an older call on ENOSYS and give
up on EPERM (runc does the same since 1.0-rc93; without it every new glibc breaks every old profile).
"""

from __future__ import annotations

import os
import struct

from pyrun.runtime.errors import Unsupported
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
_EPERM, _ENOSYS = 1, 38


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


# --- compiling --------------------------------------------------------------------------------------------------


def compile(seccomp: Seccomp) -> tuple[bytes, int]:  # noqa: A001 - the verb that fits; used as seccomp.compile()
    """The BPF program of a profile (struct sock_filter[], native byte order) and the flags for seccomp(2).

    System calls that libseccomp doesn't know are left out, as runc leaves them out: a profile names those of every
    kernel. Raises Unsupported, naming the system call or architecture, for what this libseccomp or kernel cannot do.
    """
    from pyrun.runtime.kernel import libseccomp as lib

    default = lib.action(seccomp.default_action, _value(seccomp.default_errno_ret))
    try:
        with lib.Filter(default) as builder:
            for name in seccomp.architectures:
                builder.arch_add(_token(name))
            if sum(len(rule.names) for rule in seccomp.syscalls) > 32:
                builder.optimize(2)  # a binary tree; libseccomp up to 2.5.4 mishandles it with no rule at all
            for rule in seccomp.syscalls:
                _add_rule(builder, rule, default)
            body = builder.export_bpf()
    except OSError as error:
        raise Unsupported("compile the seccomp profile", str(error.strerror or error)) from error
    return _enosys_stub(seccomp) + body, filter_flags(seccomp)


def unknown_syscalls(seccomp: Seccomp) -> tuple[str, ...]:
    """The names in a profile that this libseccomp does not know: calls newer than it, or mistyped."""
    from pyrun.runtime.kernel import libseccomp as lib

    return tuple(
        dict.fromkeys(
            [name for rule in seccomp.syscalls for name in rule.names if lib.syscall_resolve_name(name) is None]
        )
    )


def _value(errno_ret: int | None) -> int:
    return _EPERM if errno_ret is None else errno_ret


def _token(name: str) -> int:
    from pyrun.runtime.kernel import libseccomp as lib

    token = lib.arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower())
    if not token:
        raise Unsupported(f"seccomp architecture {name}", f"libseccomp {lib.version()} does not know it")
    return token


def _add_rule(builder: Any, rule: Rule, default: int) -> None:
    from pyrun.runtime.kernel import libseccomp as lib

    act = lib.action(rule.action, _value(rule.errno_ret))
    if act == default:  # says nothing new, and libseccomp refuses it
        return
    conditions = [(arg.index, lib.COMPARE[arg.op], arg.value, arg.value_two) for arg in rule.args]
    # Conditions on the same argument used to be alternatives, so runc makes them so: a rule for each.
    repeated = len({arg.index for arg in rule.args}) < len(rule.args)
    for name in rule.names:
        number = lib.syscall_resolve_name(name)
        if number is None:
            continue
        try:
            for group in [[condition] for condition in conditions] if repeated else [conditions]:
                builder.rule_add(act, number, group)
        except OSError as error:
            raise Unsupported(f"seccomp rule {rule.action} for {name}", str(error.strerror or error)) from error


# --- ENOSYS for calls newer than the profile ----------------------------------------------------------------------

# <linux/bpf_common.h>, <linux/filter.h>; offsets into struct seccomp_data.
_LD, _JEQ, _JGT, _JSET, _JA, _RET = 0x20, 0x15, 0x25, 0x45, 0x05, 0x06
_NR, _ARCH = 0, 4
_RET_ENOSYS = 0x00050000 | _ENOSYS
_X32_BIT = 1 << 30  # marks calls of the x32 ABI, which has x86_64's audit number
_AUDIT_X86_64 = 0xC000003E
_S390 = ("SCMP_ARCH_S390", "SCMP_ARCH_S390X")


def _enosys_stub(seccomp: Seccomp) -> bytes:
    """Instructions that answer ENOSYS to numbers above the highest that the profile names, and else fall through.

    Empty when the default action lets calls through, or is ENOSYS already.
    """
    if seccomp.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        return b""
    if seccomp.default_action == "SCMP_ACT_ERRNO" and seccomp.default_errno_ret == _ENOSYS:
        return b""
    sections = [_arch_section(audit, highest) for audit, highest in _highest_numbers(seccomp).items()]
    stub = [(_LD, 0, 0, _ARCH)]
    following = sum(len(section) for section in sections)
    for section in sections:
        following -= len(section)
        # the last instruction of a section jumps to the end of the stub: over what follows
        stub += [*section[:-1], (_JA, 0, 0, following)]
    return b"".join([struct.pack("=HBBI", *instruction) for instruction in stub]) if sections else b""


def _highest_numbers(seccomp: Seccomp) -> dict[int, dict[str, int]]:
    """By audit architecture, then by libseccomp architecture, the highest number that any rule names."""
    from pyrun.runtime.kernel import libseccomp as lib

    names = {name for rule in seccomp.syscalls for name in rule.names}
    native = lib.arch_native()
    tokens = {_token(name): name for name in seccomp.architectures}
    tokens.setdefault(native, "native")
    found: dict[int, dict[str, int]] = {}
    for token, arch in tokens.items():
        numbers = [lib.syscall_resolve_name_arch(token, name) for name in names]
        known = [number for number in numbers if number is not None and number > 0]
        if known:
            audit = _AUDIT_X86_64 if arch == "SCMP_ARCH_X32" else token
            found.setdefault(audit, {})[arch] = max(known)
    return found


def _arch_section(audit: int, highest: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """One architecture's part of the stub. Ends in a jump that the caller sets; skipped whole if it isn't this one."""
    if audit == _AUDIT_X86_64:
        x32 = highest.get("SCMP_ARCH_X32")
        wide = [number for arch, number in highest.items() if arch != "SCMP_ARCH_X32"]
        body = [
            (_LD, 0, 0, _NR),
            (_JSET, 0, 1, _X32_BIT),
            (_JGT, 1, 2, x32) if x32 is not None else (_JA, 0, 0, 2),  # x32 is not in the profile: its own answer
            (_JGT, 0, 1, wide[0]) if wide else (_JA, 0, 0, 1),
        ]
    else:
        ((arch, number),) = highest.items()
        body = [(_LD, 0, 0, _NR)]
        if arch in _S390:  # number 0 is how s390 passes a number it does not know
            body.append((_JEQ, 1, 0, 0))
        body.append((_JGT, 0, 1, number))
    body += [(_RET, 0, 0, _RET_ENOSYS), (_JA, 0, 0, 0)]
    return [(_JEQ, 0, len(body), audit), *body]


# --- the cache ----------------------------------------------------------------------------------------------------

_MAGIC = b"pyrun seccomp 1\n"
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_KEEP = 128  # programs in the cache


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
    """What names a program: the profile as far as it decides the program, libseccomp, kernel, architecture."""
    from pyrun.runtime.kernel import libseccomp as lib

    machine = os.uname()
    rules = [
        (rule.names, rule.action, rule.errno_ret, [(arg.index, arg.value, arg.op, arg.value_two) for arg in rule.args])
        for rule in seccomp.syscalls
    ]
    content = (
        _MAGIC,
        lib.version(),
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

    A cached file counts only if it is this user's, writable by nobody else, and whole; a cache that cannot be
    written costs time, never a start. Raises Unsupported as compile() does.
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
        data = os.read(fd, len(_MAGIC) + 32 + 8 * _MAX_INSTRUCTIONS + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    head, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
    whole = head == _MAGIC and body and len(body) % 8 == 0 and len(body) <= 8 * _MAX_INSTRUCTIONS
    return body if whole and _sha256(body) == digest else None


def _write_cached(cache_dir: str, path: str, body: bytes) -> None:
    from pyrun.runtime.files import private_dir, write_atomic

    try:
        private_dir(cache_dir)
        write_atomic(path, _MAGIC + _sha256(body) + body, sync=False)
        entries = [entry.path for entry in os.scandir(cache_dir) if entry.name.endswith(".bpf")]
        for old in sorted(entries, key=lambda name: os.stat(name).st_mtime_ns)[:-_KEEP]:
            os.unlink(old)
    except OSError:
        pass  # a full or read-only disk, or another pyrun at the same work: the program is in hand
