# SPDX-License-Identifier: Apache-2.0
"""The device program, run by a small BPF interpreter and compared with the list of rules read literally."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.cgroups.device_flags import (
    DEFAULT,
    EVERYTHING,
    DeviceFlag,
    nodes,
    parse_device,
    parse_rule,
)
from pyrun.cgroups.devices import ACCESS, STANDARD, TYPE, compile_rules, effective, listing, summary
from pyrun.cgroups.resources import DeviceRule
from pyrun.runtime.errors import PyrunError, UsageError


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """What the program answers; an instruction that it may not contain is an error."""
    bits = sum(ACCESS[letter] for letter in access)
    context = {0: bits << 16 | TYPE[kind], 4: major, 8: minor}
    registers = [0] * 6
    position = 0
    while True:
        code, both, jump, number = struct.unpack_from("=BBhi", program, position * 8)
        target, source = both & 15, both >> 4
        position += 1
        match code:
            case 0x61:
                assert source == 1
                registers[target] = context[jump]
            case 0x54:
                registers[target] &= number
            case 0x74:
                registers[target] >>= number
            case 0xB4:
                registers[target] = number
            case 0x05:
                position += jump
            case 0x15:
                position += jump if registers[target] == number else 0
            case 0x55:
                position += jump if registers[target] != number else 0
            case 0x45:
                position += jump if registers[target] & number else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"instruction {code:#x}")
        assert jump >= 0, "a jump back would be refused by old verifiers"


def answer(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """The list read literally: for each letter the last rule that names the device and the letter decides."""
    for letter in access:
        allowed = False
        for rule in (*rules, *STANDARD):
            same = rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
            if same and letter in rule.access:
                allowed = rule.allow
        if not allowed:
            return False
    return True


NUMBERS = st.sampled_from([None, 0, 1, 3, 5, 10, 136])
ACCESSES = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
RULES = st.lists(
    st.builds(DeviceRule, st.booleans(), st.sampled_from("abc"), NUMBERS, NUMBERS, ACCESSES), max_size=7
).map(tuple)


@settings(max_examples=500, deadline=None)
@given(
    RULES, st.sampled_from("bc"), st.sampled_from([0, 1, 3, 5, 10, 11, 136]), st.sampled_from([0, 3, 5, 10]), ACCESSES
)
def test_the_program_means_what_the_list_says(
    rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str
) -> None:
    """For any list and any request the program and the literal reading agree."""
    program = compile_rules(rules)
    allowed = run(program, kind, major, minor, access) if program else True
    assert allowed == answer(rules, kind, major, minor, access)


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        ("c", 1, 3, "rw", True),  # null
        ("c", 1, 1, "r", False),  # mem
        ("c", 10, 229, "rw", False),  # fuse
        ("c", 10, 229, "m", True),  # mknod of anything
        ("c", 136, 7, "rw", True),  # pts/7
        ("c", 5, 2, "rw", True),  # ptmx
        ("b", 8, 0, "r", False),  # sda
        ("b", 8, 0, "m", True),
    ],
)
def test_dockers_default(kind: str, major: int, minor: int, access: str, allowed: bool) -> None:
    """The usual devices work, disks and memory do not."""
    assert run(compile_rules(DEFAULT), kind, major, minor, access) is allowed


def test_access_is_judged_letter_by_letter() -> None:
    """Read by one line and write by another make a device that opens O_RDWR; a later deny of one letter undoes that."""
    split = (DeviceRule(True, "c", 10, 200, "r"), DeviceRule(True, "c", 10, 200, "w"))
    assert run(compile_rules(split), "c", 10, 200, "rw")
    narrowed = (*split, DeviceRule(False, "c", 10, 200, "w"))
    assert not run(compile_rules(narrowed), "c", 10, 200, "rw")
    assert run(compile_rules(narrowed), "c", 10, 200, "r")


def test_a_hole_in_a_wildcard() -> None:
    """Everything, but not one: the order of the list decides."""
    rules = (DeviceRule(True), DeviceRule(False, "b", 8, None, "w"))
    assert not run(compile_rules(rules), "b", 8, 1, "rw")
    assert run(compile_rules(rules), "b", 8, 1, "r")
    assert run(compile_rules(rules), "b", 9, 1, "rw")


def test_privileged_needs_no_program() -> None:
    """What allows everything is no program at all, and what came before it does not matter."""
    assert compile_rules(EVERYTHING) == b""
    assert compile_rules((DeviceRule(False), *EVERYTHING)) == b""
    assert summary(EVERYTHING) == ""


def test_no_rules_still_deny() -> None:
    """An empty list is not a free pass."""
    program = compile_rules(())
    assert run(program, "c", 1, 3, "rw")
    assert not run(program, "c", 10, 200, "r")


def test_lines_that_cannot_matter_are_dropped() -> None:
    """A rule that a later one covers makes no instruction."""
    twice = (DeviceRule(False), DeviceRule(True, "c", 1, 3, "rw"), DeviceRule(True, "c", 7, 7, "r"))
    kept, otherwise = effective(twice)
    assert otherwise is False
    assert len(kept) == len(STANDARD) + 1
    assert compile_rules((*twice, *twice)) == compile_rules(twice)


def test_the_listing_has_a_line_for_every_instruction() -> None:
    """What --explain prints is the program."""
    assert len(listing(DEFAULT)) == len(compile_rules(DEFAULT)) // 8


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("/dev/fuse", DeviceFlag("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/fuse:r", DeviceFlag("/dev/fuse", "/dev/fuse", "r")),
        ("/dev/sda:/dev/xvdc", DeviceFlag("/dev/sda", "/dev/xvdc", "rwm")),
        ("/dev/sda:/dev/xvdc:rm", DeviceFlag("/dev/sda", "/dev/xvdc", "rm")),
    ],
)
def test_device_flags(text: str, flag: DeviceFlag) -> None:
    """Docker's forms of --device."""
    assert parse_device(text) == flag


