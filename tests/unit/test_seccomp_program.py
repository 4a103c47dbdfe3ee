# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/seccomp_bpf.py and the cache: programs are run by a small BPF machine here, not by the kernel."""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrun.runtime.engine import seccomp_profile
from pyrun.runtime.engine.defaults import CAPABILITIES
from pyrun.runtime.errors import Unsupported
from pyrun.runtime.kernel import libseccomp
from pyrun.runtime.oci import seccomp, seccomp_bpf
from pyrun.runtime.oci.capabilities import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ALLOW, KILL, KILL_PROCESS = 0x7FFF0000, 0x00000000, 0x80000000
EPERM, ENOSYS = 0x00050001, 0x00050026
MASK32 = 2**32 - 1
X32 = 1 << 30
# x86 has these both as numbers and behind socketcall (102) and ipc (117); libseccomp resolves them to neither
MULTIPLEXED = {102, 117, 337, 345, *range(359, 374), *range(393, 403), 420}

# name in a profile -> (audit number, what marks its numbers)
AUDIT = {
    "SCMP_ARCH_X86_64": (0xC000003E, 0),
    "SCMP_ARCH_X32": (0xC000003E, X32),
    "SCMP_ARCH_X86": (0x40000003, 0),
    "SCMP_ARCH_AARCH64": (0xC00000B7, 0),
    "SCMP_ARCH_ARM": (0x40000028, 0),
}
X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="requires machine: x86_64")


@functools.cache
def decoded(program: bytes) -> list[tuple[int, int, int, int]]:
    """(code, jt, jf, k) of each struct sock_filter."""
    return [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]


