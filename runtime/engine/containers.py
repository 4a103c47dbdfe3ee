# SPDX-License-Identifier: Apache-2.0
"""Containers on disk: what each one is (container.json, written once), how it is (state.json), and what it is called.

    <data>/containers/<id>/container.json   Container
    <data>/containers/<id>/state.json       State, replaced atomically under <run>/<id>/lock
    <data>/names/<name> -> <id>             a symbolic link, so that two containers can never share a name

A damaged file spoils only its own container: listing goes on, and `remove` needs neither file.
"""

from __future__ import annotations

import os

from pyrun.runtime import files
from pyrun.runtime.engine import names
from pyrun.runtime.engine.options import RunOptions, record_from_json, to_json
from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeVar

    from pyrun.netns.ports import PortMapping
    from pyrun.runtime.paths import Paths

    T = TypeVar("T")

NEVER = "0001-01-01T00:00:00Z"  # docker's "has not happened"
SHORT_ID = 12
CREATED, RUNNING, PAUSED, RESTARTING = "created", "running", "paused", "restarting"
REMOVING, EXITED, DEAD = "removing", "exited", "dead"
BURIED = ".removed"  # the end of a directory's name whose container is gone
STATUSES = (CREATED, RUNNING, PAUSED, RESTARTING, REMOVING, EXITED, DEAD)


class MountPoint(Record):
    """A mount as the container has it: options resolved, volumes found. What inspect shows as Mounts."""

    type: str  # bind | volume | tmpfs
    source: str  # absolute host path; "" for tmpfs
    target: str
    name: str = ""  # of the volume
    driver: str = ""
    mode: str = ""  # the option string as the user wrote it, such as "z"
    readonly: bool = False
    propagation: str = ""
    anonymous: bool = False  # a volume without a name of the user's: `rm -v` and --rm remove it
    words: tuple[str, ...] = ()  # mount options as the OCI runtime-spec has them
    nocopy: bool = False  # do not fill an empty volume from the image


