# SPDX-License-Identifier: Apache-2.0
"""The state of a container of pyrun-oci: <root>/<id>/state.json, and what it says about the process behind it."""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.files import Lock, write_atomic
from pyrun.runtime.oci import json
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC_VERSION = "1.3.0"  # of the runtime-spec: what state, spec and features say

CREATED, RUNNING, PAUSED, STOPPED = "created", "running", "paused", "stopped"
ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")

#: what may be done in which state; runc and crun delete created containers too (their init is killed), so do we
ALLOWED = {
    "start": {CREATED},
    "delete": {STOPPED, CREATED},
    "kill": {CREATED, RUNNING, PAUSED},
    "pause": {CREATED, RUNNING},
    "resume": {PAUSED},
    "exec in": {CREATED, RUNNING},
    "update": {CREATED, RUNNING, PAUSED},
    "watch": {CREATED, RUNNING, PAUSED},
}


class OciState(Record):
    """What `create` wrote down; the status is asked of the kernel."""

    id: str
    bundle: str
    rootfs: str
    created: str
    pid: int
    pid_start_time: int
    boot_id: str
    cgroup: str  # the directory
    annotations: dict[str, str]
    oci_version: str = SPEC_VERSION


def check_id(container_id: str) -> str:
    """The id, if it is one. Raises UsageError: "../x" and the like would reach outside the state root."""
    if not container_id or len(container_id) > 1024 or container_id in (".", "..") or set(container_id) - ID_CHARACTERS:
        raise UsageError(f"invalid container id {container_id!r}", "letters, digits and _ + - . only")
    return container_id


class StateRoot:
    """The directory of all states, `--root`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """<root>/<id>"""
        return f"{self.root}/{check_id(container_id)}"

    def reserve(self, container_id: str) -> str:
        """Makes the container's directory. Raises Conflict when there is one."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        directory = self.directory(container_id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            raise Conflict(f"container with id {container_id} already exists") from None
        return directory

    def lock(self, container_id: str) -> Lock:
        """One command at a time on one container. Raises NotFound."""
        directory = self.directory(container_id)
        if not os.path.isdir(directory):
            raise NotFound(f"container {container_id}", "container does not exist")
        return Lock(f"{directory}/lock")

    def load(self, container_id: str) -> OciState:
        """Raises NotFound ("container does not exist": callers look for these words), PyrunError for a damaged file."""
        try:
            with open(f"{self.directory(container_id)}/state.json", "rb") as file:
                value: Any = json.loads(file.read(), "state.json")
            return OciState(**value)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"container {container_id}", "container does not exist") from None
        except TypeError as error:
            raise PyrunError(f"container {container_id}", f"state.json is damaged ({error})") from None

    def save(self, state: OciState) -> None:
        """Written once, by create."""
        write_atomic(f"{self.directory(state.id)}/state.json", json.dumps(state.asdict()).encode(), sync=False)


def pid_start_time(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot; 0 when there is none, or only a zombie. proc(5), stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return 0
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """Tells this boot from all others."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read().decode("ascii").strip()


def owner(directory: str) -> str:
    """The name of the user whose the state directory is, or the number of one without a name; "" when it is gone."""
    try:
        uid = os.stat(directory).st_uid
    except FileNotFoundError:
        return ""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def status(state: OciState, directory: str) -> str:
    """created, running, paused or stopped (runtime.md, State), as it is now."""
    if state.boot_id != boot_id() or pid_start_time(state.pid) != state.pid_start_time:
        return STOPPED
    try:
        with open(f"{state.cgroup}/cgroup.events", "rb", buffering=0) as file:
            if b"frozen 1" in file.read():
                return PAUSED
    except OSError:
        pass
    return CREATED if os.path.exists(f"{directory}/exec.fifo") else RUNNING


def require(verb: str, container_id: str, now: str) -> None:
    """Raises Conflict unless `verb` may be done in the state `now`."""
    if now not in ALLOWED[verb]:
        why = "container not running" if now == STOPPED else f"container is {now}"
        raise Conflict(f"cannot {verb} container {container_id}", why)