def run(program: bytes, arch: int, number: int, args: Sequence[int] = ()) -> int:
    """What the classic BPF program returns for one system call (linux/filter.h; only what seccomp uses)."""
    data = struct.pack("=IIQ6Q", number & MASK32, arch, 0, *[*args, 0, 0, 0, 0, 0, 0][:6])
    code = decoded(program)
    accumulator = at = 0
    while True:
        op, true, false, k = code[at]
        at += 1
        match op:
            case 0x20:  # ld word
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:  # and
                accumulator &= k
            case 0x05:  # ja
                at += k
            case 0x15:
                at += true if accumulator == k else false
            case 0x25:
                at += true if accumulator > k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x45:
                at += true if accumulator & k else false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {op:#x}")


def compiled(profile: dict[str, Any] | None) -> tuple[seccomp.Seccomp, bytes]:
    parsed = seccomp.parse(profile, "s")
    program, _ = seccomp.compile(parsed)
    return parsed, program


def number_of(arch: str, name: str) -> int | None:
    token = libseccomp.arch_resolve_name(arch.removeprefix("SCMP_ARCH_").lower())
    return libseccomp.syscall_resolve_name_arch(token, name)


COMPARE = {
    "SCMP_CMP_NE": lambda seen, one, two: seen != one,
    "SCMP_CMP_LT": lambda seen, one, two: seen < one,
    "SCMP_CMP_LE": lambda seen, one, two: seen <= one,
    "SCMP_CMP_EQ": lambda seen, one, two: seen == one,
    "SCMP_CMP_GE": lambda seen, one, two: seen >= one,
    "SCMP_CMP_GT": lambda seen, one, two: seen > one,
    "SCMP_CMP_MASKED_EQ": lambda seen, one, two: seen & one == two,
}


def expected(parsed: seccomp.Seccomp, arch: str, number: int, args: Sequence[int], highest: int) -> int:
    """What the profile says, worked out from its rules alone."""
    if number > highest:
        return ENOSYS
    for rule in parsed.syscalls:
        if number in [number_of(arch, name) for name in rule.names] and all(
            COMPARE[arg.op](args[arg.index], arg.value, arg.value_two) for arg in rule.args
        ):
            return ALLOW if rule.action == "SCMP_ACT_ALLOW" else 0x00050000 | (rule.errno_ret or 1)
    return EPERM


@X86
@pytest.mark.parametrize("capabilities", [CAPABILITIES, (), NAMES])
def test_default_profile_call_by_call(capabilities: tuple[str, ...]) -> None:
    """Every system call number of the three x86 ABIs gets the answer that the rules say."""
    parsed, program = compiled(seccomp_profile.resolve(seccomp_profile.load(""), capabilities))
    probes = ([0] * 6, [38, 0x20000, 0, 0, 0, 0], [40, 0, 0, 0, 0, 0], [0x10000000] + [0] * 5, [41] * 6)
    decided = 0
    for arch in parsed.architectures:
        audit, mark = AUDIT[arch]
        rules: dict[int, list[seccomp.Rule]] = {}
        for rule in parsed.syscalls:
            for name in rule.names:
                number = number_of(arch, name)
                if number is not None and number >= 0:
                    rules.setdefault(number, []).append(rule)
        highest = max(rules)
        for number in range(mark, highest + 40):
            mine = parsed.replace(syscalls=tuple(rules.get(number, ())))
            for args in probes:
                if arch == "SCMP_ARCH_X86" and number in MULTIPLEXED:
                    continue
                assert run(program, audit, number, args) == expected(mine, arch, number, args, highest), (
                    arch,
                    number,
                    args,
                )
                decided += 1
    assert decided > 5000


def test_every_named_call_compiles() -> None:
    """Each system call of the default profile that libseccomp knows is in the program; the others are newer than it."""
    parsed, program = compiled(seccomp_profile.resolve(seccomp_profile.load(""), NAMES))
    native = f"SCMP_ARCH_{os.uname().machine.upper()}"
    audit, _ = AUDIT[native]
    unknown = set(seccomp_bpf.unknown_syscalls(parsed))
    allowed = 0
    for rule in parsed.syscalls:
        for name in rule.names:
            number = number_of(native, name)
            if number is None:
                assert name in unknown
            elif number >= 0 and not rule.args:
                assert run(program, audit, number) == ALLOW, name
                allowed += 1
    assert allowed > 300
    assert len(unknown) < 40


@X86
def test_newer_calls_than_the_profile_get_enosys() -> None:
    """Unknown numbers below the highest named one are refused with the default action, those above with ENOSYS."""
    rules = [{"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}]  # openat2 is 437
    for default, answer in (
        ({"defaultAction": "SCMP_ACT_ERRNO"}, EPERM),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13}, 0x0005000D),
        ({"defaultAction": "SCMP_ACT_KILL"}, KILL),
        ({"defaultAction": "SCMP_ACT_KILL_PROCESS"}, KILL_PROCESS),
        ({"defaultAction": "SCMP_ACT_TRAP"}, 0x00030000),
    ):
        _, program = compiled({**default, "syscalls": rules, "architectures": ["SCMP_ARCH_X86_64"]})
        audit, _ = AUDIT["SCMP_ARCH_X86_64"]
        assert run(program, audit, 0) == ALLOW
        assert run(program, audit, 437) == ALLOW
        assert run(program, audit, 1) == answer
        assert run(program, audit, 438) == ENOSYS
        assert run(program, audit, 2**29) == ENOSYS
        # an ABI that the profile does not have keeps libseccomp's answer
        assert run(program, audit, X32 | 500) == KILL
        assert run(program, AUDIT["SCMP_ARCH_X86"][0], 500) == KILL


@pytest.mark.parametrize(
    "default",
    [
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {"defaultAction": "SCMP_ACT_LOG"},
        {"defaultAction": "SCMP_ACT_TRACE"},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38},
    ],
)
def test_no_stub_where_it_would_be_wrong(default: dict[str, Any]) -> None:
    """A default that lets calls through, or says ENOSYS itself, is left as it is."""
    audit, _ = AUDIT[f"SCMP_ARCH_{os.uname().machine.upper()}"]
    parsed, program = compiled({**default, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}]})
    assert run(program, audit, 4000) == libseccomp.action(parsed.default_action, parsed.default_errno_ret or 1)


