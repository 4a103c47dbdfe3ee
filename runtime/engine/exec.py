# SPDX-License-Identifier: Apache-2.0
"""exec_(): another process in a container that runs. Runs in a worker of the monitor."""

from __future__ import annotations

import os

from pyrun.runtime import files
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.attach import Attach
from pyrun.runtime.engine.options import DETACH_KEYS
from pyrun.runtime.engine.start import seccomp_program, terminal_size
from pyrun.runtime.engine.stop import ended, open_process
from pyrun.runtime.errors import Conflict, UsageError
from pyrun.runtime.oci import capabilities, plan, spec
from pyrun.runtime.oci.exec import differing_namespaces, open_cgroup
from pyrun.runtime.oci.launch import Launch
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.users import User
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.oci.spec import Process, Spec
    from pyrun.runtime.paths import Paths


class ExecOptions(Record):
    """One `pyrun exec`: field names are docker's long flags."""

    command: tuple[str, ...]
    detach: bool = False
    interactive: bool = False
    tty: bool = False
    user: str = ""  # "" is the container's
    workdir: str = ""  # "" is the container's
    env: tuple[tuple[str, str], ...] = ()
    privileged: bool = False
    detach_keys: str = DETACH_KEYS


def exec_(paths: Paths, container_id: str, options: ExecOptions, link: WorkerLink) -> str:
    """Starts the process and hands it to the monitor; returns the session's id.

    Unless options.detach, the client of this request is attached when this worker ends. Raises Conflict when the
    container does not run or is paused; StartError when the program does not start (126, 127).
    """
    if not options.command:
        raise UsageError("exec", "no command")
    store = c.ContainerStore(paths)
    container = store.load(container_id)
    if store.load_state(container_id).status == c.PAUSED:
        raise Conflict(f"exec in {container.name}", "the container is paused", hint=f"pyrun unpause {container.name}")
    pidfd = open_process(store, container_id, "exec in")
    pid = store.load_state(container_id).pid
    fds = {"pidfd": pidfd}
    session_id = f"exec-{os.urandom(16).hex()}"
    try:
        parsed = spec.parse(files.read_json(f"{paths.container(container_id)}/config.json"))
        process = exec_process(parsed, container, options, pid)
        fds["cgroup"] = open_cgroup(pid)
        if not options.tty:
            open_pipes(fds, interactive=options.interactive)
        extras = exec_extras(paths, container_id, parsed, process, options)
        wanted = plan.exec_plan(process, differing_namespaces(pid), extras)
        if ended(pidfd, 0.0):  # then what was looked up by its pid may have been a later process's
            raise Conflict(f"exec in {container.name}", "container is not running")
        launch = Launch(wanted, fds, cgroup_fd=fds["cgroup"], clone_parent=True)

        def host_ready(started: Launch) -> None:
            given = {"pidfd": started.pidfd}
            if options.tty:
                given["tty"] = started.fds["console"]
            else:
                given |= {"stdout": fds["stdout-other"], "stderr": fds["stderr-other"]}
                if options.interactive:
                    given["stdin"] = fds["stdin-other"]
            link.adopt(exec_session(session_id, started.pid, options), given)

        launch.run({plan.SYNC_HOST_READY: host_ready})
        os.close(launch.pidfd)
        for fd in launch.fds.values():
            os.close(fd)
    finally:
        for fd in fds.values():
            os.close(fd)
    link.started(session_id)
    return session_id


def exec_session(session_id: str, pid: int, options: ExecOptions) -> dict[str, Any]:
    """What the monitor has to know (WorkerLink.adopt)."""
    attach = None if options.detach else Attach(stdin=options.interactive, detach_keys=options.detach_keys).request()
    return {
        "id": session_id, "kind": "exec", "tty": options.tty, "pid": pid, "log": None,
        "stdin": "once" if options.interactive else "none", "attach": attach,
    }  # fmt: skip


def exec_process(parsed: Spec, container: c.Container, options: ExecOptions, pid: int) -> Process:
    """The container's process with what was asked for on top: user, directory, environment, privileges."""
    base = parsed.process
    assert base is not None
    user = base.user
    env = dict(item.partition("=")[::2] for item in base.env)
    if options.user:
        found = lookup_user(options.user, pid)
        user = user.replace(uid=found.uid, gid=found.gid, additional_gids=found.additional_gids)
        env["HOME"] = found.home or "/"
    if options.tty:
        env.setdefault("TERM", "xterm")
    env.update(options.env)
    caps = base.capabilities
    assert caps is not None
    names = capabilities.names(capabilities.held().permitted) if options.privileged else caps.bounding
    effective = names if user.uid == 0 else ()
    return base.replace(
        args=options.command,
        cwd=os.path.normpath(os.path.join(container.workdir or "/", options.workdir)),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        user=user,
        terminal=options.tty,
        console_size=None,
        capabilities=caps.replace(bounding=names, effective=effective, permitted=effective),
    )


def lookup_user(user: str, pid: int) -> User:
    """The ids of `-u` by the running container's /etc/passwd and /etc/group, read below its root's descriptor."""
    from pyrun.rootfs import users

    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return users.of_root(root_fd, user)
    finally:
        os.close(root_fd)


def exec_extras(paths: Paths, container_id: str, parsed: Spec, process: Process, options: ExecOptions) -> plan.Extras:
    """What the plan needs: streams, the container's filter, the capabilities that can be given."""
    caps = process.capabilities
    assert caps is not None
    granted, _ = capabilities.grantable(
        caps.bounding, caps.effective, caps.inheritable, caps.permitted, caps.ambient,
        last=capabilities.last_cap(), own=capabilities.held(),
    )  # fmt: skip
    rows, columns = terminal_size() if options.tty else (0, 0)
    return plan.Extras(
        rows=rows,
        columns=columns,
        stdio=None if options.tty else ("stdin", "stdout", "stderr"),
        seccomp=seccomp_program(paths, parsed),
        host_ready=True,
        keyring=container_id[:12],  # not the monitor's: it has the keys of whoever started that
        capabilities=granted,
    )


def open_pipes(fds: dict[str, int], *, interactive: bool) -> None:
    """Pipes for the process's streams, the other ends under "…-other"; /dev/null for stdin unless interactive."""
    for name in ("stdout", "stderr"):
        fds[f"{name}-other"], fds[name] = os.pipe2(os.O_CLOEXEC)
    if interactive:
        fds["stdin"], fds["stdin-other"] = os.pipe2(os.O_CLOEXEC)
    else:
        fds["stdin"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
