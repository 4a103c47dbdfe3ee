# SPDX-License-Identifier: Apache-2.0
"""runtime/engine/seccomp_profile.py: docker's format and docker's default profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pyrun.runtime.engine import seccomp_profile as p
from pyrun.runtime.engine.defaults import CAPABILITIES
from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import seccomp
from pyrun.runtime.oci.capabilities import NAMES

if TYPE_CHECKING:
    from pathlib import Path


def names(found: dict[str, Any] | None, action: str = "SCMP_ACT_ALLOW") -> set[str]:
    """The system calls that have a rule with this action, with or without conditions."""
    assert found is not None
    return {name for rule in found["syscalls"] if rule["action"] == action for name in rule["names"]}


def default(
    capabilities: tuple[str, ...] = CAPABILITIES, machine: str = "x86_64", kernel: tuple[int, int] = (6, 18)
) -> Any:
    return p.resolve(p.load(""), capabilities, machine, kernel)


def test_default_profile_is_an_oci_profile() -> None:
    """What comes out is accepted as linux.seccomp, for no, the default and all capabilities, on every machine."""
    for capabilities in ((), CAPABILITIES, NAMES):
        for machine in p.MACHINES:
            found = default(capabilities, machine)
            assert seccomp.parse(found, "s").default_errno_ret == 1


def test_default_profile_by_capability() -> None:
    """System calls that belong to a capability are allowed with it, and only with it."""
    table = {
        "CAP_SYS_ADMIN": {
            "mount",
            "setns",
            "unshare",
            "bpf",
            "clone3",
            "fsopen",
            "move_mount",
            "sethostname",
            "quotactl",
        },
        "CAP_SYS_BOOT": {"reboot"},
        "CAP_SYS_CHROOT": {"chroot"},
        "CAP_SYS_MODULE": {"init_module", "finit_module", "delete_module"},
        "CAP_SYS_PTRACE": {"kcmp", "pidfd_getfd", "process_madvise"},
        "CAP_SYS_RAWIO": {"iopl", "ioperm"},
        "CAP_SYS_TIME": {"settimeofday", "stime", "clock_settime"},
        "CAP_SYS_TTY_CONFIG": {"vhangup"},
        "CAP_SYS_NICE": {"get_mempolicy", "mbind", "set_mempolicy"},
        "CAP_SYS_PACCT": {"acct"},
        "CAP_SYSLOG": {"syslog"},
        "CAP_BPF": {"bpf"},
        "CAP_PERFMON": {"perf_event_open"},
        "CAP_DAC_READ_SEARCH": {"open_by_handle_at"},
    }
    without = names(default(()))
    for capability, calls in table.items():
        assert not calls & without, capability
        assert calls <= names(default((capability,))), capability
    # none of these is allowed to anybody, whatever the capabilities
    never = {
        "keyctl",
        "add_key",
        "request_key",
        "kexec_load",
        "swapon",
        "userfaultfd",
        "io_uring_setup",
        "nfsservctl",
        "vm86",
    }
    assert not never & names(default(NAMES))


def test_default_profile_by_kernel_and_architecture() -> None:
    """ptrace since 4.8; calls of one architecture only there; the sub-architectures of the native one."""
    assert "ptrace" in names(default(kernel=(4, 8)))
    assert "ptrace" not in names(default(kernel=(4, 7)))
    assert "ptrace" not in names(default(kernel=(3, 19)))
    assert "arch_prctl" in names(default())
    assert "arch_prctl" not in names(default(machine="aarch64"))
    assert "arm_fadvise64_64" in names(default(machine="aarch64"))
    assert default()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert default(machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert default(machine="riscv64")["architectures"] == ["SCMP_ARCH_RISCV64"]
    assert "architectures" not in default(machine="ppc64le")


def test_clone3_says_enosys() -> None:
    """Without CAP_SYS_ADMIN clone3 gets ENOSYS, so that the C library falls back to clone; its flags can't be seen."""
    rules = [rule for rule in default()["syscalls"] if "clone3" in rule["names"]]
    assert [(rule["action"], rule["errnoRet"]) for rule in rules] == [("SCMP_ACT_ERRNO", 38)]
    (clone,) = [rule for rule in default()["syscalls"] if rule["names"] == ["clone"]]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    (s390,) = [rule for rule in default(machine="s390x")["syscalls"] if rule["names"] == ["clone"]]
    assert s390["args"][0]["index"] == 1


