# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/seccomp.py: profiles of the runtime-spec, and the flags that go with them."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import seccomp

NOTIFY = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}


def profile(**fields: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", **fields}


def test_every_field() -> None:
    """A full profile arrives with all its values; null is the same as absent."""
    condition = {"index": 5, "value": 2**64 - 1, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}
    found = seccomp.parse(
        profile(
            defaultErrnoRet=None,
            architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_LOONGARCH64"],
            flags=["SECCOMP_FILTER_FLAG_LOG"],
            listenerPath="/run/agent",
            listenerMetadata="meta",
            syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": [condition]}],
        ),
        "s",
    )
    rule = seccomp.Rule(("mkdir",), "SCMP_ACT_ERRNO", 13, (seccomp.Condition(5, 2**64 - 1, "SCMP_CMP_MASKED_EQ", 7),))
    assert found == seccomp.Seccomp(
        "SCMP_ACT_ALLOW",
        None,
        ("SCMP_ARCH_X86_64", "SCMP_ARCH_LOONGARCH64"),
        ("SECCOMP_FILTER_FLAG_LOG",),
        "/run/agent",
        "meta",
        (rule,),
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "s: expected an object, got an array"),
        ({}, "s: 'defaultAction' is missing"),
        (profile(defaultAction="ALLOW"), "s.defaultAction: unknown action 'ALLOW'"),
        (profile(defaultErrnoRet=1), "s.defaultErrnoRet: SCMP_ACT_ALLOW takes no errno"),
        (
            {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096},
            "s.defaultErrnoRet: 4096 is not between 0 and 4095",
        ),
        (
            {"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 70000},
            "s.defaultErrnoRet: 70000 is not between 0 and 65535",
        ),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "s.defaultAction: SCMP_ACT_NOTIFY would stop"),
        (profile(architectures=["x86_64"]), "s.architectures[0]: unknown architecture 'x86_64'"),
        (profile(flags=["LOG"]), "s.flags[0]: unknown flag 'LOG'"),
        (profile(listenerMetadata="x"), "s.listenerMetadata: is set without listenerPath"),
        (profile(syscalls=[{"names": [], "action": "SCMP_ACT_KILL"}]), "s.syscalls[0].names: needs at least one"),
        (profile(syscalls=[{"action": "SCMP_ACT_KILL"}]), "s.syscalls[0]: 'names' is missing"),
        (profile(syscalls=[{"names": ["a", ""], "action": "SCMP_ACT_KILL"}]), "s.syscalls[0].names[1]: is empty"),
        (profile(syscalls=[{"names": ["a"]}]), "s.syscalls[0]: 'action' is missing"),
        (
            profile(syscalls=[{"names": ["a"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]),
            "s.syscalls[0].errnoRet: SCMP_ACT_KILL",
        ),
        (profile(syscalls=[NOTIFY]), "s.listenerPath: is missing"),
        (
            profile(listenerPath="/x", syscalls=[{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}]),
            "s.syscalls[0].names[1]: SCMP_ACT_NOTIFY cannot be used for write",
        ),
        (
            profile(
                syscalls=[
                    {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}
                ]
            ),
            "s.syscalls[0].args[0].index: 6 is not between 0 and 5",
        ),
        (
            profile(
                syscalls=[
                    {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}
                ]
            ),
            "s.syscalls[0].args[0].value: -1 is not between",
        ),
        (
            profile(
                syscalls=[{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "EQ"}]}]
            ),
            "s.syscalls[0].args[0].op: unknown operator 'EQ'",
        ),
    ],
)
def test_mistakes(made: Any, message: str) -> None:
    """Each mistake is refused with its path."""
    with pytest.raises(SpecError) as caught:
        seccomp.parse(made, "s")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({}, 0),
        ({"flags": ["SECCOMP_FILTER_FLAG_TSYNC"]}, 0),
        ({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}, 6),
        ({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, 0),
        ({"listenerPath": "/x", "syscalls": [NOTIFY]}, 8),
        ({"listenerPath": "/x", "syscalls": [NOTIFY], "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, 40),
    ],
)
def test_flags_for_the_kernel(fields: dict[str, Any], flags: int) -> None:
    """Flags are those of seccomp(2); a listener is asked for when a rule notifies."""
    found = seccomp.parse(profile(**fields), "s")
    assert seccomp.filter_flags(found) == flags
    assert found.notifies == bool(flags & seccomp.FILTER_FLAG_NEW_LISTENER)
