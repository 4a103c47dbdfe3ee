# SPDX-License-Identifier: Apache-2.0
"""RUN as a step: the command, what it sees, what it is allowed, and the key of all that.

Into the key go the command, ENV and ARG, user and directory, mounts with the content of what they show, network and
host entries. Not in it, as in BuildKit: proxies, limits, what is in a cache mount, what a secret says. Whether an
optional secret is there is in it.
"""

from __future__ import annotations

import os

from pyrun.rootfs.build import steps as s
from pyrun.rootfs.build.instructions import script
from pyrun.rootfs.build.platforms import PROXIES
from pyrun.rootfs.build.runmount import Mount, parse_mount
from pyrun.runtime.errors import NotFound, Unsupported, UsageError

from .cache import key_of
from .failure import StepFailed
from .making import CACHE_MOUNT, REGULAR, Prepared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.claims import Scratch

    from .execute import RunRequest
    from .graph import Node
    from .mounts import RunMount
    from .progress import Vertex
    from .stage import State
    from .work import Source

PIPES = "/dev/pipes"  # where BuildKit puts the script of a heredoc
SECRETS = "/run/secrets"
MAX_SECRET = 500 << 10  # bytes: BuildKit's limit
LAST_WORDS = 20  # lines of output in the message of a failure


def prepare_run(step: s.Run, state: State, node: Node) -> Prepared | None:
    """RUN; None while probing, when what a mount shows is not there yet. Raises UsageError, NotFound, Unsupported."""
    run = _Run(step, state, node)
    if not run.find_mounts():
        return None
    kind = CACHE_MOUNT if any(mount.type == "cache" for mount in run.mounts) else REGULAR
    key = run.key()
    return Prepared(step.at.original, run.created_by(), (lambda: key,), run.fill, kind=kind)