@pytest.mark.parametrize(
    "text", ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:rr", "/a:/b:r:w", "/dev/a:"]
)
def test_device_flags_that_are_none(text: str) -> None:
    """Each is refused with the flag's name."""
    with pytest.raises(UsageError, match="--device"):
        parse_device(text)


def test_cgroup_rules() -> None:
    """Docker's forms of --device-cgroup-rule."""
    assert parse_rule("c 42:* rmw") == DeviceRule(True, "c", 42, None, "rmw")
    assert parse_rule("a *:* rwm") == DeviceRule(True, "a", None, None, "rwm")


@pytest.mark.parametrize(
    "text", ["", "c", "c 1 r", "c 1:2", "x 1:2 r", "c 1:2 rx", "c +1:2 r", "c 1:٣ r", "c  1:2 r", "c 1:2 r w"]
)
def test_cgroup_rules_that_are_none(text: str) -> None:
    """Each is refused with the form that is meant."""
    with pytest.raises(UsageError, match="--device-cgroup-rule"):
        parse_rule(text)


def test_a_device_of_the_host() -> None:
    """--device /dev/null:/dev/mine:r names 1:3, readable."""
    [node] = nodes(parse_device("/dev/null:/dev/mine:r"))
    assert (node.inside, node.type, node.major, node.minor) == ("/dev/mine", "c", 1, 3)
    assert node.rule == DeviceRule(True, "c", 1, 3, "r")


@pytest.mark.parametrize(
    ("path", "why"), [("/dev/there-is-none", "no such file"), ("/etc/passwd", "not a device node")]
)
def test_what_is_no_device(path: str, why: str) -> None:
    """A missing path and a plain file are told apart."""
    with pytest.raises(PyrunError, match=why):
        nodes(parse_device(path))
