# SPDX-License-Identifier: Apache-2.0
"""Device access: the OCI list of rules compiled to a BPF program that the kernel asks on every open and mknod.

cgroup v2 has no devices.allow file; a program of type BPF_PROG_TYPE_CGROUP_DEVICE, attached to the cgroup, gets

    struct bpf_cgroup_dev_ctx { u32 access_type;  /* access << 16 | type */  u32 major;  u32 minor; }

and answers 1 (allowed) or 0 (EPERM). The rules are a list of allow and deny lines of which the last one that matches
wins, for each of read, write and mknod by itself. So the program walks the list from its end: an allow line takes
away from what is asked what it allows, a deny line that names anything still asked ends it with 0, and when nothing
is left to ask the answer is 1. What no line names is denied.
"""

from __future__ import annotations

import os
from itertools import groupby
from struct import pack

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import active, step

from .resources import DeviceRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # instruction, offset of a load, label of a jump, number, comment
    Line = tuple[tuple[int, int, int], int, str, int, str]

EPERM = 1
MKNOD, READ, WRITE = 1, 2, 4  # BPF_DEVCG_ACC_*, linux/bpf.h
ACCESS = {"m": MKNOD, "r": READ, "w": WRITE}
ALL = MKNOD | READ | WRITE
TYPE = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*

# What every container has whatever its rules say (runtime-spec, Default Devices), as runc and crun append it:
# mknod of any device makes a node that can only be opened by another rule, and image builds need it.
STANDARD = (
    DeviceRule(True, "b", None, None, "m"),
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "c", 1, 3, "rwm"),  # null
    DeviceRule(True, "c", 1, 5, "rwm"),  # zero
    DeviceRule(True, "c", 1, 7, "rwm"),  # full
    DeviceRule(True, "c", 1, 8, "rwm"),  # random
    DeviceRule(True, "c", 1, 9, "rwm"),  # urandom
    DeviceRule(True, "c", 5, 0, "rwm"),  # tty
    DeviceRule(True, "c", 5, 2, "rwm"),  # ptmx
    DeviceRule(True, "c", 136, None, "rwm"),  # pts/*
)

# code, destination register, source register of each instruction that is used (linux/bpf.h, filter.rst)
LOAD_ACCESS_TYPE = (0x61, 2, 1)  # r2 = *(u32 *)(r1 + off)
LOAD_ACCESS = (0x61, 3, 1)  # r3 = *(u32 *)(r1 + off)
LOAD_MAJOR = (0x61, 4, 1)  # r4 = *(u32 *)(r1 + off)
LOAD_MINOR = (0x61, 5, 1)  # r5 = *(u32 *)(r1 + off)
KEEP_TYPE = (0x54, 2, 0)  # w2 &= imm
SHIFT_ACCESS = (0x74, 3, 0)  # w3 >>= imm
UNLESS_TYPE = (0x55, 2, 0)  # if r2 != imm goto
UNLESS_MAJOR = (0x55, 4, 0)  # if r4 != imm goto
UNLESS_MINOR = (0x55, 5, 0)  # if r5 != imm goto
IF_MINOR = (0x15, 5, 0)  # if r5 == imm goto
DROP_ACCESS = (0x54, 3, 0)  # w3 &= imm
IF_NOTHING_LEFT = (0x15, 3, 0)  # if r3 == imm (0) goto
IF_ANY_OF = (0x45, 3, 0)  # if r3 & imm goto
GOTO = (0x05, 0, 0)  # goto
ANSWER = (0xB4, 0, 0)  # w0 = imm
EXIT = (0x95, 0, 0)  # return r0

ALLOWED, DENIED = "allowed", "denied"  # labels at the end of every program


