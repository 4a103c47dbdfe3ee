# SPDX-License-Identifier: Apache-2.0
"""exec: another process in a container that is there, without the monitor."""

from __future__ import annotations

import os

from pyrun.cgroups import mount
from pyrun.runtime.errors import Conflict, NotFound, PyrunError
from pyrun.runtime.kernel.syscalls import pidfd_open
from pyrun.runtime.oci import capabilities, json, plan, seccomp, spec, validate
from pyrun.runtime.oci import state as st
from pyrun.runtime.oci.launch import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.runtime.oci.spec import Process, Spec

#: CLONE_NEW* by the name under /proc/<pid>/ns
NAMESPACES = {
    "user": 0x10000000, "mnt": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "net": 0x40000000,
    "pid": 0x20000000, "cgroup": 0x2000000, "time": 0x80,
}  # fmt: skip


def load_config(root: st.StateRoot, container_id: str) -> Spec:
    """The configuration in the container's bundle. Raises NotFound, SpecError."""
    bundle = root.load(container_id).bundle
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            return spec.parse(json.loads(file.read(), "config.json"))
    except FileNotFoundError:
        raise NotFound(f"bundle {bundle}", "no such file or directory: config.json") from None


def exec_(
    root: st.StateRoot,
    container_id: str,
    config: Spec,
    process: Process,
    *,
    console: Callable[[int], None] | None = None,
    sub_cgroup: str = "",
    ignore_paused: bool = False,
    seccomp_cache: str = "",
) -> Launch:
    """Starts `process`; the Launch has its pid and pidfd, which the caller closes.

    `console` gets the terminal's master end before the program runs (the descriptor is closed afterwards); without it
    the program inherits 0, 1 and 2. Raises NotFound, Conflict ("container not running"), SpecError, StartError.
    """
    state = root.load(container_id)
    now = st.status(state, root.directory(container_id))
    if not (ignore_paused and now == st.PAUSED):
        st.require("exec in", container_id, now)
    validate.process_supported(process, "process")
    try:
        pidfd = pidfd_open(state.pid)
    except ProcessLookupError:
        raise Conflict(f"cannot exec in container {container_id}", "container not running") from None
    fds = {"pidfd": pidfd}
    try:
        flags = differing_namespaces(state.pid)
        fds["cgroup"] = open_cgroup(state.pid, sub_cgroup)
        wanted = plan.exec_plan(process, flags, _extras(container_id, config, process, flags, seccomp_cache))
        if st.pid_start_time(state.pid) != state.pid_start_time:  # what was looked up by its pid may be another's
            raise Conflict(f"cannot exec in container {container_id}", "container not running")
        launched = Launch(wanted, fds, cgroup_fd=fds["cgroup"])

        def give(process: Launch) -> None:
            fd = process.fds.pop("console")
            try:
                if console is not None:
                    console(fd)
            finally:
                os.close(fd)

        launched.run({}, {"console": give})
    except FileNotFoundError as error:  # /proc/<pid> has gone meanwhile
        raise Conflict(f"cannot exec in container {container_id}", "container not running") from error
    finally:
        for fd in fds.values():
            os.close(fd)
    return launched


def _extras(container_id: str, config: Spec, process: Process, flags: int, seccomp_cache: str) -> plan.Extras:
    caps = process.capabilities
    granted = None
    if caps is not None:
        granted, _ = capabilities.grantable(
            caps.bounding, caps.effective, caps.inheritable, caps.permitted, caps.ambient,
            last=capabilities.last_cap(), own=None if flags & NAMESPACES["user"] else capabilities.held(),
        )  # fmt: skip
    program = None
    if config.linux.seccomp is not None:
        bpf, filter_flags = seccomp.program(config.linux.seccomp, seccomp_cache)
        program = (filter_flags, bpf)
    return plan.Extras(seccomp=program, keyring=f"_ses.{container_id}", capabilities=granted)


def differing_namespaces(pid: int) -> int:
    """CLONE_NEW* of the namespaces in which process `pid` is not where we are. Raises FileNotFoundError."""
    flags = 0
    for name, flag in NAMESPACES.items():
        try:
            own = os.readlink(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # a kernel without time namespaces
        if os.readlink(f"/proc/{pid}/ns/{name}") != own:
            flags |= flag
    return flags


def open_cgroup(pid: int, below: str = "") -> int:
    """The cgroup that the container's init is in (it may have moved itself), or one `below` it. Raises PyrunError."""
    path = mount.find().directory(mount.own_path(pid) + (mount.clean(below, "--cgroup") if below else ""))
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PyrunError(f"open cgroup {path}", (error.strerror or "").lower()) from None