ARGS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63])
CONDITIONS = st.fixed_dictionaries(
    {"index": st.integers(0, 5), "value": ARGS, "valueTwo": ARGS, "op": st.sampled_from(list(COMPARE))}
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(CONDITIONS, min_size=1, max_size=3, unique_by=lambda arg: arg["index"]),
    st.lists(ARGS, min_size=6, max_size=6),
)
def test_conditions_on_arguments(conditions: list[dict[str, Any]], args: list[int]) -> None:
    """A rule with conditions on different arguments applies when all of them hold, in 64 bits."""
    for condition in conditions:
        if condition["op"] == "SCMP_CMP_MASKED_EQ":
            condition["valueTwo"] &= condition["value"]
    arch = f"SCMP_ARCH_{os.uname().machine.upper()}"
    parsed, program = compiled(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["ioctl", "mremap"], "action": "SCMP_ACT_ALLOW", "args": conditions}],
        }
    )
    number = number_of(arch, "ioctl")
    assert number is not None
    holds = all(COMPARE[arg.op](args[arg.index], arg.value, arg.value_two) for arg in parsed.syscalls[0].args)
    assert run(program, AUDIT[arch][0], number, args) == (ALLOW if holds else EPERM)


def test_conditions_on_one_argument_are_alternatives() -> None:
    """Two conditions on the same argument have always meant two rules (runc, matchCall)."""
    arch = f"SCMP_ARCH_{os.uname().machine.upper()}"
    conditions = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (3, 7)]
    _, program = compiled(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["ioctl", "mremap"], "action": "SCMP_ACT_ALLOW", "args": conditions}],
        }
    )
    number = number_of(arch, "ioctl")
    assert number is not None
    assert [run(program, AUDIT[arch][0], number, [value]) for value in (3, 5, 7)] == [ALLOW, EPERM, ALLOW]


@pytest.mark.parametrize(
    ("action", "value", "answer"),
    [
        ("SCMP_ACT_KILL", None, KILL),
        ("SCMP_ACT_KILL_THREAD", None, KILL),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, 0x00030000),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", 95, 0x0005005F),
        ("SCMP_ACT_TRACE", 7, 0x7FF00007),
        ("SCMP_ACT_LOG", None, 0x7FFC0000),
        ("SCMP_ACT_NOTIFY", None, 0x7FC00000),
    ],
)
def test_actions(action: str, value: int | None, answer: int) -> None:
    """Every action becomes the kernel's return value of the same meaning."""
    arch = f"SCMP_ARCH_{os.uname().machine.upper()}"
    rule = {"names": ["mkdirat"], "action": action, "errnoRet": value}
    _, program = compiled({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": [rule]})
    number = number_of(arch, "mkdirat")
    assert number is not None
    assert run(program, AUDIT[arch][0], number) == answer


def test_unknown_names_are_left_out() -> None:
    """A name that libseccomp doesn't know is no error: profiles name the calls of every kernel."""
    parsed, _ = compiled(
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "raed"], "action": "SCMP_ACT_ALLOW"}]}
    )
    assert seccomp_bpf.unknown_syscalls(parsed) == ("raed",)


def test_an_architecture_of_the_other_byte_order_is_named() -> None:
    """What libseccomp cannot do is an error that names it."""
    parsed = seccomp.parse({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}, "s")
    with pytest.raises(Unsupported, match="SCMP_ARCH_S390X"):
        seccomp.compile(parsed)


# --- the cache ----------------------------------------------------------------------------------------------------


SMALL = seccomp.Seccomp("SCMP_ACT_ERRNO", syscalls=(seccomp.Rule(("read",), "SCMP_ACT_ALLOW"),))


def only_file(directory: Path) -> Path:
    (found,) = directory.iterdir()
    return found


