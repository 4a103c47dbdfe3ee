# SPDX-License-Identifier: Apache-2.0
"""What is left to do when a container's process has ended; and putting right what a crash left.

finish() runs in the monitor's finisher, and from `stop` and recover() when no monitor saw the end. It is idempotent:
if a monitor dies meanwhile, the next one runs it again.
"""

from __future__ import annotations

import os

from pyrun.cgroups import mount as cgroup_mount
from pyrun.cgroups import oom
from pyrun.cgroups.group import Cgroup
from pyrun.runtime import files
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine import network
from pyrun.runtime.engine.create import now
from pyrun.runtime.engine.monitoring import wait_for_end
from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.events import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 60.0
# How a container ends whose start nobody finishes: pyrun-init gives up (init.c, wait_for_go), or is killed
NEVER_RAN = (125, -9, None)
STEADY_S = 10.0  # a container that ran this long starts the back-off anew, as docker's


def exit_code(returncode: int | None) -> int | None:
    """docker's exit code: the program's, or 128+N for death by signal N."""
    return None if returncode is None else returncode if returncode >= 0 else 128 - returncode


def finish(paths: Paths, container_id: str, returncode: int | None, link: WorkerLink | None = None) -> dict[str, Any]:
    """Cleans up after a container that ended: ports, address, cgroup, run directory; records how it ended.

    Returns {"code", "restart_after_s"} for the monitor. Raises PyrunError; what can be done, is done first.
    """
    store = c.ContainerStore(paths)
    code = exit_code(returncode)
    try:
        container = store.load(container_id)
    except NotFound:
        return {"code": 125 if code is None else code, "restart_after_s": None}
    with store.lock(container_id):
        state = store.load_state(container_id)
        if not state.running or c.process_exists(state):
            # a start that failed after the hand-over, or a second call: the state tells already
            return {"code": state.exit_code if code is None else code, "restart_after_s": None}
        cgroup = Cgroup(container.cgroup_path)
        killed = oom.out_of_memory(cgroup, state.oom_before)  # before the cgroup goes, and with it the only record
        problems = release(paths, container, cgroup, link)
        state = state.replace(
            status=c.EXITED, pid=0, exit_code=code, finished_at=now(), oom_killed=killed is not None,
            endpoint=None, ports=(), error="; ".join([*([str(killed)] if killed else []), *problems]),
        )  # fmt: skip
        never_ran = state.unfinished and returncode in NEVER_RAN  # its `run` was killed: as if it had not been
        delay = None if never_ran else restart_delay(container, state)
        if delay is not None:
            state = state.replace(status=c.RESTARTING)
        removed = never_ran or (container.options.rm and delay is None)
        if not removed:
            store.save_state(container_id, state)
    if removed:
        from pyrun.runtime.engine.remove import discard

        discard(paths, container_id, container, volumes=True)
    return {"code": 255 if code is None else code, "restart_after_s": delay}


def release(paths: Paths, container: c.Container, cgroup: Cgroup, link: WorkerLink | None = None) -> list[str]:
    """Gives back everything that a running container holds on the host; what went wrong, as texts."""
    problems: list[str] = []
    actions: tuple[tuple[str, Callable[[], None]], ...] = (
        ("network", lambda: network.release(paths, container, link)),
        ("cgroup", lambda: _end_cgroup(cgroup)),
        ("run directory", lambda: clear_run_directory(paths, container.id)),
    )
    for text, action in actions:
        try:
            action()
        except (OSError, PyrunError) as error:
            problems.append(f"clean-up of {text}: {error}")
    return problems


def _end_cgroup(cgroup: Cgroup) -> None:
    # processes that the container's init left behind (it had no pid namespace of its own) end with it
    if cgroup.exists():
        cgroup.kill()
        cgroup.remove()


def clear_run_directory(paths: Paths, container_id: str) -> None:
    """Removes the FIFOs; the lock file stays as long as the container (two holders of "the" lock otherwise)."""
    for name in ("stdin", "stdout", "stderr", "plan.json"):
        try:
            os.unlink(f"{paths.running(container_id)}/{name}")
        except FileNotFoundError:
            pass


def restart_delay(container: c.Container, state: c.State) -> float | None:
    """Seconds until the restart policy starts it again; None: not at all. Doubles from 0.1 s to a minute."""
    policy = container.options.restart
    if state.stopped_by_user or policy.name == "no":
        return None
    exhausted = bool(policy.max_retries) and state.restart_count >= policy.max_retries
    if policy.name == "on-failure" and (state.exit_code == 0 or exhausted):
        return None
    steady = seconds_between(state.started_at, state.finished_at) >= STEADY_S
    return FIRST_RESTART_S if steady else min(FIRST_RESTART_S * 2.0 ** min(state.restart_count, 20), LONGEST_RESTART_S)


def seconds_between(start: str, end: str) -> float:
    """Between two RFC 3339 times of ours; 0 when one never happened."""
    import calendar
    import time

    def seconds(text: str) -> float:
        whole = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
        return whole + float(f"0{text[19:-1]}" if len(text) > 20 else 0)

    return 0.0 if c.NEVER in (start, end) else seconds(end) - seconds(start)


# ---- after a crash ---------------------------------------------------------------------------------------------------


