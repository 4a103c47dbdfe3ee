# SPDX-License-Identifier: Apache-2.0
"""Docker's seccomp profiles: an OCI profile whose rules may depend on capabilities, architecture and kernel.

    resolve(load(""), capabilities) -> the dict for linux.seccomp of this container, on this machine

Format: https://docs.docker.com/engine/security/seccomp/ and the published profile (moby/profiles): `archMap` adds the
architectures that go with the native one; a rule is left out when any condition of `excludes` holds, or when one of
`includes` does not. The default profile is seccomp_default.json beside this file.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import json, seccomp
from pyrun.runtime.oci.reader import array, choice, record, text, texts, uint32, wrong
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

UNCONFINED = "unconfined"
BUILTIN = ("", "builtin", "default")

# uname(2) machine -> (docker's name in `arches`, the profile's name of the architecture)
MACHINES: dict[str, tuple[str, str]] = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loongarch64", "SCMP_ARCH_LOONGARCH64"),
}


class Filter(Record):
    """The conditions of a rule; an empty one holds always. `min_kernel` is (major, minor)."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: tuple[int, int] | None = None


class Rule(Record):
    """A rule with conditions; `name` is the old form of a single name. `args` are as in OCI."""

    action: str
    names: tuple[str, ...] = ()
    name: str = ""
    errno_ret: int | None = None
    args: tuple[seccomp.Condition, ...] = ()
    includes: Filter = Filter()
    excludes: Filter = Filter()


class Architecture(Record):
    """A native architecture and those whose calls it can make too."""

    architecture: str
    sub_architectures: tuple[str, ...] = ()


class Profile(Record):
    """A whole profile in docker's format."""

    default_action: str = ""
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    arch_map: tuple[Architecture, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Rule, ...] = ()


def _version(value: Any, where: str) -> tuple[int, int] | None:
    if text(value, where) == "":
        return None
    parts = value.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        raise wrong(where, f"{value!r} is not a kernel version such as 4.8")
    return int(parts[0]), int(parts[1])


def _rule(value: Any, where: str) -> Rule:
    found = _RULE(value, where)
    if found.name and found.names:
        raise wrong(where, "both 'name' and 'names' are given")
    return found.replace(names=(found.name,), name="") if found.name else found


_FILTER = record(Filter, ("caps", texts), ("arches", texts), ("minKernel", _version))
_ARCHITECTURE = choice(seccomp.ARCHITECTURES, "architecture")
_RULE = record(
    Rule,
    ("action", seccomp.ACTION),
    ("names", texts),
    ("name", text),
    ("errnoRet", uint32),
    ("args", array(seccomp.CONDITION)),
    ("includes", _FILTER),
    ("excludes", _FILTER),
)
_PROFILE = record(
    Profile,
    ("defaultAction", choice(("", *seccomp.ACTIONS), "action")),
    ("defaultErrnoRet", uint32),
    ("architectures", array(_ARCHITECTURE)),
    (
        "archMap",
        array(record(Architecture, ("architecture", _ARCHITECTURE), ("subArchitectures", array(_ARCHITECTURE)))),
    ),
    ("flags", array(choice(seccomp.FLAGS, "flag"))),
    ("listenerPath", text),
    ("listenerMetadata", text),
    ("syscalls", array(_rule)),
)

_builtin: Profile | None = None


def load(setting: str, where: str = "seccomp profile") -> Profile | None:
    """The profile that a setting stands for: "" or "builtin" the default one, "unconfined" None, else its JSON text.

    Raises SpecError, which starts with `where` and the JSON path.
    """
    global _builtin
    if setting == UNCONFINED:
        return None
    if setting not in BUILTIN:
        return parse(json.loads(setting.encode("utf-8", "surrogateescape"), where), where)
    if _builtin is None:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp_default.json")
        with open(path, "rb") as file:
            _builtin = parse(json.loads(file.read(), path), path)
    return _builtin


def load_file(path: str) -> Profile:
    """The profile in the file at `path` (--security-opt seccomp=FILE). Raises SpecError, also when it can't be read."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise SpecError(f"seccomp profile {path}", (error.strerror or str(error)).lower()) from None
    return parse(json.loads(data, path), path)


def parse(value: object, where: str) -> Profile:
    """The Profile in a decoded document. Raises SpecError."""
    found: Profile = _PROFILE(value, f"{where}: ")
    if found.architectures and found.arch_map:
        raise SpecError(where, "both 'architectures' and 'archMap' are given")
    return found


def resolve(
    profile: Profile | None,
    capabilities: Iterable[str],
    machine: str = "",
    kernel: tuple[int, int] | None = None,
) -> dict[str, Any] | None:
    """The OCI profile (linux.seccomp) for a container with these capabilities, or None for no filter.

    `capabilities` is the bounding set, by OCI names. `machine` is uname(2)'s, `kernel` (major, minor); both default
    to this machine's. A profile without default action and rules means no filter, as for docker.
    """
    if profile is None or not (profile.default_action or profile.syscalls):
        return None
    if not profile.default_action:
        raise SpecError("seccomp profile", "'defaultAction' is missing")
    caps = frozenset(capabilities)
    arch, native = MACHINES.get(machine or os.uname().machine, ("", ""))
    version = kernel or running_kernel()
    made: dict[str, Any] = {"defaultAction": profile.default_action}
    if profile.default_errno_ret is not None:
        made["defaultErrnoRet"] = profile.default_errno_ret
    architectures = list(profile.architectures)
    for entry in profile.arch_map:
        if entry.architecture == native:
            architectures = [entry.architecture, *entry.sub_architectures]
            break
    for key, value in (
        ("architectures", architectures),
        ("flags", list(profile.flags)),
        ("listenerPath", profile.listener_path),
        ("listenerMetadata", profile.listener_metadata),
    ):
        if value:
            made[key] = value
    made["syscalls"] = [_oci(rule) for rule in profile.syscalls if _applies(rule, caps, arch, version)]
    return made


def _applies(rule: Rule, caps: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    unless, when = rule.excludes, rule.includes
    return not (
        arch in unless.arches
        or any(cap in caps for cap in unless.caps)
        or (unless.min_kernel is not None and kernel >= unless.min_kernel)
        or (when.arches and arch not in when.arches)
        or any(cap not in caps for cap in when.caps)
        or (when.min_kernel is not None and kernel < when.min_kernel)
    )


def _oci(rule: Rule) -> dict[str, Any]:
    made: dict[str, Any] = {"names": list(rule.names), "action": rule.action}
    if rule.errno_ret is not None:
        made["errnoRet"] = rule.errno_ret
    if rule.args:
        made["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op} for arg in rule.args
        ]
    return made


def running_kernel() -> tuple[int, int]:
    """(major, minor) of the running kernel; what a distribution writes after them is ignored."""
    numbers = []
    for part in os.uname().release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return numbers[0], numbers[1] if len(numbers) > 1 else 0
