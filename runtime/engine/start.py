# SPDX-License-Identifier: Apache-2.0
"""start(): a container on disk becomes a process. Runs in a worker of the monitor, whose child the process becomes.

prepare()      asks the machine, writes config.json, makes the plan           (also what --explain shows)
Start.run()    cgroup, streams, clone3; the host side's work at the plan's sync points; hands over to the monitor
finish()       what is left when the process has ended: run by the monitor's finisher
"""

from __future__ import annotations

import os

from pyrun.cgroups import oom
from pyrun.cgroups.group import Cgroup
from pyrun.runtime import files
from pyrun.runtime.engine import config, network
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.attach import Attach
from pyrun.runtime.engine.create import now
from pyrun.runtime.engine.resolve import resolve
from pyrun.runtime.errors import Conflict, PyrunError, StartError
from pyrun.runtime.events import step
from pyrun.runtime.oci import capabilities, json, plan, seccomp, spec, steps, validate
from pyrun.runtime.oci.launch import Launch
from pyrun.runtime.record import Record
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.oci.plan import Extras, Plan
    from pyrun.runtime.oci.spec import Spec
    from pyrun.runtime.paths import Paths

STDIO = ("stdin", "stdout", "stderr")


class Prepared(Record):
    """Everything that is known before anything is done."""

    container: c.Container
    spec: Spec
    plan: Plan
    root_dirs: tuple[str, ...]  # the overlay's directories, upper first
    uid: int
    gid: int


def prepare(
    paths: Paths,
    container: c.Container,
    layers: tuple[str, ...],
    *,
    write: bool = True,
    instead: tuple[tuple[str, steps.Step], ...] = (),
) -> Prepared:
    """The spec and the plan of a container; writes its config.json, unless it is only looked at.

    `layers` are the image's unpacked layers, lowest first; `instead` as in plan.Extras. Raises what resolve() and
    validate() raise.
    """
    directory = paths.container(container.id)
    root_dirs = (f"{directory}/upper", *reversed(layers))
    # a container that is only looked at has no upper directory yet
    resolved = resolve(paths, container, root_dirs if write else root_dirs[1:])
    raw = config.oci_config(paths, container, resolved)
    parsed = spec.parse(raw)
    for check in validate.CHECKS:  # those of the host's files would ask for a root directory that only the plan makes
        check(parsed)
    if write:
        files.write_atomic(f"{directory}/config.json", config_text(raw), sync=False)
    return Prepared(
        container=container,
        spec=parsed,
        plan=plan.plan(parsed, extras(paths, container, parsed, root_dirs).replace(instead=instead)),
        root_dirs=root_dirs,
        uid=resolved.uid,
        gid=resolved.gid,
    )


def config_text(raw: dict[str, Any]) -> bytes:
    """config.json with an item to a line, but the seccomp profile on one: nobody reads its 400 lines, and indenting
    them is most of the cost (json indents in pure Python: 5 ms; this way 0.7)."""
    import json as stdlib_json

    linux = {**raw["linux"], "seccomp": None}
    text = json.dumps({**raw, "linux": linux}, indent=1)
    return text.replace('"seccomp": null', f'"seccomp": {stdlib_json.dumps(raw["linux"].get("seccomp"))}', 1).encode()


def extras(paths: Paths, container: c.Container, parsed: Spec, root_dirs: tuple[str, ...], work: str = "") -> Extras:
    """What the plan needs beyond config.json. `work`: the overlay's, if it is not in the container's directory."""
    options = container.options
    directory = paths.container(container.id)
    process = parsed.process
    assert process is not None
    caps = process.capabilities
    assert caps is not None  # config.py writes both
    granted, _ = capabilities.grantable(
        caps.bounding, caps.effective, caps.inheritable, caps.permitted, caps.ambient,
        last=capabilities.last_cap(), own=capabilities.held(),
    )  # fmt: skip
    rows, columns = terminal_size() if options.tty else (0, 0)
    return plan.Extras(
        rows=rows,
        columns=columns,
        # an upper directory is read without the kernel too (rootfs/layered.py): no redirects, no metadata-only copies
        overlay=steps.RootOverlay(
            f"{directory}/rootfs",
            root_dirs[1:],
            root_dirs[0],
            work or f"{directory}/work",
            "redirect_dir=nofollow,metacopy=off",
        ),
        seccomp=seccomp_program(paths, parsed),
        stdio=None if options.tty else STDIO,
        host_ready=True,  # the monitor must have the process before the program runs
        netlink=network.is_bridge(options),
        reaper=options.init,
        keyring=container.short_id,
        capabilities=granted,
        cgroup_directory=Cgroup(container.cgroup_path).directory,
    )


