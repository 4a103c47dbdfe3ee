# SPDX-License-Identifier: Apache-2.0
"""Ending and pausing containers: stop, kill, wait, pause, unpause. Works in a worker and in any other process."""

from __future__ import annotations

import os

from pyrun.cgroups.group import Cgroup
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.monitoring import request, wait_for_end
from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.events import step
from pyrun.runtime.kernel.syscalls import pidfd_open, pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

SIGKILL, SIGTERM, SIGCONT = 9, 15, 18
SIGNALS_THAT_STOP = (9, 15, 2, 3, 1)
KILL_GRACE_S = 10.0


def open_process(store: c.ContainerStore, container_id: str, verb: str) -> int:
    """A pidfd of the container's init, checked to be that process. Raises Conflict when it does not run."""
    container = store.load(container_id)
    state = store.load_state(container_id)
    try:
        pidfd = pidfd_open(state.pid) if state.pid > 0 else -1
    except ProcessLookupError:
        pidfd = -1
    # checked after opening: from then on the pid cannot become somebody else's under us
    if pidfd >= 0 and c.process_exists(state):
        return pidfd
    if pidfd >= 0:
        os.close(pidfd)
    why = "container is not running"
    raise Conflict(f"{verb} {container.name}", why if state.running else f"{why} ({state.status})")


def kill(paths: Paths, container_id: str, signal: int = SIGKILL, link: WorkerLink | None = None) -> None:
    """Sends a signal to the container's init. Raises Conflict when it does not run.

    A user's kill keeps the restart policy from starting it again, as docker's does.
    """
    store = c.ContainerStore(paths)
    pidfd = open_process(store, container_id, "kill")
    try:
        if signal in SIGNALS_THAT_STOP:
            store.update_state(container_id, stopped_by_user=True)
        send(pidfd, signal)
        if signal == SIGKILL:
            thaw_if_frozen(store, container_id)  # a frozen process dies only when it is thawed
    finally:
        os.close(pidfd)


def send(pidfd: int, signal: int) -> None:
    """Sends a signal; a process that ended meanwhile is fine."""
    with step("process", f"kill -{signal}"):
        try:
            pidfd_send_signal(pidfd, signal)
        except ProcessLookupError:
            pass


def stop(
    paths: Paths, container_id: str, *, timeout_s: int | None = None, signal: int | None = None,
    link: WorkerLink | None = None,
) -> None:  # fmt: skip
    """Asks the container to end (its stop signal), waits, then kills it; returns when it is cleaned up.

    Args:
        timeout_s: seconds to wait; None is the container's own (10); negative waits for ever.
        signal: instead of the container's stop signal.

    A container that does not run is fine, as with docker; a pending restart is cancelled.
    """
    store = c.ContainerStore(paths)
    container = store.load(container_id)
    state = store.update_state(container_id, stopped_by_user=True)
    if state.status == c.RESTARTING or not state.running:
        cancel_restart(paths, store, container_id, link)
        return
    try:
        pidfd = open_process(store, container_id, "stop")
    except Conflict:
        wait_for_end(paths, link, container_id)
        return
    try:
        end(store, container, pidfd, timeout_s, signal)
    finally:
        os.close(pidfd)
    if wait_for_end(paths, link, container_id) is None and store.load_state(container_id).running:
        # the monitor does not know it (it was killed, and nobody started the next one): clean up ourselves
        from pyrun.runtime.engine.finish import finish

        finish(paths, container_id, None, link)


def stop_signal(container: c.Container) -> int:
    """What `stop` sends. An image may name a signal that there is not: then SIGTERM, as docker does, for a container
    that nobody can stop helps nobody."""
    from pyrun.runtime.engine.signals import number

    try:
        return number(container.stop_signal)
    except PyrunError:
        return SIGTERM


