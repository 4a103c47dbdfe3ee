# SPDX-License-Identifier: Apache-2.0
"""A seccomp profile as a BPF program: libseccomp's, behind a short one of pyrun's.

libseccomp answers what the profile names; whatever else a program calls gets the default action, usually EPERM. But a
program that meets EPERM gives up, and one that meets ENOSYS tries an older call. So the short program answers ENOSYS
to system calls newer than any that the profile names (runc does the same since 1.0-rc93; without it every new glibc
breaks every old profile). seccomp.program() calls this, and keeps the result.
"""

from __future__ import annotations

import struct

from pyrun.runtime.errors import Unsupported
from pyrun.runtime.kernel import libseccomp as lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .seccomp import Rule, Seccomp

_EPERM, _ENOSYS = 1, 38


def bpf(seccomp: Seccomp) -> bytes:
    """The BPF program of a profile: struct sock_filter[], native byte order.

    System calls that libseccomp doesn't know are left out, as runc leaves them out: a profile names those of every
    kernel. Raises Unsupported, naming the system call or architecture, for what this libseccomp or kernel cannot do.
    """
    default = lib.action(seccomp.default_action, _value(seccomp.default_errno_ret))
    try:
        with lib.Filter(default) as builder:
            for name in seccomp.architectures:
                _add_architecture(builder, name)
            if sum(len(rule.names) for rule in seccomp.syscalls) > 32:
                builder.optimize(2)  # a binary tree; libseccomp up to 2.5.4 mishandles it with no rule at all
            for rule in seccomp.syscalls:
                _add_rule(builder, rule, default)
            body = builder.export_bpf()
    except OSError as error:
        raise Unsupported("compile the seccomp profile", str(error.strerror or error)) from error
    return _enosys_stub(seccomp) + body


def unknown_syscalls(seccomp: Seccomp) -> tuple[str, ...]:
    """The names in a profile that this libseccomp does not know: calls newer than it, or mistyped."""
    return tuple(
        dict.fromkeys(
            [name for rule in seccomp.syscalls for name in rule.names if lib.syscall_resolve_name(name) is None]
        )
    )


def _value(errno_ret: int | None) -> int:
    return _EPERM if errno_ret is None else errno_ret


def _token(name: str) -> int:
    token = lib.arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower())
    if not token:
        raise Unsupported(f"seccomp architecture {name}", f"libseccomp {lib.version()} does not know it")
    return token


def _add_architecture(builder: lib.Filter, name: str) -> None:
    try:
        builder.arch_add(_token(name))
    except OSError as error:  # EDOM: of the other byte order
        raise Unsupported(f"seccomp architecture {name}", str(error.strerror or error)) from error


def _add_rule(builder: lib.Filter, rule: Rule, default: int) -> None:
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