def recover(paths: Paths, link: WorkerLink | None = None, known: frozenset[str] = frozenset()) -> list[str]:
    """Puts right what killed processes of ours left: containers that ended unseen, half-made ones, addresses, port
    maps, interfaces and cgroups of containers that do not run. Returns what was done.

    `known` are the containers that the monitor watches: they are its business.
    """
    from pyrun.cgroups import recover as cgroup_recover
    from pyrun.netns import recover as network_recover

    store = c.ContainerStore(paths)
    done: list[str] = []
    live: set[str] = set(known)
    files.private_dir(paths.run)
    with (
        files.Lock(f"{paths.run}/recover.lock"),  # nobody is making anything: ContainerStore.busy()
        step("recover", "leases, port maps, interfaces and cgroups of containers that are gone"),
    ):
        for container_id in store.ids():
            try:
                done += recover_one(paths, store, container_id, live, link)
            except (OSError, PyrunError) as error:
                done.append(f"{container_id[:12]}: {error}")
        done += remove_strays(paths, store)
        found = network_recover.recover(paths, live)
        done += [f"network: {name}" for name in (*found.ports, *found.links, *found.leases)]
        prefix = cgroup_mount.container_path("x", instance=paths.instance).rpartition("/")[0]
        done += cgroup_recover.recover(prefix, lambda: live)  # no start is under way whose cgroup this could be
    return done


def recover_one(
    paths: Paths, store: c.ContainerStore, container_id: str, live: set[str], link: WorkerLink | None
) -> list[str]:
    """One container: adds it to `live` when its process exists."""
    record = f"{paths.container(container_id)}/container.json"
    with files.Lock(f"{paths.data}/names/.lock"):  # held while a container is made
        half_made = not os.path.exists(record)
    if half_made:
        from pyrun.runtime.engine.remove import discard

        discard(paths, container_id, None, volumes=False)
        return [f"removed the half-made container {container_id[:12]}"]
    state = store.load_state(container_id)
    if state.owner:
        return recover_owned(paths, store, container_id, state, live)
    exists = c.process_exists(state)
    if exists and not (state.unfinished and is_init(state.pid)):
        if state.unfinished:  # its program had just begun to run
            store.update_state(container_id, unfinished=False)
        live.add(container_id)
        return []
    if state.unfinished:
        if container_id in live:  # the monitor's finisher does it, as soon as pyrun-init has noticed
            wait_for_end(paths, link, container_id)
            return []
        from pyrun.runtime.engine.remove import remove

        remove(paths, container_id, force=True, volumes=True, link=link)
        return [f"removed container {container_id[:12]}, whose start was killed"]
    if state.status == c.RESTARTING:
        return resume_restart(store.load(container_id), state, link)
    if state.running and container_id not in live:
        finish(paths, container_id, None, link)
        return [f"container {container_id[:12]} ended unseen"]
    return []


def recover_owned(
    paths: Paths, store: c.ContainerStore, container_id: str, state: c.State, live: set[str]
) -> list[str]:
    """A step of a build: its worker's business as long as that lives, else it goes with all that it has.

    Address and interface are freed with those of all containers that are gone, a moment later.
    """
    if c.owner_exists(state):
        live.add(container_id)
        return []
    from pyrun.runtime.engine.remove import discard

    try:
        path = store.load(container_id).cgroup_path
    except PyrunError:  # damaged
        path = cgroup_mount.container_path(container_id, instance=paths.instance)
    _end_cgroup(Cgroup(path))
    discard(paths, container_id, None, volumes=False)
    return [f"removed the build step {container_id[:12]}, whose build was killed"]


def resume_restart(container: c.Container, state: c.State, link: WorkerLink | None) -> list[str]:
    """A container between two starts of its restart policy, whose monitor was killed: the new one has no timer yet."""
    if link is None:
        return []
    delay = restart_delay(container, state)
    args = {"id": container.id, "restart": True}
    link.request("timer", key=f"restart {container.id}", after_s=delay or 0.0, run="start", args=args)
    return [f"container {container.short_id} will be restarted"]


def is_init(pid: int) -> bool:
    """Whether the process is still pyrun-init on its way, or waits for one that is (--init): with nobody to answer it,
    it ends by itself. A reaper without a child is on its way too: out, since pyrun-init has given up, or in."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read()
        if name != b"pyrun-reaper\n":
            return name == b"pyrun-init\n"
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:  # CONFIG_PROC_CHILDREN
            children = file.read().split()
        return not children or any(is_init(int(child)) for child in children)
    except OSError:
        return False


def remove_strays(paths: Paths, store: c.ContainerStore) -> list[str]:
    """The rest of removed containers, and <run>/<id> of those that are gone."""
    from pyrun.runtime.engine.names import is_id
    from pyrun.runtime.engine.remove import remove_buried, remove_run_directory

    done = [f"name {name}" for name in store.drop_stray_names()]
    for path in store.buried():
        remove_buried(path)
        done.append(f"the rest of {path}")
    stray = [name for name in os.listdir(paths.run) if is_id(name) and not os.path.isdir(paths.container(name))]
    for name in stray:
        remove_run_directory(paths, name)
    return [*done, *(f"run directory {name[:12]}" for name in stray)]


def recover_as_worker(paths: Paths, link: WorkerLink) -> list[str]:
    """recover() from a worker of the monitor."""
    return recover(paths, link, frozenset(str(one["id"]) for one in link.request("sessions")))