def end(store: c.ContainerStore, container: c.Container, pidfd: int, timeout_s: int | None, signal: int | None) -> None:
    """The stop signal, the grace, SIGKILL to everything in the cgroup."""
    send(pidfd, stop_signal(container) if signal is None else signal)
    thaw_if_frozen(store, container.id)
    grace = container.stop_timeout if timeout_s is None else timeout_s
    if not ended(pidfd, None if grace < 0 else float(grace)):
        send(pidfd, SIGKILL)
        Cgroup(container.cgroup_path).kill()
        if not ended(pidfd, KILL_GRACE_S):
            raise PyrunError(
                f"stop {container.name}", "it does not die",
                hint="a process in uninterruptible sleep: see the kernel log and `pyrun top`",
            )  # fmt: skip


def ended(pidfd: int, timeout_s: float | None) -> bool:
    """Waits until the process has ended, at most `timeout_s` seconds."""
    from select import POLLIN, poll

    waiter = poll()
    waiter.register(pidfd, POLLIN)
    return bool(waiter.poll(None if timeout_s is None else timeout_s * 1000))


def cancel_restart(paths: Paths, store: c.ContainerStore, container_id: str, link: WorkerLink | None) -> None:
    """A container between two starts of its restart policy stays stopped."""
    try:
        request(paths, link, "cancel-restart", id=container_id)
    except NotFound:
        pass  # no monitor, so nothing pending
    with store.lock(container_id):
        state = store.load_state(container_id)
        if state.status == c.RESTARTING:
            store.save_state(container_id, state.replace(status=c.EXITED, stopped_by_user=True))


def wait(paths: Paths, container_id: str, link: WorkerLink | None = None) -> int | None:
    """The exit code, when the container has ended; at once if it has already. None: nobody could see it end.

    If no monitor runs, or it is killed meanwhile, another one is started: without it nobody would see the end.
    """
    from time import sleep

    store = c.ContainerStore(paths)
    while (state := store.load_state(container_id)).running:
        code = wait_for_end(paths, link, container_id, start=True)
        if code is not None:
            return code
        if not c.process_exists(state):
            return store.settle(container_id, state).exit_code  # it is between two starts, or ended long ago
        sleep(0.05)  # just starting, or just being cleaned up
    return state.exit_code


# ---- pause -----------------------------------------------------------------------------------------------------------


def pause(paths: Paths, container_id: str) -> None:
    """Freezes every process of the container (cgroup.freeze). Raises Conflict when it does not run, or is paused."""
    store = c.ContainerStore(paths)
    os.close(open_process(store, container_id, "pause"))
    container = store.load(container_id)
    with store.lock(container_id):
        state = store.load_state(container_id)
        if state.status == c.PAUSED:
            raise Conflict(f"pause {container.name}", "it is paused already")
        Cgroup(container.cgroup_path).freeze()
        store.save_state(container_id, state.replace(status=c.PAUSED))


def unpause(paths: Paths, container_id: str) -> None:
    """Lets a paused container go on. Raises Conflict when it is not paused."""
    store = c.ContainerStore(paths)
    container = store.load(container_id)
    with store.lock(container_id):
        state = store.load_state(container_id)
        if state.status != c.PAUSED:
            raise Conflict(f"unpause {container.name}", f"it is not paused ({state.status})")
        Cgroup(container.cgroup_path).thaw()
        store.save_state(container_id, state.replace(status=c.RUNNING))


def thaw_if_frozen(store: c.ContainerStore, container_id: str) -> None:
    """A paused container must run to die."""
    if store.load_state(container_id).status == c.PAUSED:
        unpause(store.paths, container_id)


def restart(
    paths: Paths, container_id: str, link: WorkerLink, *, timeout_s: int | None = None, signal: int | None = None
) -> None:
    """stop() and start(), whatever the container's state was."""
    from pyrun.runtime.engine.start import start

    stop(paths, container_id, timeout_s=timeout_s, signal=signal, link=link)
    start(paths, container_id, link)