def terminal_size() -> tuple[int, int]:
    """Rows and columns of the user's terminal, before the program can ask for them; 0, 0 without one (a restart)."""
    for fd in (0, 1, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return size.lines, size.columns
    return 0, 0


def seccomp_program(paths: Paths, parsed: Spec) -> tuple[int, bytes] | None:
    """The compiled filter, from the cache below the data root."""
    if parsed.linux.seccomp is None:
        return None
    bpf, flags = seccomp.program(parsed.linux.seccomp, f"{paths.data}/cache/seccomp")
    return flags, bpf


def start(
    paths: Paths, container_id: str, link: WorkerLink, *, attach: Attach | None = None, restart: bool = False
) -> c.Container:
    """Starts a container that does not run. When this returns, the user's program is running.

    Args:
        link: this worker's line to the monitor.
        attach: which streams the client of this request wants, None for none.
        restart: by the restart policy: counts.

    Raises Conflict when it runs already; StartError and others leave it as it was, with the error in its state.
    """
    store = c.ContainerStore(paths)
    container = store.load(container_id)
    begun: Start | None = None
    try:
        with store.busy(), store.lock(container_id):
            state = store.load_state(container_id)
            if state.running and state.status != c.RESTARTING and c.process_exists(state):
                raise Conflict(f"start {container.name}", f"it is {state.status} already")
            begun = Start(paths, store, container, state, link)
            try:
                begun.run(attach, restart=restart)
            except BaseException as error:
                begun.record_failure(error)
                raise
    except BaseException:
        if begun is not None:
            begun.let_go()
        raise
    return container


class Start:
    """One start, with everything that must be undone if it fails."""

    def __init__(
        self, paths: Paths, store: c.ContainerStore, container: c.Container, state: c.State, link: WorkerLink
    ) -> None:
        self.paths = paths
        self.store = store
        self.container = container
        self.state = state
        self.link = link
        self.run_directory = paths.running(container.id)
        self.network: network.Connection | None = None
        self.before = state
        self.handed_over = False

    def run(self, attach: Attach | None, *, restart: bool) -> None:
        """See start()."""
        prepared = self.prepare()
        with Undo() as undo:
            cgroup = make_cgroup(prepared, undo)
            self.network = network.connection(self.paths, self.container, undo)
            fds = self.open_streams(prepared, undo)
            try:
                cgroup_fd = cgroup.open_fd()
                fds["cgroup"] = cgroup_fd
                for name, path in prepared.plan.joined:
                    fds[name] = open_namespace(path)
                launch = Launch(prepared.plan, fds, cgroup_fd=cgroup_fd, clone_parent=True)

                def host_ready(process: Launch) -> None:
                    self.finish_network(process)
                    self.hand_over(process, fds, attach, restart=restart)

                launch.run(
                    {plan.SYNC_HOST_READY: host_ready, plan.SYNC_IDS_MAPPED: self.map_ids},
                    {"netlink": self.connect},
                )
                os.close(launch.pidfd)
                for fd in launch.fds.values():
                    os.close(fd)
            finally:
                for fd in fds.values():
                    os.close(fd)
        self.settle()
        self.link.started(self.container.id)

    def settle(self) -> None:
        """From here on the container stays, whatever becomes of this process."""
        if not self.state.unfinished:
            return
        self.state = self.state.replace(unfinished=False)
        try:
            self.store.save_state(self.container.id, self.state, sync=False)
        except OSError:
            pass  # a full disk is no reason to end a program that runs: recover() puts this right

    def record_failure(self, error: BaseException) -> None:
        """What the state says after a start that failed or was interrupted; all else is undone already."""
        code = getattr(error, "code", 125)
        text = str(error) if isinstance(error, Exception) else "the start was interrupted"
        status = c.CREATED if self.before.started_at == c.NEVER else c.EXITED
        state = self.before.replace(status=status, pid=0, exit_code=code, error=text, endpoint=None, ports=())
        try:
            self.store.save_state(self.container.id, state)
        except OSError as problem:  # a full disk
            error.add_note(f"clean-up: {problem}")

    def let_go(self) -> None:
        """Waits until the monitor has let go of a process that failed after the hand-over, and of its ports."""
        if self.handed_over:
            try:
                self.link.wait(self.container.id)
            except (PyrunError, OSError):
                pass  # it has already, or is gone itself

    def prepare(self) -> Prepared:
        """The plan; volumes filled, the files of /etc written."""
        from pyrun.rootfs.store import ImageStore

        images = ImageStore(self.paths)
        image = images.resolve(self.container.image_id)
        with step("rootfs", f"layers of image {image.id[7:19]}: {len(image.layers)}"):
            layers = images.unpacked(image)
        self.fill_volumes(layers)
        # before the plan binds them; the address is written when it is known
        network.write_etc_files(self.paths, self.container, None)
        return prepare(self.paths, self.container, layers)

    def fill_volumes(self, layers: tuple[str, ...]) -> None:
        """The image's files at a volume's mount point go into the volume while it is empty."""
        wanted = [point for point in self.container.mounts if point.type == "volume" and not point.nocopy]
        if not wanted:
            return
        from pyrun.rootfs.volumes import VolumeStore

        volumes = VolumeStore(self.paths)
        for point in wanted:
            volumes.copy_up(volumes.get(point.name), tuple(reversed(layers)), point.target)

    def open_streams(self, prepared: Prepared, undo: Undo) -> dict[str, int]:
        """FIFOs for the program's output, which it holds open read-write itself, so that no death of a reader makes
        a SIGPIPE; a FIFO or /dev/null for its input. Nothing with a terminal."""
        options = self.container.options
        files.private_dir(self.run_directory)
        fds: dict[str, int] = {}
        if options.tty:
            return fds
        try:
            for name in ("stdout", "stderr") + (("stdin",) if options.interactive else ()):
                path = f"{self.run_directory}/{name}"
                make_fifo(path, undo)
                fds[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                os.fchown(fds[name], prepared.uid, prepared.gid)  # the program may open /dev/stdout again
                # for reading only, or the monitor would never see its end
                fds[f"{name}-other"] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            if options.interactive:
                # the program's end is for reading only, so that it sees the end of its input
                read_only = os.open(f"{self.run_directory}/stdin", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                os.close(fds["stdin"])
                fds["stdin"] = read_only
                os.close(fds["stdin-other"])
                fds["stdin-other"] = os.open(
                    f"{self.run_directory}/stdin", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
                )
            else:
                fds["stdin"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            for fd in fds.values():
                os.close(fd)
            raise
        return fds

    def map_ids(self, process: Launch) -> None:
        """For a user namespace of its own (not on the command line yet)."""
        raise StartError("map ids", "no mapping is configured")

    def connect(self, process: Launch) -> None:
        """The container's end of the network, while pyrun-init goes on with the mounts."""
        if self.network is not None:
            self.network.attach(process.fds["netlink"])

    def finish_network(self, process: Launch) -> None:
        """What must be there before the program runs: port maps, addresses in /etc/hosts."""
        if self.network is not None:
            self.network.publish()
            network.write_etc_files(self.paths, self.container, self.network.endpoint)

    def hand_over(self, process: Launch, fds: dict[str, int], attach: Attach | None, *, restart: bool) -> None:
        """The state says running, the monitor has the process and its streams; then the program may run."""
        options = self.container.options
        endpoint, ports = (self.network.endpoint, self.network.ports) if self.network is not None else (None, ())
        self.state = self.state.replace(
            status=c.RUNNING, pid=process.pid, pid_start_time=c.pid_start_time(process.pid), boot_id=c.boot_id(),
            exit_code=0, started_at=now(), oom_killed=False, error="", stopped_by_user=False,
            restart_count=self.state.restart_count + 1 if restart else 0,
            endpoint=None if endpoint is None else endpoint.asdict(), ports=ports,
            oom_before=oom.marks(Cgroup(self.container.cgroup_path)),
        )  # fmt: skip
        self.store.save_state(self.container.id, self.state, sync=False)
        given = {"pidfd": process.pidfd}
        if options.tty:
            given["tty"] = process.fds["console"]
        else:
            given |= {"stdout": fds["stdout-other"], "stderr": fds["stderr-other"]}
            if options.interactive:
                given["stdin"] = fds["stdin-other"]
        self.handed_over = True
        with step("monitor", f"hand over process {process.pid}"):
            self.link.adopt(session(self.container, process.pid, attach), given)
            if self.network is not None:
                self.network.hold(self.link)


def session(container: c.Container, pid: int, attach: Attach | None) -> dict[str, Any]:
    """What the monitor has to know of a container (WorkerLink.adopt)."""
    options = container.options
    log = None if options.log_driver == "none" else {"dir": container.log_path, **log_limits(options.log_opts)}
    stdin = "none" if not options.interactive else "once" if attach is not None and attach.stdin else "open"
    return {
        "id": container.id, "kind": "container", "tty": options.tty, "pid": pid, "log": log, "stdin": stdin,
        "attach": None if attach is None else attach.request(),
    }  # fmt: skip


def log_limits(log_opts: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """max-size and max-file of --log-opt as numbers; 10 MiB x 3 by default, so that no log fills a disk."""
    from pyrun.runtime.engine.humanize import parse_size

    given = dict(log_opts)
    return {
        "max_size_bytes": parse_size(given.get("max-size", "10m")),
        "max_files": int(given.get("max-file", "3")),
    }


def make_cgroup(prepared: Prepared, undo: Undo) -> Cgroup:
    """The cgroup with its limits and device program, before there is a process in it."""
    resources = prepared.spec.linux.resources
    cgroup = Cgroup(prepared.container.cgroup_path)
    if cgroup.exists():  # a start that was killed may have left it, with processes
        remove_cgroup(cgroup)
    if resources is None:
        cgroup.create()
    else:
        cgroup.create(resources)
    undo.on_failure(remove_cgroup, cgroup)
    if resources is not None:
        cgroup.apply(resources)
        cgroup.allow_devices(resources.devices)
    return cgroup


def open_namespace(path: str) -> int:
    """A descriptor of a namespace to join. Raises StartError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"open namespace {path}", (error.strerror or "").lower(), errno=error.errno or 0) from None


def make_fifo(path: str, undo: Undo) -> None:
    """A new, empty FIFO; an old one of an earlier run goes."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mkfifo(path, 0o600)
    undo.on_failure(os.unlink, path)


def remove_cgroup(cgroup: Cgroup) -> None:
    """Kills what is in it and removes it."""
    cgroup.kill()
    cgroup.remove()
