# SPDX-License-Identifier: Apache-2.0
"""execute(): one RUN of a build, in a container.

The container is on disk as every container is, so that recover() finds what a kill left; but it belongs to this worker
(State.owner), is its child, and its output comes by plain pipes. Several run at a time, from any thread.

    scratch.fs     the upper directory: what the step changes, and nothing else
    stubs/         mount points that the image does not have (stubs.py)
    request.lowers the layers below
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import threading

from pyrun.cgroups import mount as cgroup_mount
from pyrun.cgroups import oom
from pyrun.cgroups.group import Cgroup
from pyrun.runtime import events
from pyrun.runtime.engine import config, network
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.build import mounts, stubs
from pyrun.runtime.engine.build.failure import Cancelled
from pyrun.runtime.engine.create import now
from pyrun.runtime.engine.finish import exit_code
from pyrun.runtime.engine.options import RunOptions, Ulimit
from pyrun.runtime.engine.remove import discard
from pyrun.runtime.engine.resolve import resolve
from pyrun.runtime.engine.start import STDIO, Prepared, extras, make_cgroup
from pyrun.runtime.errors import PyrunError, UsageError
from pyrun.runtime.kernel.syscalls import wait_pidfd
from pyrun.runtime.oci import plan, spec, validate
from pyrun.runtime.oci.launch import Launch
from pyrun.runtime.record import Record
from pyrun.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.rootfs.claims import Scratch
    from pyrun.runtime.engine.build.mounts import RunMount
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

    Output = Callable[[str, bytes], None]

HOSTNAME = "buildkitsandbox"  # docker's; programs write it down
NETWORK_HOST, SECURITY_INSECURE = "network.host", "security.insecure"
LOOK_S = 0.05  # how often a running step is asked whether it is still wanted
CHUNK = 64 << 10
FIONREAD = 0x541B  # <asm/ioctls.h>: how many bytes can be read

# What a start shares with others of this process: nftables contexts, temporary names of files with our pid in them.
_one_start = threading.Lock()


class RunRequest(Record):
    """One step as it is to run. `env` is complete; `lowers` are layer directories, lowest first; sizes are bytes."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()  # NAME=value
    workdir: str = "/"
    user: str = ""
    lowers: tuple[str, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"  # default | none | host | a network's name
    insecure: bool = False  # --security=insecure
    entitlements: tuple[str, ...] = ()  # what --allow gave: "network.host", "security.insecure"
    add_hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = HOSTNAME
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    memory: int | None = None
    memory_swap: int | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    stdin: bytes = b""
    title: str = ""  # for messages: "RUN pip install …"


class RunResult(Record):
    """How the step ended: its exit code, 128+N for death by signal N; who ran out of memory, "" for nobody."""

    exit_code: int
    oom: str = ""


def execute(
    paths: Paths,
    request: RunRequest,
    scratch: Scratch,
    output: Output,
    *,
    cancel: threading.Event,
    link: WorkerLink | None = None,
) -> RunResult:
    """Runs the step to its end; what it changed is in `scratch.fs` then, and everything else of it is gone.

    Args:
        scratch: `fs` is empty.
        output: called in this thread with "stdout" or "stderr" and what was written there.
        cancel: when it is set, the step is killed.
        link: this worker's line to the monitor, which gives the address back a moment later; without it that is done
            here, and takes 20 ms.

    Raises Cancelled; UsageError, Unsupported, NotFound for what cannot be had; StartError, PyrunError, OSError, and
    what `output` raises.
    """
    run = _Run(paths, request, scratch, cancel, link)
    try:
        run.start()
        return run.follow(output)
    finally:
        run.end()


def check(paths: Paths, request: RunRequest) -> None:
    """Refuses what cannot be had, before anything is made. Raises UsageError, Unsupported."""
    from pyrun.runtime.engine import check as checks

    needed = [(SECURITY_INSECURE, request.insecure), (NETWORK_HOST, request.network == "host")]
    for entitlement, asked in needed:
        if asked and entitlement not in request.entitlements:
            option = "--security=insecure" if entitlement == SECURITY_INSECURE else "--network=host"
            raise UsageError(f"RUN {option}", "not allowed for this build", hint=f"pyrun build --allow {entitlement}")
    mounts.check(request.mounts)
    options = options_of(request)
    for one in (checks.system, checks.modes, checks.network, checks.limits, checks.limit_controllers, checks.ulimits):
        one(paths, options)


def options_of(request: RunRequest) -> RunOptions:
    """The request in the words of `run`."""
    hostname = request.hostname or HOSTNAME
    # on a bridge the name is the container's address; elsewhere, as in docker's builds, the loopback's
    own = ((hostname, "127.0.0.1"),) if request.network in network.OTHERS else ()
    return RunOptions(
        image="",
        rm=True,
        network="bridge" if request.network == "default" else request.network,
        privileged=request.insecure,
        add_hosts=(*request.add_hosts, *own),
        hostname=hostname,
        shm_size=request.shm_size,
        ulimits=request.ulimits,
        cgroup_parent=request.cgroup_parent,
        memory=request.memory,
        memory_swap=request.memory_swap,
        cpu_shares=request.cpu_shares,
        cpu_period=request.cpu_period,
        cpu_quota=request.cpu_quota,
        cpuset_cpus=request.cpuset_cpus,
        cpuset_mems=request.cpuset_mems,
        log_driver="none",
    )


def describe(paths: Paths, request: RunRequest) -> c.Container:
    """The record of the step's container."""
    container_id = c.new_id()
    return c.Container(
        id=container_id,
        name="",
        created=now(),
        image_id="",
        image_ref=request.title,
        path=request.argv[0],
        args=request.argv[1:],
        options=options_of(request),
        env=request.env,
        workdir=os.path.normpath(os.path.join("/", request.workdir or "/")),
        user=request.user,
        hostname=request.hostname or HOSTNAME,
        cgroup_path=cgroup_mount.container_path(
            container_id, instance=paths.instance, parent=request.cgroup_parent
        ),
    )  # fmt: skip


class _Run:
    """One step, from its record to its removal. end() works after a start that failed anywhere."""

    def __init__(
        self, paths: Paths, request: RunRequest, scratch: Scratch, cancel: threading.Event, link: WorkerLink | None
    ) -> None:
        self.paths = paths
        self.request = request
        self.scratch = scratch
        self.cancel = cancel
        self.link = link
        self.store = c.ContainerStore(paths)
        self.container = describe(paths, request)
        self.directory = paths.container(self.container.id)
        self.arranged = mounts.Arranged()
        self.network: network.Connection | None = None
        self.fds: dict[str, int] = {}
        self.pidfd = -1
        self.status: int | None = None  # as os.WIFEXITED reads it
        self.oom_before: dict[str, int] = {}
        self.recorded = False

    def stop_if_cancelled(self) -> None:
        """Raises Cancelled."""
        if self.cancel.is_set():
            raise Cancelled(self.request.title or "RUN", "cancelled")

    # ---- start

    def start(self) -> None:
        """When this returns, the program is running."""
        check(self.paths, self.request)
        self.make_record()
        # may wait for another step's cache: recover() must not wait for us meanwhile
        self.arranged = mounts.arrange(self.paths, self.container.id, self.request.mounts, self.cancel)
        with Undo() as undo, self.store.busy():
            with _one_start:
                self.stop_if_cancelled()
                prepared = self.prepare()
                cgroup = make_cgroup(prepared, undo)
                self.network = network.connection(self.paths, self.container, undo)
            self.launch(prepared, cgroup)

    def make_record(self) -> None:
        """The container is on disk, with an owner; recover() leaves it alone as long as that lives."""
        with self.store.busy():
            self.recorded = True
            self.store.create(self.container, c.owned_by(os.getpid()))
            for name in ("rootfs", "stubs"):
                os.mkdir(f"{self.directory}/{name}", 0o755)

    def prepare(self) -> Prepared:
        """The spec and the plan; mount points and the files of /etc are made."""
        request, container = self.request, self.container
        self.container = container = container.replace(mounts=tuple(self.arranged.points))
        network.write_etc_files(self.paths, container, None)
        lowers_first = tuple(reversed(request.lowers))
        resolved = resolve(self.paths, container, lowers_first)
        targets = [(path, True) for path in stubs.DIRECTORIES]
        targets += [(path, False) for _, path in resolved.etc_files]
        stubs.make(f"{self.directory}/stubs", request.lowers, [*targets, *self.arranged.targets])
        stubs.like_below(self.scratch.fs, request.lowers)
        raw = config.oci_config(self.paths, container, resolved)
        raw["process"]["env"] += self.arranged.env  # here, and not in the record: there are secrets in it
        parsed = spec.parse(raw)
        for one in validate.CHECKS:
            one(parsed)
        root_dirs = (self.scratch.fs, f"{self.directory}/stubs", *lowers_first)
        more = extras(self.paths, container, parsed, root_dirs, self.scratch.make_work())
        assert more.overlay is not None
        overlay = more.overlay.replace(options=mounts.OVERLAY_OPTIONS)
        more = more.replace(overlay=overlay, instead=tuple(self.arranged.instead))
        return Prepared(container, parsed, plan.plan(parsed, more), root_dirs, resolved.uid, resolved.gid)

    def launch(self, prepared: Prepared, cgroup: Cgroup) -> None:
        """The process, until it has become the program."""
        self.oom_before = oom.marks(cgroup)
        self.open_streams(prepared)
        self.fds["cgroup"] = cgroup.open_fd()
        process = Launch(prepared.plan, self.fds, cgroup_fd=self.fds["cgroup"])
        process.run({plan.SYNC_HOST_READY: self.host_ready, plan.SYNC_IDS_MAPPED: _no_ids}, {"netlink": self.connect})
        self.pidfd = process.pidfd
        for fd in process.fds.values():
            os.close(fd)
        for name in ("cgroup", *STDIO):  # the program's ends, or we would never see theirs
            os.close(self.fds.pop(name))

    def open_streams(self, prepared: Prepared) -> None:
        """Pipes for the output, which the program may open again as /dev/stdout; a file for the input."""
        for name in ("stdout", "stderr"):
            self.fds[f"{name}-ours"], self.fds[name] = os.pipe2(os.O_CLOEXEC)
            os.fchown(self.fds[name], prepared.uid, prepared.gid)
            os.set_blocking(self.fds[f"{name}-ours"], False)
        if not self.request.stdin:
            self.fds["stdin"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            return
        self.fds["stdin"] = os.memfd_create("pyrun-stdin", os.MFD_CLOEXEC)
        view = memoryview(self.request.stdin)
        while view:
            view = view[os.write(self.fds["stdin"], view) :]
        os.lseek(self.fds["stdin"], 0, os.SEEK_SET)

    def connect(self, process: Launch) -> None:
        """The container's end of the network, while pyrun-init goes on with the mounts."""
        if self.network is not None:
            self.network.attach(process.fds["netlink"])

    def host_ready(self, process: Launch) -> None:
        """Addresses in /etc/hosts; the state has the process; then the program may run."""
        self.stop_if_cancelled()
        endpoint = None
        if self.network is not None:
            endpoint = self.network.endpoint
            network.write_etc_files(self.paths, self.container, endpoint)
        state = c.owned_by(os.getpid()).replace(
            status=c.RUNNING, pid=process.pid, pid_start_time=c.pid_start_time(process.pid), started_at=now(),
            endpoint=None if endpoint is None else endpoint.asdict(),
        )  # fmt: skip
        self.store.save_state(self.container.id, state, sync=False)

    # ---- while it runs

    def follow(self, output: Output) -> RunResult:
        """Hands on what the program writes, until it has ended. Raises Cancelled."""
        poll = select.poll()
        streams = {self.fds[f"{name}-ours"]: name for name in ("stdout", "stderr")}
        for fd in (*streams, self.pidfd):
            poll.register(fd, select.POLLIN)
        ended = False
        while not ended:
            self.stop_if_cancelled()
            for fd, _ in poll.poll(LOOK_S * 1000):
                if fd == self.pidfd:
                    ended = True  # and with PID 1 all others: what they wrote is in the pipes
                elif not self.pass_on(fd, streams[fd], output):
                    poll.unregister(fd)
                    del streams[fd]
        for fd, name in streams.items():  # what is there now: another step may have got hold of the other end
            left = int.from_bytes(fcntl.ioctl(fd, FIONREAD, bytes(4)), sys.byteorder)
            while left > 0 and (data := os.read(fd, min(left, CHUNK))):
                left -= len(data)
                output(name, data)
        self.status = wait_pidfd(self.pidfd)
        killed = oom.out_of_memory(Cgroup(self.container.cgroup_path), self.oom_before)
        code = exit_code(os.waitstatus_to_exitcode(self.status or 0))
        return RunResult(code or 0, "" if killed is None else str(killed))

    def pass_on(self, fd: int, name: str, output: Output) -> bool:
        """Whether there was something to read."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if data:
            output(name, data)
        return bool(data)

    # ---- end

    def end(self) -> None:
        """Everything of the step is gone: processes, cgroup, address, files. Failures become warnings."""
        for what, action in (
            ("processes", self.kill),
            ("cgroup", self.remove_cgroup),
            ("streams", self.close),
            ("caches", self.arranged.close),
            ("files", self.remove_files),
            ("network", self.leave_network),
        ):
            try:
                action()
            except (PyrunError, OSError) as error:
                events.warn(f"clean-up of {what} of a build step: {error}")

    def kill(self) -> None:
        """Ends what still runs, and reaps our child."""
        if self.pidfd >= 0 and self.status is None:
            Cgroup(self.container.cgroup_path).kill()
            self.status = wait_pidfd(self.pidfd)

    def remove_cgroup(self) -> None:
        """Nothing is in it any more, but for a step whose start failed half-way."""
        cgroup = Cgroup(self.container.cgroup_path)
        if cgroup.exists():
            cgroup.kill()
            cgroup.remove()

    def close(self) -> None:
        """Our descriptors."""
        for fd in (*self.fds.values(), *([self.pidfd] if self.pidfd >= 0 else [])):
            os.close(fd)
        self.fds.clear()
        self.pidfd = -1

    def remove_files(self) -> None:
        """The container is forgotten. If we are killed here, recover() removes the rest."""
        if self.recorded:
            discard(self.paths, self.container.id, None, volumes=False)

    def leave_network(self) -> None:
        """Gives the address back, at once or (with a monitor) a moment later."""
        if self.network is None:
            return
        from pyrun.netns import attach

        if self.link is not None:
            network.ask_for_sweep(self.link)
        else:
            attach.detach(self.paths, self.network.network.name, self.container.id)


def _no_ids(process: Launch) -> None:
    raise PyrunError("map ids", "no mapping is configured")
