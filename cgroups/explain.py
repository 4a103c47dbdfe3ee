# SPDX-License-Identifier: Apache-2.0
"""The cgroup part of `run --explain`: what create(), apply() and allow_devices() would do, as lines of shell."""

from __future__ import annotations

from .controllers import USUAL
from .limits import files, needed_controllers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .resources import Resources


def describe(path: str, resources: Resources, mount: str = "/sys/fs/cgroup") -> list[str]:
    """One line a step, in order; pure, so it shows what is asked, not what this machine has."""
    directory = mount + path
    controllers = " ".join(f"+{name}" for name in dict.fromkeys((*USUAL, *needed_controllers(resources))))
    lines = [f"mkdir -p {directory}"]
    parent = mount
    for part in path.split("/")[1:]:
        lines.append(f"echo {controllers} > {parent}/cgroup.subtree_control")
        parent = f"{parent}/{part}"
    for name, value in files(resources, {"memory.max": "max"}).items():
        lines.extend(f"echo {line} > {directory}/{name}" for line in value.split("\n"))
    lines.append(_devices(directory, resources))
    return lines


def _devices(directory: str, resources: Resources) -> str:
    from .devices import summary

    text = summary(resources.devices)
    return (
        f"bpf attach device program to {directory}: {text}" if text else f"no device program: {directory} may use all"
    )