def effective(rules: Iterable[DeviceRule]) -> tuple[list[DeviceRule], bool]:
    """The rules that can still matter, last first, and the answer for what none of them names.

    A line for all devices and every access settles everything before it; a line that a later one covers is dropped.
    """
    kept: list[DeviceRule] = []
    for rule in reversed((*rules, *STANDARD)):
        if rule.type == "a" and rule.major is None and rule.minor is None and _bits(rule) == ALL:
            if rule.allow and all(line.allow for line in kept):
                return [], True
            return kept, rule.allow
        if not any(_covers(later, rule) for later in kept):
            kept.append(rule)
    return kept, False


def _covers(later: DeviceRule, rule: DeviceRule) -> bool:
    return (
        later.type in ("a", rule.type)
        and later.major in (None, rule.major)
        and later.minor in (None, rule.minor)
        and not _bits(rule) & ~_bits(later)
    )


def _bits(rule: DeviceRule) -> int:
    bits = 0
    for letter in rule.access:
        bits |= ACCESS[letter]
    return bits


def compile_rules(rules: Iterable[DeviceRule]) -> bytes:
    """The program for a list of rules (and STANDARD after them), as instructions of 8 bytes; pure.

    b"" when everything is allowed: then no program is needed.
    """
    return b"".join(instruction for instruction, _ in _assemble(*effective(rules)))


def listing(rules: Iterable[DeviceRule]) -> list[str]:
    """The program as text, one instruction a line, with the rule that each comes from."""
    return [f"{number:3}  {text}" for number, (_, text) in enumerate(_assemble(*effective(rules)))]


def _assemble(rules: list[DeviceRule], otherwise: bool) -> list[tuple[bytes, str]]:
    """Each instruction with its text. `rules` are last first, as effective() gives them."""
    if otherwise and not rules:
        return []
    code: list[Line] = [
        (LOAD_ACCESS_TYPE, 0, "", 0, "r2 = access << 16 | type"),
        (LOAD_ACCESS, 0, "", 0, "r3 = the same"),
        (KEEP_TYPE, 0, "", 0xFFFF, "r2 = type: 1 block, 2 character"),
        (SHIFT_ACCESS, 0, "", 16, "r3 = access asked for: 1 mknod, 2 read, 4 write"),
        (LOAD_MAJOR, 4, "", 0, "r4 = major"),
        (LOAD_MINOR, 8, "", 0, "r5 = minor"),
    ]
    labels: dict[str, int] = {}
    # Neighbours of one type, and in these of one major, share the test: a third of the verifier's work is left.
    for kind, same_kind in groupby(rules, lambda rule: rule.type):
        past_kind = f"past type at {len(code)}"
        if kind != "a":
            code.append((UNLESS_TYPE, 0, past_kind, TYPE[kind], f"unless type is {kind} skip these:"))
        for major, same_major in groupby(same_kind, lambda rule: rule.major):
            past_major = f"past major at {len(code)}"
            if major is not None:
                code.append((UNLESS_MAJOR, 0, past_major, major, f"  unless major is {major} skip these:"))
            for rule in same_major:
                past_rule = f"past rule at {len(code)}"
                code.extend(_one(rule, past_rule))
                labels[past_rule] = len(code)
            labels[past_major] = len(code)
        labels[past_kind] = len(code)
    for label in (ALLOWED, DENIED) if otherwise else (DENIED, ALLOWED):  # what no rule settles runs into the first
        labels[label] = len(code)
        code.append((ANSWER, 0, "", int(label == ALLOWED), label))
        code.append((EXIT, 0, "", 0, ""))
    lines = []
    for position, ((opcode, target, source), offset, label, number, comment) in enumerate(code):
        jump = labels[label] - position - 1 if label else offset
        # struct bpf_insn: u8 code; u8 dst:4, src:4; s16 off; s32 imm
        instruction = pack("=BBhi", opcode, source << 4 | target, jump, number)
        where = f"-> {labels[label]}" if label else ""
        lines.append((instruction, f"{instruction.hex()}  {where:6} {comment}".rstrip()))
    return lines


