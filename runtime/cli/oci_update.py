# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci update: other limits for a container, by --resources FILE|- or by flags. What is not named stays."""

from __future__ import annotations

from pyrun.runtime.cli.oci import VALUE
from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

#: flag -> where its number stands in linux.resources
NUMBERS = {
    "blkio-weight": ("blockIO", "weight"), "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"), "cpu-share": ("cpu", "shares"), "cpu-idle": ("cpu", "idle"),
    "cpu-rt-period": ("cpu", "realtimePeriod"), "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "memory": ("memory", "limit"), "memory-reservation": ("memory", "reservation"), "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}  # fmt: skip
LISTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
RDT = ("l3-cache-schema", "mem-bw-schema")

FLAGS: Flags = {"resources": VALUE, "r": "resources", **dict.fromkeys((*NUMBERS, *LISTS, *RDT), VALUE)}


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """update [flags] ID"""
    from pyrun.cgroups.resources import parse
    from pyrun.runtime.cli.oci import one_id
    from pyrun.runtime.oci import state as st
    from pyrun.runtime.oci.lifecycle import cgroup_of

    container_id = one_id(arguments)
    if values.get("resources"):
        wanted, where = read(values["resources"]), "resources"
    else:
        wanted, where = from_flags(values), "update"
    resources = parse(wanted, where)
    with root.lock(container_id):
        state = root.load(container_id)
        st.require("update", container_id, st.status(state, root.directory(container_id)))
        cgroup_of(state).apply(resources)
    return 0


def read(path: str) -> Any:
    """The JSON document of --resources; "-" is standard input. Raises SpecError, PyrunError."""
    from pyrun.runtime.oci import json

    try:
        with open(0 if path == "-" else path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise PyrunError(f"--resources {path}", (error.strerror or "").lower()) from None
    return json.loads(data, "resources")


def from_flags(values: Values) -> dict[str, dict[str, Any]]:
    """linux.resources with what the flags name and nothing else. Raises UsageError."""
    made: dict[str, dict[str, Any]] = {}
    for flag, (part, key) in NUMBERS.items():
        if flag in values:
            made.setdefault(part, {})[key] = number(flag, values[flag])
    for flag, (part, key) in LISTS.items():
        if values.get(flag):
            made.setdefault(part, {})[key] = values[flag]
    for flag in RDT:
        if values.get(flag):
            raise UsageError(f"--{flag}", "intelRdt is not supported by pyrun")
    if not made:
        raise UsageError("update", "no limit is given", hint="pyrun-oci update --help lists the flags")
    return made


def number(flag: str, text: str) -> int:
    """A whole number, -1 where that means no limit. Raises UsageError."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 20:
        raise UsageError(f"--{flag} {text}", "is not a whole number")
    return int(text)
