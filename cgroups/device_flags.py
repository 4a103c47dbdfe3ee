# SPDX-License-Identifier: Apache-2.0
"""Docker's ways to say which devices a container may use: --device, --device-cgroup-rule, --privileged, the default."""

from __future__ import annotations

import os
import stat

from pyrun.runtime.errors import PyrunError, UsageError
from pyrun.runtime.record import Record

from .resources import DeviceRule

EVERYTHING = (DeviceRule(True),)  # --privileged

# Docker's own list (moby, DefaultLinuxSpec); the OCI runtime adds devices.STANDARD.
DEFAULT = (
    DeviceRule(False),
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 1),  # console
    DeviceRule(False, "c", 10, 229),  # fuse
)


# Below a directory given to --device these are left out, as docker does: mounts and links of the host's own.
NOT_DEVICES = {"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"}


class DeviceFlag(Record):
    """--device HOST[:INSIDE][:ACCESS]."""

    host: str
    inside: str
    access: str = "rwm"


class DeviceNode(Record):
    """A device to make in the container, and the rule that allows it; `mode` has permission bits only."""

    inside: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    rule: DeviceRule


def parse_device(text: str) -> DeviceFlag:
    """The parts of a --device value. Raises UsageError."""
    parts = text.split(":")
    if len(parts) == 2 and is_access(parts[1]):
        host, inside, access = parts[0], parts[0], parts[1]
    elif len(parts) <= 3:
        host, inside, access = parts[0], parts[1] if len(parts) > 1 else parts[0], parts[2] if len(parts) > 2 else "rwm"
    else:
        raise UsageError(f"--device {text}", "too many colons", hint="the form is HOST[:CONTAINER][:rwm]")
    if not host.startswith("/") or not inside.startswith("/"):
        raise UsageError(f"--device {text}", "needs absolute paths", hint="the form is HOST[:CONTAINER][:rwm]")
    if not is_access(access):
        raise UsageError(f"--device {text}", f"access must be made of r, w and m, not '{access}'")
    return DeviceFlag(host, inside, access)


def is_access(text: str) -> bool:
    """Whether it is one to three different letters of r, w and m."""
    return bool(text) and not set(text) - set("rwm") and len(set(text)) == len(text)


def parse_rule(text: str) -> DeviceRule:
    """A --device-cgroup-rule value such as "c 42:* rmw". Raises UsageError."""
    words = text.split(" ")
    major, colon, minor = words[1].partition(":") if len(words) == 3 else ("", "", "")
    numbers_ok = colon and all(number == "*" or _is_number(number) for number in (major, minor))
    if len(words) != 3 or words[0] not in ("a", "b", "c") or not numbers_ok or not is_access(words[2]):
        raise UsageError(f"--device-cgroup-rule '{text}'", "not a rule", hint="the form is 'c 42:* rmw'")
    return DeviceRule(
        True, words[0], None if major == "*" else int(major), None if minor == "*" else int(minor), words[2]
    )


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 7


def nodes(flag: DeviceFlag) -> list[DeviceNode]:
    """The device behind a --device flag, or every device below it when it is a directory (as /dev/snd).

    Raises PyrunError for a path that is not there or is neither. Symlinks are followed on the host, as docker does:
    /dev/disk/by-id/… names a device too.
    """
    try:
        found = os.stat(flag.host)
    except OSError as error:
        raise PyrunError(f"--device {flag.host}", os.strerror(error.errno or 0).lower()) from None
    node = _node(flag, found)
    if node is not None:
        return [node]
    if not stat.S_ISDIR(found.st_mode):
        raise PyrunError(f"--device {flag.host}", "not a device node", hint="use -v to share a file or directory")
    below: list[DeviceNode] = []
    for name in sorted(set(os.listdir(flag.host)) - NOT_DEVICES):
        inner = DeviceFlag(f"{flag.host}/{name}", f"{flag.inside}/{name}", flag.access)
        try:
            status = os.lstat(inner.host)
        except FileNotFoundError:  # unplugged while we look
            continue
        inner_node = _node(inner, status)
        if inner_node is not None:
            below.append(inner_node)
        elif stat.S_ISDIR(status.st_mode):
            below.extend(nodes(inner))
    return below


def _node(flag: DeviceFlag, found: os.stat_result) -> DeviceNode | None:
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    rule = DeviceRule(True, kind, major, minor, flag.access)
    return DeviceNode(flag.inside, kind, major, minor, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, rule)