def _one(rule: DeviceRule, past: str) -> list[Line]:
    """The instructions of one rule, once type and major are known to be its own."""
    bits = _bits(rule)
    if rule.allow and bits == ALL and rule.minor is not None:  # most are of this kind
        return [(IF_MINOR, 0, ALLOWED, rule.minor, f"    {rule}: if minor is {rule.minor}, allow")]
    lines: list[Line] = []
    if rule.minor is not None:
        lines.append((UNLESS_MINOR, 0, past, rule.minor, f"    {rule}: unless minor is {rule.minor} go on"))
    if not rule.allow:
        lines.append((IF_ANY_OF, 0, DENIED, bits, f"    {rule}: if any of {rule.access} is asked, deny"))
    elif bits == ALL:
        lines.append((GOTO, 0, ALLOWED, 0, f"    {rule}: allow"))
    else:
        lines.append((DROP_ACCESS, 0, "", ALL & ~bits, f"    {rule}: {rule.access} is settled"))
        lines.append((IF_NOTHING_LEFT, 0, ALLOWED, 0, f"    {rule}: if nothing else is asked, allow"))
    return lines


def allow(cgroup_fd: int, directory: str, rules: Iterable[DeviceRule]) -> None:
    """Puts `rules` (and STANDARD) in force for the cgroup, in place of its program so far, without a moment of neither.

    BPF_F_ALLOW_MULTI lets a container engine or systemd inside attach programs of its own; then all of them must
    allow. Raises PyrunError; in a user namespace, where bpf(2) and mknod(2) are both forbidden, does nothing.
    """
    # cffi: only who attaches a program pays for it
    from pyrun.runtime.kernel.syscalls import (
        BPF_F_ALLOW_MULTI,
        BPF_F_REPLACE,
        bpf_prog_attach,
        bpf_prog_detach,
        bpf_prog_get_fd_by_id,
        bpf_prog_load_cgroup_device,
        bpf_prog_query,
    )

    rules = tuple(rules)
    program = compile_rules(rules)
    opened: list[int] = []
    try:
        old = bpf_prog_query(cgroup_fd)
        opened.extend(bpf_prog_get_fd_by_id(number) for number in old)
        if not program:
            with step("cgroup", f"allow all devices in {directory}: detach {len(opened)} device programs"):
                for fd in opened:
                    bpf_prog_detach(cgroup_fd, fd)
            return
        listed = summary(rules) if active() else ""
        with step("cgroup", f"bpf load {len(program) // 8} instructions: {listed}"):
            opened.append(bpf_prog_load_cgroup_device(program))
        with step("cgroup", f"bpf attach device program to {directory}"):
            if len(old) == 1:
                bpf_prog_attach(cgroup_fd, opened[-1], BPF_F_ALLOW_MULTI | BPF_F_REPLACE, opened[0])  # since Linux 5.6
                return
            # With none it is simply attached; with several the new one joins them first, so that access only narrows.
            bpf_prog_attach(cgroup_fd, opened[-1], BPF_F_ALLOW_MULTI)
            for fd in opened[:-1]:
                bpf_prog_detach(cgroup_fd, fd)
    except OSError as error:
        if not program or (error.errno == EPERM and _in_user_namespace()):
            return  # nothing to enforce, or nobody who could make a device
        raise PyrunError(
            f"limit devices of {directory}",
            str(error),
            hint="needs CONFIG_CGROUP_BPF in the kernel and CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN, for pyrun",
        ) from None
    finally:
        for fd in opened:
            os.close(fd)


def summary(rules: Iterable[DeviceRule]) -> str:
    """The rules in force in a few words; "" when everything is allowed."""
    lines, otherwise = effective(rules)
    if otherwise and not lines:
        return ""
    return "; ".join(["allow all others" if otherwise else "deny all others", *(str(line) for line in reversed(lines))])


def _in_user_namespace() -> bool:
    """user_namespaces(7): only the initial one maps every id to itself."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]
