# SPDX-License-Identifier: Apache-2.0
"""start, state, kill, delete: the OCI runtime operations (runtime.md) after `create` (create.py), without the monitor.

`create` returns with the container's init as its direct orphan, waiting on a FIFO in its last step; `start` opens the
FIFO. Nothing of pyrun's stays behind: the memory a created container costs is its own.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.kernel.syscalls import pidfd_open, pidfd_send_signal
from pyrun.runtime.oci import state as st

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cgroups.group import Cgroup

SIGKILL = 9
KILL_TIMEOUT_MS = 10_000


def start(root: st.StateRoot, container_id: str) -> None:
    """Lets a created container's program run. Raises NotFound, Conflict."""
    from select import POLLIN, poll

    with root.lock(container_id):
        state = root.load(container_id)
        directory = root.directory(container_id)
        st.require("start", container_id, st.status(state, directory))
        pidfd = pidfd_open(state.pid)
        # Not blocking: if the init dies now nobody would ever open the other end.
        fifo = os.open(f"{directory}/exec.fifo", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            waiter = poll()
            waiter.register(fifo, POLLIN)
            waiter.register(pidfd, POLLIN)
            waiter.poll()
            if os.read(fifo, 1) != b"\0":
                raise Conflict(f"cannot start container {container_id}", "its init has died")
            os.unlink(f"{directory}/exec.fifo")
        finally:
            os.close(fifo)
            os.close(pidfd)


def state_json(root: st.StateRoot, container_id: str) -> dict[str, Any]:
    """The state as runtime.md defines it, with what runc adds. Raises NotFound."""
    state = root.load(container_id)
    now = st.status(state, root.directory(container_id))
    return {
        "ociVersion": state.oci_version, "id": state.id, "pid": 0 if now == st.STOPPED else state.pid, "status": now,
        "bundle": state.bundle, "rootfs": state.rootfs, "created": state.created, "annotations": state.annotations,
        "owner": st.owner(root.directory(container_id)),
    }  # fmt: skip


def kill(root: st.StateRoot, container_id: str, signal: int, *, everything: bool = False) -> None:
    """Sends a signal to the init, or with `everything` to all processes of the container.

    Raises NotFound; Conflict with "container not running".
    """
    state = root.load(container_id)
    now = st.status(state, root.directory(container_id))
    if now == st.STOPPED and everything:
        return  # runc: kill --all of a stopped container is no error
    st.require("kill", container_id, now)
    cgroup = cgroup_of(state)
    if everything:
        from pyrun.cgroups.signals import signal_all

        signal_all(cgroup, signal)
        return
    try:
        pidfd = pidfd_open(state.pid)
    except ProcessLookupError:
        raise Conflict(f"cannot kill container {container_id}", "container not running") from None
    try:
        pidfd_send_signal(pidfd, signal)
    finally:
        os.close(pidfd)
    if now == st.PAUSED and signal == SIGKILL:
        cgroup.thaw()


def delete(root: st.StateRoot, container_id: str, *, force: bool = False) -> None:
    """Removes a stopped (or created) container; `force` kills a running one, and is content when there is none."""
    try:
        lock = root.lock(container_id)
    except NotFound:
        if force:
            return
        raise
    with lock:
        directory = root.directory(container_id)
        try:
            state = root.load(container_id)
        except PyrunError:
            if not force:
                raise
            remove_directory(directory)  # half made
            return
        now = st.status(state, directory)
        if not force:
            st.require("delete", container_id, now)
        cgroup = cgroup_of(state)
        if now != st.STOPPED:
            end(state, cgroup)
        elif cgroup.populated():
            cgroup.kill()
        cgroup.remove()
        remove_directory(directory)


def end(state: st.OciState, cgroup: Cgroup) -> None:
    """Kills everything in the container and waits for the init to be gone."""
    from select import POLLIN, poll

    try:
        pidfd = pidfd_open(state.pid)
    except ProcessLookupError:
        return
    try:
        if st.pid_start_time(state.pid) == state.pid_start_time:
            cgroup.kill()
            pidfd_send_signal(pidfd, SIGKILL)
            waiter = poll()
            waiter.register(pidfd, POLLIN)
            waiter.poll(KILL_TIMEOUT_MS)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def cgroup_of(state: st.OciState) -> Cgroup:
    """The Cgroup behind the directory that create noted."""
    from pyrun.cgroups import mount
    from pyrun.cgroups.group import Cgroup  # start and state do without

    found = mount.find()
    return Cgroup(state.cgroup.removeprefix(found.path), found)


def remove_directory(directory: str) -> None:
    """Removes a state directory and the few files that are in it."""
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    os.rmdir(directory)