def test_no_call_is_listed_twice() -> None:
    """Within the unconditional rules each system call stands in one subject only."""
    profile = p.load("")
    assert profile is not None
    plain = [rule for rule in profile.syscalls if not rule.args and rule.includes == rule.excludes == p.Filter()]
    listed = [name for rule in plain for name in rule.names]
    assert len(listed) == len(set(listed)) == 361


@pytest.mark.parametrize("setting", ["", "builtin", "default"])
def test_settings_for_the_default(setting: str) -> None:
    """No setting and "builtin" mean the default profile, which is read once."""
    assert p.load(setting) is p.load("")


def test_unconfined() -> None:
    """`unconfined`, and a profile that says nothing, mean no filter."""
    assert p.load("unconfined") is None
    assert p.resolve(None, CAPABILITIES) is None
    assert p.resolve(p.load('{"syscalls": []}'), CAPABILITIES) is None


def user(**fields: Any) -> p.Profile:
    found = p.load(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **fields}))
    assert found is not None
    return found


def test_old_format() -> None:
    """Profiles from before 2016, with one `name` per rule and `architectures`, still work."""
    made = p.resolve(
        user(architectures=["SCMP_ARCH_X86"], syscalls=[{"name": "accept", "action": "SCMP_ACT_ALLOW", "args": []}]), ()
    )
    assert made == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["accept"], "action": "SCMP_ACT_ALLOW"}],
    }


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({"includes": {"caps": ["CAP_KILL"]}}, True),
        ({"includes": {"caps": ["CAP_KILL", "CAP_CHOWN"]}}, False),
        ({"excludes": {"caps": ["CAP_KILL", "CAP_CHOWN"]}}, False),
        ({"excludes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "5.10"}}, True),
        ({"includes": {"minKernel": "5.11"}}, False),
        ({"includes": {"minKernel": "6.0"}}, False),
        ({"excludes": {"minKernel": "5.9"}}, False),
        ({"includes": {"minKernel": ""}}, True),
        ({"includes": {"caps": ["CAP_KILL"]}, "excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {}, "excludes": None}, True),
    ],
)
def test_conditions(conditions: dict[str, Any], applies: bool) -> None:
    """All of `includes` must hold, none of `excludes` may; with CAP_KILL on amd64 and kernel 5.10."""
    profile = user(syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", **conditions}])
    made = p.resolve(profile, ("CAP_KILL",), "x86_64", (5, 10))
    assert made is not None
    assert bool(made["syscalls"]) == applies


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "seccomp profile: not JSON"),
        ("[]", "seccomp profile: expected an object, got an array"),
        ('{"defaultAction": "X"}', "seccomp profile: defaultAction: unknown action 'X'"),
        (
            '{"syscalls": [{"names": ["a"], "name": "b", "action": "SCMP_ACT_ALLOW"}]}',
            "seccomp profile: syscalls[0]: both",
        ),
        ('{"syscalls": [{"names": ["a"]}]}', "seccomp profile: syscalls[0]: 'action' is missing"),
        (
            '{"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5"}}]}',
            "seccomp profile: syscalls[0].includes.minKernel: '5' is not a kernel version",
        ),
        (
            '{"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_ARM"}]}',
            "seccomp profile: both",
        ),
    ],
)
def test_bad_profiles(text: str, message: str) -> None:
    """A wrong profile is refused with its path."""
    with pytest.raises(SpecError) as caught:
        p.load(text)
    assert str(caught.value).startswith(message)


def test_rules_without_default_action() -> None:
    """Rules need a default action."""
    with pytest.raises(SpecError, match="'defaultAction' is missing"):
        p.resolve(p.load('{"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW"}]}'), ())


def test_profile_files(tmp_path: Path) -> None:
    """--security-opt seccomp=FILE reads the file; its name is in the message when that fails."""
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert p.resolve(p.load_file(str(path)), ()) == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    with pytest.raises(SpecError, match=r"^seccomp profile .*/none\.json: no such file or directory$"):
        p.load_file(str(tmp_path / "none.json"))


def test_running_kernel() -> None:
    """The kernel's version is two numbers, whatever the distribution appends."""
    major, minor = p.running_kernel()
    assert (major, minor) >= (5, 0)