def test_second_time_from_the_cache(tmp_path: Path) -> None:
    """The program is written once, in a private file, and read back as it was."""
    cache = tmp_path / "cache"
    first = seccomp.program(SMALL, str(cache))
    assert first == seccomp.compile(SMALL)
    path = only_file(cache)
    before = path.stat()
    assert before.st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    assert seccomp.program(SMALL, str(cache)) == first
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_cached_program_needs_no_libseccomp(tmp_path: Path) -> None:
    """With the program in the cache, a start loads neither libseccomp nor hashlib's OpenSSL."""
    seccomp.program(SMALL, str(tmp_path))
    code = (
        "import sys\n"
        "from pyrun.runtime.oci import seccomp\n"
        "small = seccomp.Seccomp('SCMP_ACT_ERRNO', syscalls=(seccomp.Rule(('read',), 'SCMP_ACT_ALLOW'),))\n"
        f"seccomp.program(small, {str(tmp_path)!r})\n"
        "print([name for name in sys.modules if 'seccomp' in name or 'hash' in name])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "['pyrun.runtime.oci.seccomp']", ran.stderr


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "append", "writable", "fifo", "link", "directory", "library"])
def test_a_harmed_file_is_made_anew(tmp_path: Path, harm: str) -> None:
    """A file that is damaged, not only ours to write, no plain file, or of another libseccomp is not believed."""
    cache = tmp_path / "cache"
    good = seccomp.program(SMALL, str(cache))
    path = only_file(cache)
    data = path.read_bytes()
    if harm == "flip":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif harm == "cut":
        path.write_bytes(data[:-8])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "append":
        path.write_bytes(data + data[-8:])
    elif harm == "writable":
        path.chmod(0o666)
    elif harm == "library":
        magic, library, rest = data.split(b"\n", 2)
        path.write_bytes(b"\n".join([magic, b"1" + library, rest]))
    else:
        path.unlink()
        if harm == "fifo":
            os.mkfifo(path)
        elif harm == "link":
            other = tmp_path / "other"
            other.write_bytes(data)
            path.symlink_to(other)
        else:
            path.mkdir()
    assert seccomp.program(SMALL, str(cache)) == good
    if harm != "directory":
        assert path.read_bytes() == data
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a cache a start takes longer, and works."""
    (tmp_path / "file").write_text("")
    assert seccomp.program(SMALL, str(tmp_path / "file" / "cache")) == seccomp.compile(SMALL)


def test_the_key_is_the_content() -> None:
    """Profiles that differ in anything that decides the program have different keys; the listener's path does not."""
    rule = SMALL.syscalls[0]
    others = [
        SMALL.replace(default_action="SCMP_ACT_KILL"),
        SMALL.replace(default_errno_ret=2),
        SMALL.replace(architectures=("SCMP_ARCH_X86",)),
        SMALL.replace(syscalls=()),
        SMALL.replace(syscalls=(rule.replace(names=("write",)),)),
        SMALL.replace(syscalls=(rule.replace(action="SCMP_ACT_LOG"),)),
        SMALL.replace(syscalls=(rule.replace(args=(seccomp.Condition(0, 1, "SCMP_CMP_EQ"),)),)),
        SMALL.replace(syscalls=(rule.replace(args=(seccomp.Condition(0, 1, "SCMP_CMP_EQ", 1),)),)),
    ]
    keys = {seccomp.cache_key(profile) for profile in (SMALL, *others)}
    assert len(keys) == len(others) + 1
    assert seccomp.cache_key(SMALL.replace(listener_path="/x")) == seccomp.cache_key(SMALL)


def test_the_cache_stays_small(tmp_path: Path) -> None:
    """Old programs go when there are more than the cache keeps."""
    for number in range(seccomp.KEEP + 5):
        (tmp_path / f"{number:03}.bpf").write_bytes(b"old")
        os.utime(tmp_path / f"{number:03}.bpf", (number, number))
    seccomp.program(SMALL, str(tmp_path))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == seccomp.KEEP
    assert "005.bpf" not in left
    assert f"{seccomp.cache_key(SMALL)}.bpf" in left
