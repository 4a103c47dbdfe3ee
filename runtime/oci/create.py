# SPDX-License-Identifier: Apache-2.0
"""create: a bundle becomes a process that waits for `start` (runtime.md, Lifecycle, steps 1 to 5).

By itself because it needs the spec, the plan and everything below them: 9 ms of imports, which start, state, kill and
delete (lifecycle.py) do without.
"""

from __future__ import annotations

import os
import time

from pyrun.cgroups.group import Cgroup
from pyrun.cgroups.mount import spec_path
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, StartError, Unsupported
from pyrun.runtime.oci import capabilities, json, plan, seccomp, spec, validate
from pyrun.runtime.oci import state as st
from pyrun.runtime.oci.launch import Launch, write_id_maps
from pyrun.runtime.oci.lifecycle import remove_directory
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.runtime.oci.spec import IDMapping, Spec

#: the kinds of hooks that are run, as config.json names them; a configuration with others is refused
HOOKS: tuple[str, ...] = ()


def create(
    root: st.StateRoot,
    container_id: str,
    bundle: str,
    *,
    pid_file: str = "",
    seccomp_cache: str = "",
    keyring: bool = True,
    console: Callable[[int], None] | None = None,
    pidfd: Callable[[int], None] | None = None,
) -> int:
    """Creates the container of the bundle; returns the pid of its init, which waits for `start`.

    `console` gets the master end of the terminal that a configuration with process.terminal asks for, `pidfd` the
    init's pidfd; both are closed afterwards. `keyring`: a session keyring of its own.

    Raises SpecError, Conflict, Unsupported, StartError; nothing is left behind then.
    """
    st.check_id(container_id)
    parsed = load_bundle(bundle)
    process = parsed.process
    if process is None:
        raise PyrunError("config.json: process", "is missing: there is nothing to run")
    if process.terminal and console is None:
        raise Conflict("config.json: process.terminal", "cannot allocate a terminal without --console-socket")
    if console is not None and not process.terminal:
        raise Conflict("config.json: process.terminal", "is not set, and --console-socket is given")
    if any(parsed.hooks.asdict().values()) and not HOOKS:
        raise Unsupported("config.json: hooks", "hooks are not supported yet")
    with Undo() as undo:
        directory = root.reserve(container_id)
        undo.on_failure(remove_directory, directory)
        cgroup = make_cgroup(parsed, container_id, undo)
        fifo = f"{directory}/exec.fifo"
        os.mkfifo(fifo, 0o622)
        launched = launch(
            parsed, bundle, cgroup, fifo, f"_ses.{container_id}" if keyring else "", seccomp_cache, console
        )
        undo.on_failure(launched.abort)
        root.save(
            st.OciState(
                id=container_id,
                bundle=bundle,
                rootfs=os.path.join(bundle, parsed.root.path) if parsed.root is not None else "",
                created=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z",
                pid=launched.pid,
                pid_start_time=st.pid_start_time(launched.pid),
                boot_id=st.boot_id(),
                cgroup=cgroup.directory,
                annotations=parsed.annotations or {},
            )
        )
        if pidfd is not None:
            pidfd(launched.pidfd)
        if pid_file:
            write_pid_file(pid_file, launched.pid)
        os.close(launched.pidfd)
    return launched.pid


def load_bundle(bundle: str) -> Spec:
    """The bundle's config.json, parsed and validated. Raises SpecError, NotFound."""
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            raw = json.loads(file.read(), "config.json")
    except FileNotFoundError:
        raise NotFound(f"bundle {bundle}", "no such file or directory: config.json") from None
    parsed = spec.parse(raw)
    validate.validate(parsed, bundle)
    return parsed


def make_cgroup(parsed: Spec, container_id: str, undo: Undo) -> Cgroup:
    """The container's cgroup with its limits and device program."""
    resources = parsed.linux.resources
    cgroup = Cgroup(spec_path(parsed.linux.cgroups_path, container_id))
    if resources is None:
        cgroup.create()
    else:
        cgroup.create(resources)
    undo.on_failure(cgroup.remove)
    if resources is not None:
        cgroup.apply(resources)
    # without rules of its own too: then only the devices that every container has may be used
    cgroup.allow_devices(() if resources is None else resources.devices)
    return cgroup


def launch(
    parsed: Spec,
    bundle: str,
    cgroup: Cgroup,
    fifo: str,
    keyring: str,
    seccomp_cache: str,
    console: Callable[[int], None] | None = None,
) -> Launch:
    """Starts pyrun-init, which is READY when this returns."""
    process = parsed.process
    assert process is not None
    assert parsed.root is not None
    caps = process.capabilities
    own = None if parsed.linux.namespace("user") is not None else capabilities.held()
    granted = None
    if caps is not None:
        granted, _ = capabilities.grantable(
            caps.bounding, caps.effective, caps.inheritable, caps.permitted, caps.ambient,
            last=capabilities.last_cap(), own=own,
        )  # fmt: skip
    program = None
    if parsed.linux.seccomp is not None:
        bpf, flags = seccomp.program(parsed.linux.seccomp, seccomp_cache)
        program = (flags, bpf)
    extras = plan.Extras(
        root_path=os.path.realpath(os.path.join(bundle, parsed.root.path)),
        seccomp=program,
        wait_for_start=True,
        keyring=keyring,
        capabilities=granted,
        cgroup_directory=cgroup.directory,
    )
    wanted = plan.plan(parsed, extras)
    cgroup_fd = cgroup.open_fd()
    fds = {"exec.fifo": os.open(fifo, os.O_PATH | os.O_CLOEXEC)}
    try:
        for name, path in wanted.joined:
            try:
                fds[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise StartError(f"open namespace {path}", (error.strerror or "").lower()) from None
        launched = Launch(wanted, fds, cgroup_fd=cgroup_fd)

        def map_ids(process: Launch) -> None:
            write_id_maps(process.pid, id_map(parsed.linux.uid_mappings), id_map(parsed.linux.gid_mappings))

        def give(process: Launch) -> None:
            fd = process.fds.pop("console")
            try:
                if console is not None:
                    console(fd)
            finally:
                os.close(fd)

        launched.run({plan.SYNC_IDS_MAPPED: map_ids}, {"console": give})
    finally:
        os.close(cgroup_fd)
        for fd in fds.values():
            os.close(fd)
    return launched


def id_map(mappings: tuple[IDMapping, ...]) -> str:
    """Lines for uid_map and gid_map."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)


def write_pid_file(path: str, pid: int) -> None:
    """Digits without a newline, made exclusively beside its name, then renamed: a reader sees all or nothing."""
    directory, name = os.path.split(os.path.abspath(path))
    temporary = f"{directory}/.{name}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, str(pid).encode("ascii"))
        os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
