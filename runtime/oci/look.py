# SPDX-License-Identifier: Apache-2.0
"""list, ps, pause and resume: what orchestrators ask of containers that are there."""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, PyrunError, UsageError
from pyrun.runtime.oci import state as st
from pyrun.runtime.oci.lifecycle import cgroup_of, state_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def containers(root: st.StateRoot) -> list[dict[str, Any]]:
    """The states of all containers below `root`, by id; one that is half made or damaged is left out."""
    try:
        names = sorted(os.listdir(root.root))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            found.append(state_json(root, name))
        except (PyrunError, UsageError):  # no container of ours, or one that is being made or removed
            continue
    return found


def pause(root: st.StateRoot, container_id: str) -> None:
    """Stops every process, and returns when all stand still. Raises NotFound, Conflict, PyrunError."""
    with root.lock(container_id):
        state = root.load(container_id)
        st.require("pause", container_id, st.status(state, root.directory(container_id)))
        cgroup_of(state).freeze()


def resume(root: st.StateRoot, container_id: str) -> None:
    """Lets a paused container go on. Raises NotFound, Conflict."""
    with root.lock(container_id):
        state = root.load(container_id)
        st.require("resume", container_id, st.status(state, root.directory(container_id)))
        cgroup_of(state).thaw()


def pids(root: st.StateRoot, container_id: str) -> list[int]:
    """The host's pids of every process in the container, sorted; [] when it has stopped. Raises NotFound."""
    state = root.load(container_id)
    try:
        return sorted(cgroup_of(state).procs())
    except NotFound:
        return []


def ps_table(options: list[str], wanted: list[int]) -> str:
    """What `ps` prints with `options`, without the lines of other processes.

    Raises Conflict when ps fails, or prints no PID column to choose lines by.
    """
    from pyrun.runtime.oci.plan import DEFAULT_PATH

    program = next((f"{d}/ps" for d in DEFAULT_PATH.split(":") if os.access(f"{d}/ps", os.X_OK)), "")
    if not program:
        raise Conflict("ps", "this machine has no ps program", hint="ps --format json needs none")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reading, "rb") as output:
        try:
            actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
            pid = os.posix_spawn(program, ["ps", *options], {"PATH": DEFAULT_PATH}, file_actions=actions)
        finally:
            os.close(writing)
        text = output.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise Conflict(f"ps {' '.join(options)}", f"ps ended with exit code {code}")
    return chosen(text, wanted)


def chosen(text: str, wanted: list[int]) -> str:
    """The heading and the lines of `wanted` pids of a table with a PID column. Raises Conflict without one."""
    heading, *lines = text.splitlines() or [""]
    columns = heading.split()
    if "PID" not in columns:
        raise Conflict("ps", "its output has no PID column", hint="ps options such as -ef or -o pid,cmd have one")
    index, numbers = columns.index("PID"), {str(pid) for pid in wanted}
    kept = [line for line in lines if line.split()[index : index + 1] and line.split()[index] in numbers]
    return "\n".join([heading, *kept]) + "\n"