class Container(Record):
    """What a container is; never changes after `create`, but for its name (rename)."""

    id: str  # 64 hex digits
    name: str
    created: str  # RFC 3339, UTC, nanoseconds
    image_id: str  # sha256:…
    image_ref: str  # as the user wrote it
    path: str  # the program
    args: tuple[str, ...]  # its arguments, without the program
    options: RunOptions
    mounts: tuple[MountPoint, ...] = ()
    # the image's config with the options on top
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # NAME=value
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()  # targets of the image's VOLUMEs
    stop_signal: str = "SIGTERM"
    stop_timeout: int = 10  # seconds; -1 waits for ever
    platform: str = "linux"
    cgroup_path: str = ""  # below the cgroup2 mount, such as /pyrun/<id>
    log_path: str = ""

    @property
    def short_id(self) -> str:
        return self.id[:SHORT_ID]

    def to_json(self) -> dict[str, Any]:
        """All that differs from the defaults, as JSON values."""
        return {**to_json(self), "options": self.options.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The container whose to_json() is `value`. Raises TypeError, KeyError for what is not one."""
        plain = record_from_json(cls, value)
        mounts = tuple(record_from_json(MountPoint, mount) for mount in plain.mounts)  # type: ignore[arg-type]  # JSON
        return plain.replace(options=RunOptions.from_json(value["options"]), mounts=mounts)


class State(Record):
    """How a container is. `exit_code` None is unknown: it ended while nobody could see it."""

    status: str = CREATED
    pid: int = 0  # of the container's init in the host's pid namespace; 0 when not running
    pid_start_time: int = 0  # clock ticks since boot (proc(5), stat field 22): a reused pid has another
    boot_id: str = ""  # of the boot that pid belongs to
    exit_code: int | None = 0
    started_at: str = NEVER
    finished_at: str = NEVER
    oom_killed: bool = False
    oom_before: dict[str, int] | None = (
        None  # pyrun.cgroups.oom.marks() at the start: whose limit it was, if one was hit
    )
    error: str = ""
    restart_count: int = 0
    stopped_by_user: bool = False  # stop or kill: the restart policy leaves it alone
    endpoint: dict[str, Any] | None = None  # of the network: ip, prefix, gateway, mac, …; None without one
    ports: tuple[PortMapping, ...] = ()  # published
    unfinished: bool = False  # `create` or `run` is still at it; if that is killed, recover() takes the container back
    # A step of a build has an owner: the worker that runs it, its parent. No command shows it; recover() removes it
    # when the owner is gone.
    owner: int = 0  # pid; 0 for the containers that people make, which are the monitor's
    owner_start_time: int = 0  # as pid_start_time

    @property
    def running(self) -> bool:
        """Whether a process of it exists as far as this file knows (docker's State.Running)."""
        return self.status in (RUNNING, PAUSED, RESTARTING)

    def to_json(self) -> dict[str, Any]:
        """Every field, default or not: this file is read by people."""
        return {**self.asdict(), "ports": [to_json(port) for port in self.ports]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The state whose to_json() is `value`. Raises TypeError, ValueError for what is not one."""
        ports: tuple[PortMapping, ...] = ()
        if value.get("ports"):
            from pyrun.netns.ports import PortMapping  # here: it loads socket, which most containers do not need

            ports = tuple(record_from_json(PortMapping, port) for port in value["ports"])
        state = cls(**{**value, "ports": ports})
        if state.status not in STATUSES:
            raise ValueError(f"unknown status {state.status!r}")
        return state


def new_id() -> str:
    """64 random hex digits whose first 12 are not a number: those are the host name in the container."""
    while True:
        value = os.urandom(32).hex()
        if not value[:SHORT_ID].isdecimal():
            return value


def boot_id() -> str:
    """Tells this boot of the machine from all others (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def pid_start_time(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot; 0 when there is none, or only its zombie: that has ended,
    and whoever is to reap it may take its time."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    fields = text[text.rindex(b")") + 2 :].split()  # after "(comm)", which may itself hold spaces and brackets
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def process_exists(state: State) -> bool:
    """Whether the very process that `state` names still exists: not a later one of its pid, not before a reboot."""
    return state.pid > 0 and state.boot_id == boot_id() and pid_start_time(state.pid) == state.pid_start_time


def owner_exists(state: State) -> bool:
    """Whether the worker that runs this step of a build still lives; False for an ordinary container too."""
    return state.owner > 0 and state.boot_id == boot_id() and pid_start_time(state.owner) == state.owner_start_time


def owned_by(pid: int) -> State:
    """The state of a new container that belongs to process `pid`."""
    return State(owner=pid, owner_start_time=pid_start_time(pid), boot_id=boot_id())


class ContainerStore:
    """All containers of one data root. Methods raise NotFound, Conflict, or PyrunError for a damaged file."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._names = f"{paths.data}/names"
        self._containers = f"{paths.data}/containers"

    # ── make and remove ──────────────────────────────────────────────────────────────────────────────────────────

    def create(self, container: Container, state: State | None = None) -> Container:
        """Takes the name and writes both files. An empty name becomes a random free one: use the container returned.

        One that is owned (a step of a build) gets no name. Raises UsageError for a bad name, Conflict for one that is
        taken; nothing is left behind then.
        """
        owned = state is not None and state.owner > 0
        if container.name:
            names.check(container.name)
        directory = self.paths.container(container.id)
        files.private_dir(self._names)
        files.private_dir(self._containers)
        with files.Lock(f"{self._names}/.lock"):
            if not owned:
                name = container.name or names.random_name(lambda name: not self._holder(name))
                self._refuse_taken(name)
                container = container.replace(name=name)
            os.mkdir(directory, 0o700)
            try:
                # what --rm removes need not survive a power failure, and a sync is milliseconds
                sync = not container.options.rm
                files.write_json(f"{directory}/state.json", (state or State()).to_json(), sync=sync)
                files.write_json(f"{directory}/container.json", container.to_json(), sync=sync)
                if not owned:
                    self._link(name, container.id)
            except BaseException:
                self._unlink_files(container.id)
                raise
        return container

    def remove(self, container_id: str) -> None:
        """Forgets the container and frees its name. Its directory goes only if nothing else is left in it.

        The caller has removed everything of its own (upper, work, log, …) before; damaged files do not matter here.
        """
        with files.Lock(f"{self._names}/.lock"):
            for name in self._links_to(container_id):
                os.unlink(f"{self._names}/{name}")
            self._unlink_files(container_id)

    def bury(self, container_id: str) -> str:
        """Forgets the container and frees its name, in one step; gives the path that its files have from then on, for
        the caller to remove, or "" when there is no such container."""
        buried = f"{self.paths.container(container_id)}{BURIED}"
        with files.Lock(f"{self._names}/.lock"):
            try:
                os.rename(self.paths.container(container_id), buried)
            except FileNotFoundError:
                buried = ""
            for name in self._links_to(container_id):  # after: a name without a container is nobody's (_holder)
                os.unlink(f"{self._names}/{name}")
        return buried

    def buried(self) -> list[str]:
        """What bury() gave to somebody who has not removed it (yet)."""
        try:
            return [f"{self._containers}/{name}" for name in os.listdir(self._containers) if name.endswith(BURIED)]
        except FileNotFoundError:
            return []

    def drop_stray_names(self) -> list[str]:
        """Removes the names of containers that are gone (bury() was killed), and gives them."""
        try:
            with files.Lock(f"{self._names}/.lock"):
                links = [entry.name for entry in os.scandir(self._names) if entry.is_symlink()]
                stray = [
                    name
                    for name in links
                    if not os.path.isdir(self.paths.container(os.readlink(f"{self._names}/{name}")))
                ]
                for name in stray:
                    os.unlink(f"{self._names}/{name}")
        except FileNotFoundError:  # nothing has ever been named here
            return []
        return stray

    def rename(self, container_id: str, name: str) -> Container:
        """Gives the container another name. Raises UsageError, NotFound, Conflict."""
        names.check(name)
        with files.Lock(f"{self._names}/.lock"):
            container = self.load(container_id)
            if container.name == name:
                raise Conflict(f"rename {name}", "that is its name already")
            self._refuse_taken(name)
            renamed = container.replace(name=name)
            self._link(name, container_id)
            try:
                files.write_json(self._file(container_id, "container.json"), renamed.to_json())
            except BaseException:
                os.unlink(f"{self._names}/{name}")
                raise
            for other in self._links_to(container_id):
                if other != name:
                    os.unlink(f"{self._names}/{other}")
        return renamed

    # ── find ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def ids(self) -> list[str]:
        """The ids of all containers, damaged ones too, in no particular order."""
        try:
            return [entry for entry in os.listdir(self._containers) if names.is_id(entry)]
        except FileNotFoundError:
            return []

    def lookup(self, reference: str) -> str:
        """The id of the container called `reference`: a whole id, a name, or the beginning of one id only.

        Raises NotFound, or Conflict when the beginning fits several containers.
        """
        if names.is_id(reference) and os.path.isdir(self.paths.container(reference)) and not self._owned(reference):
            return reference
        if holder := self._holder(reference):
            return holder
        fits = [one for one in self.ids() if one.startswith(reference)] if names.is_id_prefix(reference) else []
        fits = [one for one in fits if not self._owned(one)]
        if len(fits) > 1:
            raise Conflict(f"container '{reference}'", f"{len(fits)} ids begin so", hint="give more of it")
        if not fits:
            raise NotFound(f"no such container '{reference}'")
        return fits[0]

    def all(self) -> tuple[list[tuple[Container, State]], list[PyrunError]]:
        """Every container with its state, newest first, but for steps of builds; and one error for each that cannot be
        read."""
        found: list[tuple[Container, State]] = []
        problems: list[PyrunError] = []
        for container_id in self.ids():
            try:
                found.append((self.load(container_id), self.load_state(container_id)))
            except NotFound:
                continue  # removed while we were looking
            except PyrunError as error:
                try:  # once more, when nobody is just making it
                    with files.Lock(f"{self._names}/.lock", shared=True):
                        found.append((self.load(container_id), self.load_state(container_id)))
                except NotFound:
                    continue
                except (PyrunError, OSError):  # OSError: not ours to lock, we only look
                    problems.append(error)
        found = [pair for pair in found if not pair[1].owner]
        found.sort(key=lambda pair: pair[0].created, reverse=True)
        return found, problems

    # ── read and write ───────────────────────────────────────────────────────────────────────────────────────────

    def load(self, container_id: str) -> Container:
        """The container with exactly this id. Raises NotFound, PyrunError."""
        return self._read(container_id, "container.json", Container.from_json)

    def load_state(self, container_id: str) -> State:
        """Its state as last written. Raises NotFound, PyrunError."""
        return self._read(container_id, "state.json", State.from_json)

    def busy(self) -> files.Lock:
        """While something is half made: recover() waits, and must not take it for what a crash left."""
        files.private_dir(self.paths.run)
        return files.Lock(f"{self.paths.run}/recover.lock", shared=True)

    def lock(self, container_id: str, *, blocking: bool = True) -> files.Lock:
        """The lock under which state changes: `with store.lock(id): …`. Creates <run>/<id>."""
        files.private_dir(self.paths.running(container_id))
        return files.Lock(f"{self.paths.running(container_id)}/lock", blocking=blocking)

    def save_state(self, container_id: str, state: State, *, sync: bool = True) -> None:
        """Replaces the state; the caller holds lock(). Raises OSError, with the old state still there."""
        files.write_json(self._file(container_id, "state.json"), state.to_json(), sync=sync)

    def update_state(self, container_id: str, **changes: Any) -> State:
        """Changes some fields of the state under its lock, and gives the new state."""
        with self.lock(container_id):
            state = self.load_state(container_id).replace(**changes)
            self.save_state(container_id, state)
            return state

    def settle(self, container_id: str, state: State) -> State:
        """The state for showing: a running container that has no process after a reboot, or without a monitor, exited.

        Its exit code is unknown then. With a monitor, the container is just being cleaned up, and its word counts. If
        the monitor was killed, the next one is started here: it can tell how the container ended.
        """
        if state.status not in (RUNNING, PAUSED) or process_exists(state):
            return state
        if state.boot_id == boot_id():
            from pyrun.runtime.engine import monitoring

            try:
                if monitoring.answers(self.paths):
                    return self.load_state(container_id)
                monitoring.wait_for_end(self.paths, None, container_id, start=True)
                state = self.load_state(container_id)
            except (PyrunError, OSError):
                pass  # it cannot be started (by whom may only look), or the container is gone
        return state.replace(status=EXITED, pid=0, exit_code=None) if state.running else state

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _owned(self, container_id: str) -> bool:
        try:
            return self.load_state(container_id).owner > 0
        except PyrunError:
            return False  # damaged: for `rm -f` it is there

    def _file(self, container_id: str, name: str) -> str:
        return f"{self.paths.container(container_id)}/{name}"

    def _read(self, container_id: str, name: str, parse: Callable[[dict[str, Any]], T]) -> T:
        short = container_id[:SHORT_ID]
        try:
            value = files.read_json(self._file(container_id, name))
            if not isinstance(value, dict):
                raise TypeError("not a JSON object")
            return parse(value)
        except FileNotFoundError:
            if not os.path.isdir(self.paths.container(container_id)):
                raise NotFound(f"no such container '{short}'") from None
            why = f"{name} is missing"
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"{name} is damaged ({error})"
        except OSError as error:
            why = f"cannot read {name}: {error.strerror}"
        raise PyrunError(f"container {short}", why, hint=f"`pyrun rm -f {short}` removes it") from None

    def _holder(self, name: str) -> str:
        """The id of the container that has this name, or ""; a link left by a crash counts as nothing."""
        if not names.is_name(name):
            return ""
        try:
            container_id = os.readlink(f"{self._names}/{name}")
        except OSError:
            return ""
        return container_id if os.path.isdir(self.paths.container(container_id)) else ""

    def _refuse_taken(self, name: str) -> None:
        if holder := self._holder(name):
            raise Conflict(
                f"name '{name}'",
                f"container {holder[:SHORT_ID]} has it already",
                hint=f"choose another name, or remove that container: pyrun rm {name}",
            )

    def _link(self, name: str, container_id: str) -> None:
        """names/<name> -> id; replaces a link of a dead container. The names lock is held."""
        try:
            os.symlink(container_id, f"{self._names}/{name}")
        except FileExistsError:
            os.unlink(f"{self._names}/{name}")
            os.symlink(container_id, f"{self._names}/{name}")

    def _links_to(self, container_id: str) -> list[str]:
        try:
            entries = [entry.name for entry in os.scandir(self._names) if entry.is_symlink()]
        except FileNotFoundError:
            return []
        return [name for name in entries if os.readlink(f"{self._names}/{name}") == container_id]

    def _unlink_files(self, container_id: str) -> None:
        for name in ("container.json", "state.json"):
            try:
                os.unlink(self._file(container_id, name))
            except FileNotFoundError:
                pass
        try:
            os.rmdir(self.paths.container(container_id))
        except OSError:
            pass  # something of the caller's is still in it