class _Run:
    def __init__(self, step: s.Run, state: State, node: Node) -> None:
        self.step = step
        self.node = node
        self.work = node.work
        if step.devices:
            raise Unsupported("RUN --device", "pyrun does not know CDI devices", hint="leave it out of this step")
        self.script = script(step)
        self.argv = (*state.shell, *self.script.args) if self.script.shell else self.script.args
        # what the step depends on, as it is now: the state goes on
        self.parent = state.chain_id
        self.env = dict(state.env)
        self.args = dict(state.seen)
        self.declared = {name: state.lookup(name) or "" for name in state.args if name not in PROXIES}
        self.hidden = {name: value for name, value in state.hidden.items() if name not in self.env}
        self.workdir = state.workdir
        self.user = state.user
        self.platform = [str(state.document.get(name, "")) for name in ("os", "architecture", "variant")]
        self.lookup = state.lookup
        self.absolute = state.path
        self.mounts: list[Mount] = []
        self.sources: list[Source | None] = []
        self.mount_keys: list[Any] = []

    # Mounts -------------------------------------------------------------------------------------------------------

    def find_mounts(self) -> bool:
        """Finds what each mount shows; False while probing, when something is not there yet."""
        for text in self.step.mounts:
            mount = parse_mount(text, self.lookup, escape=self.step.at.escape)
            if mount.target:
                mount = mount.replace(target=self.absolute(mount.target).rstrip("/") or "/")
            if mount.type == "secret" and not self._secret_is_there(mount):
                self.mount_keys.append([text, "absent"])
                continue
            if mount.type == "ssh" and not self._agent_is_there(mount):
                self.mount_keys.append([text, "absent"])
                continue
            source: Source | None = None
            if mount.from_:
                source = self.node.graph.source(mount.from_, self.node)
                if source is None:
                    return False
            elif mount.type == "bind":
                source = self.work.context_source()
            self.mounts.append(mount)
            self.sources.append(source)
            self.mount_keys.append([_plain(mount), self._content(mount, source)])
        return True

    def _content(self, mount: Mount, source: Source | None) -> str:
        """What tells the files that a mount shows from others."""
        if source is None:
            return ""
        if source.dirs or source.chain_id:
            return source.chain_id
        from pyrun.rootfs.build.copy import CopyRequest, plan
        from pyrun.rootfs.layered import Stack

        with Stack([]) as nothing:
            return plan(source.tree, CopyRequest((mount.source or "/",), "/"), nothing).digest()

    def _secret_is_there(self, mount: Mount) -> bool:
        given = next((one for one in self.work.options.secrets if one.id == mount.id), None)
        there = given is not None and (os.path.exists(given.path) if given.path else given.env in os.environ)
        if not there and mount.required:
            hint = f"pyrun build --secret id={mount.id},src=FILE"
            why = (
                "it is required and was not given" if given is None else f"{given.path or '$' + given.env} is not there"
            )
            raise NotFound(f"secret '{mount.id}'", why, hint=hint)
        return there

    def _agent_is_there(self, mount: Mount) -> bool:
        given = next((one for one in self.work.options.ssh if one.id == mount.id), None)
        if given is None and mount.required:
            raise NotFound(
                f"ssh agent '{mount.id}'", "it is required and was not given", hint="pyrun build --ssh default"
            )
        return given is not None

    # Key ----------------------------------------------------------------------------------------------------------

    def key(self) -> str:
        """Of everything that the result depends on."""
        options = self.work.options
        inputs = {
            "parent": self.parent,
            "argv": self.argv,
            "file": self.script.file,
            "env": sorted(f"{name}={value}" for name, value in (self.env | self.args).items()),
            "cwd": self.workdir,
            "user": self.user,
            "platform": self.platform,
            "mounts": self.mount_keys,
            "network": self.network,
            "security": self.step.security,
            "hosts": options.add_hosts,
            "shm": options.shm_size,
            "ulimits": [str(limit) for limit in options.ulimits],
            "epoch": self.work.epoch,
        }
        if self.hostname:  # not for all: steps that were cached without it stay valid
            inputs["hostname"] = self.hostname
        return key_of("run", inputs)

    @property
    def hostname(self) -> str:
        """What --build-arg BUILDKIT_SANDBOX_HOSTNAME asks for, "" for nothing."""
        return dict(self.work.options.build_args).get("BUILDKIT_SANDBOX_HOSTNAME") or ""

    @property
    def network(self) -> str:
        """RUN --network, else build --network."""
        return self.step.network if self.step.network != "default" else self.work.options.network

    def created_by(self) -> str:
        """The line of history, in docker's form: the ARGs in scope are counted and named."""
        seen = [f"{name}={value}" for name, value in self.declared.items()]
        words = ["RUN", *([f"|{len(seen)}", *seen] if seen else []), *self.argv]
        return " ".join(words)

    # Running ------------------------------------------------------------------------------------------------------

    def fill(self, scratch: Scratch, lowers: tuple[str, ...], vertex: Vertex) -> None:
        """Runs it. Raises StepFailed for an exit code that is not 0."""
        from .execute import execute

        work = self.work
        request = self.request(lowers)
        result = execute(work.paths, request, scratch, vertex.log, cancel=work.cancel, link=work.link)
        if result.exit_code == 0:
            return
        command = " ".join(self.argv)
        short = command if len(command) < 200 and "\n" not in command else command.partition("\n")[0][:200] + " …"
        what = f"RUN {short}"
        why = f"exit code {result.exit_code}" + (f" ({result.oom})" if result.oom else "")
        error = StepFailed(what, why, code=1)
        if not work.options.debug_shell:
            error.hint = "pyrun build --debug-shell opens a shell where it failed"
        error.name = vertex.name
        error.tail = vertex.tail[-LAST_WORDS:]
        from . import debug

        context = work.options.context
        directory = os.path.abspath(context) if context != "-" and os.path.isdir(context) else ""
        debug.save_failed(work.paths, scratch, request, f"{self.step.at.path}:{self.step.at.line}", directory)
        raise error

    def request(self, lowers: tuple[str, ...]) -> RunRequest:
        """The step as it is executed."""
        from .execute import HOSTNAME, RunRequest

        options = self.work.options
        env = {**self.hidden, **self.env, **self.args}
        mounts = [self._mount(mount, source) for mount, source in zip(self.mounts, self.sources, strict=True)]
        if self.script.file is not None:
            name, content = self.script.file
            mounts.append(_run_mount("file", f"{PIPES}/{name}", content=os.fsencode(content), mode=0o755))
        return RunRequest(
            argv=tuple(self.argv),
            env=tuple(f"{name}={value}" for name, value in env.items()),
            workdir=self.workdir,
            user=self.user,
            lowers=lowers,
            mounts=tuple(mounts),
            network=self.network,
            insecure=self.step.security == "insecure",
            entitlements=options.allow,
            add_hosts=options.add_hosts,
            hostname=self.hostname or HOSTNAME,
            shm_size=options.shm_size,
            ulimits=options.ulimits,
            cgroup_parent=options.cgroup_parent,
            memory=options.memory,
            memory_swap=options.memory_swap,
            cpu_shares=options.cpu_shares,
            cpu_period=options.cpu_period,
            cpu_quota=options.cpu_quota,
            cpuset_cpus=options.cpuset_cpus,
            cpuset_mems=options.cpuset_mems,
            title=self.step.at.original,
        )

    def _mount(self, mount: Mount, source: Source | None) -> RunMount:
        common: dict[str, Any] = {
            name: value
            for name, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid))
            if value is not None
        }
        if source is not None:
            tree = source.tree
            common["lowers"] = source.dirs or (tree.path,)
            common["source"] = mount.source
            common["where"] = source.name
            common["ignore"] = tree.ignore
            common["base"] = source.chain_id
        if mount.type == "bind":
            return _run_mount("bind", mount.target, readonly=mount.read_only, **common)
        if mount.type == "cache":
            return _run_mount(
                "cache", mount.target, readonly=mount.read_only, id=mount.id, sharing=mount.sharing, **common
            )
        if mount.type == "tmpfs":
            return _run_mount("tmpfs", mount.target, size=mount.size or None)
        if mount.type == "secret":
            target = mount.target or ("" if mount.env else f"{SECRETS}/{mount.id}")
            return _run_mount("secret", target, content=self._secret(mount), env=mount.env or "", id=mount.id, **common)
        return self._ssh(mount, common)

    def _secret(self, mount: Mount) -> bytes:
        given = next(one for one in self.work.options.secrets if one.id == mount.id)
        if given.env:
            return os.environb.get(os.fsencode(given.env), b"")
        try:
            with open(given.path, "rb") as file:
                content = file.read(MAX_SECRET + 1)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise NotFound(f"secret '{mount.id}'", f"cannot read {given.path}: {why}") from None
        if len(content) > MAX_SECRET:
            raise UsageError(f"secret '{mount.id}'", f"larger than {MAX_SECRET} bytes")
        return content

    def _ssh(self, mount: Mount, common: dict[str, Any]) -> RunMount:
        given = next(one for one in self.work.options.ssh if one.id == mount.id)
        first = not any(other.type == "ssh" for other in self.mounts[: self.mounts.index(mount)])
        number = sum(1 for other in self.mounts[: self.mounts.index(mount)] if other.type == "ssh")
        target = mount.target or f"/run/buildkit/ssh_agent.{number}"
        return _run_mount(
            "ssh", target, socket=self.work.agent(given), env="SSH_AUTH_SOCK" if first else "", id=mount.id, **common
        )


def _run_mount(kind: str, target: str, **fields: Any) -> RunMount:
    from .mounts import RunMount

    return RunMount(kind, target, **fields)


def _plain(mount: Mount) -> dict[str, Any]:
    return mount.asdict()
