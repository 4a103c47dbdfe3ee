# SPDX-License-Identifier: Apache-2.0
"""Cgroup: one container's cgroup v2 directory, from mkdir to rmdir.

    group = Cgroup(container_path(container_id))
    with Undo() as undo:
        group.create(resources)             # mkdir, controllers on the way down
        undo.on_failure(group.remove)
        group.apply(resources)              # memory.max and the like
        group.allow_devices(resources.devices)
        … clone3(CLONE_INTO_CGROUP, group.open_fd()) …

This is the cgroupfs driver: it writes the files itself. Everything is relative to the cgroup2 mount; every change is
a `step`, in the words a person would type.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, PyrunError, Unsupported
from pyrun.runtime.events import step
from pyrun.runtime.undo import Undo

from . import mount as mounts
from .cgroupfs import flat_keyed, read, subtree, write
from .controllers import USUAL, check_cpus, enable, missing
from .limits import files, grants_all, needed_controllers
from .resources import NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .mount import Mount
    from .resources import DeviceRule, Resources

EPERM, ENOENT, EAGAIN, EACCES, EBUSY, ENODEV = 1, 2, 11, 13, 16, 19
EINVAL, EROFS, ERANGE, ENAMETOOLONG, EOPNOTSUPP = 22, 30, 34, 36, 95
GONE = (ENOENT, ENODEV)  # what a cgroup that is removed answers, by path and by descriptor

HINTS = {
    ("cpu.max", EINVAL): "the quota must be at least 1000 microseconds, the period from 1000 to 1000000",
    ("cpu.max.burst", EINVAL): "the burst must not be larger than the quota of cpu.max",
    ("cpu.weight", EINVAL): "cpu.weight cannot be set while cpu.idle is 1",
    ("cpuset.cpus", ERANGE): "see /sys/devices/system/cpu/possible for the CPUs of this machine",
    ("cpuset.mems", ERANGE): "see /sys/devices/system/node/possible for the memory nodes of this machine",
    ("io.max", ENODEV): "name a whole disk by its numbers (lsblk shows them), not a partition",
    ("memory.max", EBUSY): "more is in use and cannot be reclaimed; stop something in the container first",
}

MKDIR_HINTS = {
    EPERM: "only root, or the user that the parent cgroup is delegated to, makes cgroups there",
    EACCES: "only root, or the user that the parent cgroup is delegated to, makes cgroups there",
    EROFS: "the cgroup2 mount is read-only here: pyrun cannot run inside this container",
    EAGAIN: "cgroup.max.descendants or cgroup.max.depth of a cgroup above is reached",
}

# Files that a kernel may lack although the controller is there, and the file that makes up for them.
STAND_INS = {"io.weight": "io.bfq.weight", "io.bfq.weight": "io.weight"}


class Cgroup:
    """The cgroup at `path` ("/pyrun/<id>", relative to the cgroup2 mount); makes nothing by itself.

    Raises Unsupported when no cgroup2 is mounted, SpecError for a path with "..".
    """

    def __init__(self, path: str, mount: Mount | None = None) -> None:
        self.mount = mount if mount is not None else mounts.find()
        self.path = mounts.clean(path)
        self.directory = self.mount.directory(self.path)

    def __repr__(self) -> str:
        return f"Cgroup({self.path!r})"

    # --- making --------------------------------------------------------------------------------------------------

    def create(self, resources: Resources = NOTHING) -> None:
        """Makes the directory and its parents, with the controllers that `resources` needs, and the usual ones.

        An empty cgroup that is there already is taken as it is. Raises Conflict for one with processes or a
        frozen one, Unsupported for a controller that cannot be had; then nothing is left behind.
        """
        needed = needed_controllers(resources)
        refusal = missing(needed, self.mount, ())
        if refusal:
            raise refusal
        for attempts_left in (2, 1, 0):
            try:
                with Undo() as undo:
                    if self._mkdirs(undo):
                        self._check_type()
                    else:
                        self._check_unused()
                    self._enable(needed)
                return
            except OSError as error:  # another pyrun removed an empty parent between our two steps
                if error.errno not in GONE or not attempts_left:
                    raise

    def exists(self) -> bool:
        """Whether the directory is there."""
        return os.path.isdir(self.directory)

    def _parents(self) -> list[str]:
        """The directories from the mount down to the parent."""
        found = [self.mount.path]
        for part in self.path.split("/")[1:-1]:
            found.append(f"{found[-1]}/{part}")
        return found

    def _mkdirs(self, undo: Undo) -> bool:
        """Whether the cgroup is new."""
        for directory in self._parents()[1:]:
            if not os.path.isdir(directory):
                self._mkdir(directory, undo)
        return self._mkdir(self.directory, undo)

    def _mkdir(self, directory: str, undo: Undo) -> bool:
        try:
            with step("cgroup", f"mkdir {directory}"):
                os.mkdir(directory, 0o755)
        except FileExistsError:
            return False
        except OSError as error:
            code = error.errno or 0
            if code in GONE:
                raise
            raise PyrunError(f"mkdir {directory}", os.strerror(code).lower(), hint=MKDIR_HINTS.get(code, "")) from None
        undo.on_failure(_rmdir_if_unused, directory)
        return True

    def _enable(self, needed: dict[str, str]) -> None:
        """Makes sure of the controllers; from the root down only when the cgroup does not have them yet."""
        wanted = tuple(dict.fromkeys((*USUAL, *needed)))
        have = read(self.directory, "cgroup.controllers").split()
        if any(name in self.mount.controllers and name not in have for name in wanted):
            for parent in self._parents():
                enable(parent, wanted)
            have = read(self.directory, "cgroup.controllers").split()
        if any(name not in have for name in needed):
            refusal = missing(needed, self.mount, self._parents())
            if refusal:
                raise refusal

    def _check_type(self) -> None:
        kind = read(self.directory, "cgroup.type").strip()
        if kind != "domain":
            raise Unsupported(
                f"create cgroup {self.path}",
                f"its parent is threaded, so its type is '{kind}' and it cannot hold a container",
                hint="choose another --cgroup-parent",
            )

    def _check_unused(self) -> None:
        state = flat_keyed(read(self.directory, "cgroup.events"))
        if state.get("populated"):
            raise Conflict(
                f"create cgroup {self.path}",
                f"it is there and has processes ({self._who()})",
                hint="another container uses it, or one that died left processes: see cgroup.procs in it",
            )
        if state.get("frozen"):
            raise Conflict(f"create cgroup {self.path}", "it is there and frozen", hint=f"rmdir {self.directory}")

    def delegate(self, uid: int, gid: int = -1) -> None:
        """Gives the cgroup to a user: the directory and the files that /sys/kernel/cgroup/delegate names.

        Only for a container with its own cgroup namespace and a writable cgroup mount (runtime-spec, Cgroup
        ownership); no limit file changes hands. Raises OSError.
        """
        try:
            with open("/sys/kernel/cgroup/delegate", encoding="ascii") as file:
                names = file.read().split()
        except OSError:
            names = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
        with step("cgroup", f"chown {uid} {self.directory} and {len(names)} files in it"):
            os.chown(self.directory, uid, gid)
            for name in names:
                try:
                    os.chown(f"{self.directory}/{name}", uid, gid, follow_symlinks=False)
                except FileNotFoundError:
                    continue

    # --- limits --------------------------------------------------------------------------------------------------

    def apply(self, resources: Resources) -> None:
        """Writes every limit that `resources` names and touches no other, so it serves `update` too.

        Raises Unsupported without the controller, PyrunError naming file and value when the kernel refuses one
        (those before it are in force), SpecError for limits that contradict each other.
        """
        try:
            self._enable(needed_controllers(resources))
        except OSError as error:
            raise self._not_found(error, f"cgroup {self.path}") from None
        for kind, listed in (("cpus", resources.cpu.cpus), ("mems", resources.cpu.mems)):
            if listed:
                check_cpus(listed, self._parents()[-1], kind)
        wanted = files(resources, self._pairs_now(resources))
        if resources.memory.check_before_update and wanted.get("memory.max", "max") != "max":
            self._check_usage(int(wanted["memory.max"]))
        explicit = dict(resources.unified)
        todo = list(wanted.items())
        for name, value in todo:  # grows by at most one
            try:
                for line in value.split("\n"):
                    write(self.directory, name, line)
            except OSError as error:
                if (
                    name == "cpu.max"
                    and error.errno == EINVAL
                    and "cpu.max.burst" in wanted
                    and todo.count((name, value)) == 1
                ):
                    todo.append((name, value))  # an old burst above the new quota: the new burst goes first
                elif error.errno != ENOENT or name in explicit or not self._may_lack(name, value):
                    raise self._refused(name, value, error) from None

    def _pairs_now(self, resources: Resources) -> dict[str, str]:
        """What the other halves are where only one half of a pair is asked for."""
        cpu, memory = resources.cpu, resources.memory
        names = []
        if bool(cpu.quota) != bool(cpu.period):
            names.append("cpu.max")
        if memory.swap and not memory.limit:
            names.append("memory.max")
        now = {}
        for name in names:
            try:
                now[name] = read(self.directory, name).strip()
            except FileNotFoundError:  # without the controller: the write will say so
                continue
        return now

    def _check_usage(self, limit: int) -> None:
        used = int(read(self.directory, "memory.current"))
        if used > limit:
            raise Conflict(f"memory.max = {limit}", f"{used} bytes are in use, and checkBeforeUpdate forbids to kill")

    def _may_lack(self, name: str, value: str) -> bool:
        """Whether a missing file is as good as the limit."""
        if grants_all(name, value) or name.endswith(".rsvd.max"):
            return True
        if name == "memory.swap.max":  # no swap accounting (swapaccount=0): fine where there is no swap
            return value == "0" or not _has_swap()
        stand_in = STAND_INS.get(name)
        return stand_in is not None and os.path.exists(f"{self.directory}/{stand_in}")

    def _refused(self, name: str, value: str, error: OSError) -> PyrunError:
        what = f"write '{value.replace(chr(10), ', ')}' to {self.directory}/{name}"
        if error.errno == ENOENT and self.exists():
            return Unsupported(what, "this kernel has no such file", hint=f"ls {self.directory} shows what it has")
        code = error.errno or 0
        return PyrunError(what, os.strerror(code).lower(), hint=HINTS.get((name, code), ""))

    def allow_devices(self, rules: Iterable[DeviceRule]) -> None:
        """Puts the device rules in force, in place of those before; the devices every container has stay allowed.

        Raises PyrunError when the kernel takes no device program.
        """
        from .devices import allow

        fd = self.open_fd()
        try:
            allow(fd, self.directory, rules)
        finally:
            os.close(fd)

    # --- processes -----------------------------------------------------------------------------------------------

    def open_fd(self) -> int:
        """A descriptor of the directory, for clone3(CLONE_INTO_CGROUP) and bpf(2). Raises NotFound."""
        try:
            return os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"cgroup {self.path}", "no such cgroup") from None

    def add(self, pid: int) -> None:
        """Moves a process in; for processes that could not be born inside. Raises OSError."""
        write(self.directory, "cgroup.procs", str(pid))

    def procs(self, *, recursive: bool = True) -> list[int]:
        """The pids in the cgroup, and in those below it; [] when it is gone. Processes of foreign pid namespaces
        are left out."""
        found: list[int] = []
        for directory in subtree(self.directory) if recursive else [self.directory]:
            try:
                found.extend(int(pid) for pid in read(directory, "cgroup.procs").split() if pid != "0")
            except OSError as error:
                # gone; threaded, so that its parent lists them; or nested beyond PATH_MAX, which kill() still reaches
                if error.errno not in (*GONE, EOPNOTSUPP, ENAMETOOLONG):
                    raise
        return found

    def populated(self) -> bool:
        """Whether any process is in the cgroup or below it; False when it is gone."""
        return bool(self._events().get("populated"))

    def frozen(self) -> bool:
        """Whether all of its processes are frozen; False when it is gone."""
        return bool(self._events().get("frozen"))

    def _events(self) -> dict[str, int]:
        try:
            return flat_keyed(read(self.directory, "cgroup.events"))
        except OSError as error:
            if error.errno in GONE:
                return {}
            raise

    def _who(self) -> str:
        pids = self.procs()
        return ("pid " if len(pids) == 1 else "pids ") + " ".join(map(str, pids[:5])) + (" …" if len(pids) > 5 else "")

    def freeze(self, timeout_s: float = 10.0) -> None:
        """Stops every process until thaw(), and waits until all of them stand still.

        Raises NotFound without the cgroup, PyrunError when one does not stop in time (it is in an uninterruptible
        system call); then all run again.
        """
        from .waiting import wait_for

        try:
            write(self.directory, "cgroup.freeze", "1")
            if wait_for(self.directory, "frozen", 1, timeout_s):
                return
        except OSError as error:
            raise self._not_found(error, f"freeze cgroup {self.path}") from None
        self.thaw()
        raise PyrunError(
            f"freeze cgroup {self.path}",
            f"not all processes stopped within {timeout_s:g} s ({self._who()})",
            hint="one is in an uninterruptible system call (state D in ps): try again later",
        )

    def thaw(self) -> None:
        """Lets the processes run again. Raises NotFound without the cgroup."""
        try:
            write(self.directory, "cgroup.freeze", "0")
        except OSError as error:
            raise self._not_found(error, f"thaw cgroup {self.path}") from None

    def _not_found(self, error: OSError, what: str) -> Exception:
        """NotFound for the error of a cgroup that is gone; any other error as it is."""
        return NotFound(what, "no such cgroup") if error.errno in GONE and not self.exists() else error

    def kill(self) -> None:
        """SIGKILL to every process in the cgroup and below, frozen ones too, forking ones too. Gone is fine.

        Does not wait: remove() does. Raises OSError.
        """
        try:
            write(self.directory, "cgroup.kill", "1")  # since Linux 5.14
        except OSError as error:
            if error.errno == ENODEV or not self.exists():
                return
            if error.errno != ENOENT:
                raise
            from .signals import kill_one_by_one

            kill_one_by_one(self)

    # --- removing ------------------------------------------------------------------------------------------------

    def remove(self, timeout_s: float = 10.0) -> None:
        """Removes the cgroup and all below it, waiting for processes that are dying. Gone already is fine.

        Kills nothing: call kill() first. Raises Conflict when processes are left after `timeout_s`.
        """
        try:
            with step("cgroup", f"rmdir {self.directory}"):
                os.rmdir(self.directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != EBUSY:
                raise
            from .removal import remove_subtree

            if not remove_subtree(self.directory, timeout_s):
                raise Conflict(
                    f"remove cgroup {self.path}",
                    f"it still has processes after {timeout_s:g} s ({self._who()})",
                    hint="kill them; one that SIGKILL does not end waits for a device or a network file system",
                ) from None


def _rmdir_if_unused(directory: str) -> None:
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno not in (ENOENT, EBUSY):  # another container moved in meanwhile: then it is theirs
            raise


def _has_swap() -> bool:
    try:
        with open("/proc/swaps", encoding="utf-8") as file:
            return len(file.read().splitlines()) > 1
    except OSError:  # a kernel without swap has no such file
        return False
