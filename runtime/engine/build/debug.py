# SPDX-License-Identifier: Apache-2.0
"""The state of a failed step, kept so that one can look around in it: `build --debug-shell`, `pyrun builder debug`.

    <data>/build/failed/<id>/fs           what the step had changed when it failed
    <data>/build/failed/<id>/state.json   what it was: no secret is in it
    images/keep/failed-<id>.json          keeps the layers below it

The newest three are kept. The shell is a container like those of `run`, over the step's file system and never in it:
one can open it again, and find everything as the step left it.
"""

from __future__ import annotations

import os
import time

from pyrun.cgroups import mount as cgroup_mount
from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.store import ImageStore
from pyrun.runtime import files
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine import network
from pyrun.runtime.engine.build import cache_mounts, mounts, stubs
from pyrun.runtime.engine.build.execute import RunRequest, options_of
from pyrun.runtime.engine.create import now
from pyrun.runtime.engine.remove import remove
from pyrun.runtime.engine.run import wanted_streams
from pyrun.runtime.engine.start import Prepared, Start, prepare
from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.claims import Scratch
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.oci.steps import Step
    from pyrun.runtime.paths import Paths

KEPT = 3
FORGOTTEN_AFTER_S = 3600.0
ANNOTATION = "pyrun.build.failed"  # on the shell's container: which state it stands on
SHELLS = ("/bin/bash", "/bin/sh", "/bin/ash", "/busybox/sh")


class FailedState(Record):
    """A step as it failed. `where` says which one for people ("Dockerfile:7"); `layers` are chain ids."""

    id: str
    where: str
    created_at: float  # seconds since the epoch
    layers: tuple[str, ...]  # below fs, lowest first
    argv: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str
    network: str
    add_hosts: tuple[tuple[str, str], ...] = ()
    entitlements: tuple[str, ...] = ()
    caches: tuple[tuple[str, str], ...] = ()  # (target, directory of the cache)
    binds: tuple[tuple[str, str, bool, tuple[str, ...]], ...] = ()  # of stages: target, source, read-only, chain ids
    title: str = ""  # the instruction, "RUN make"
    context: str = ""  # the directory that was built; "" for what is none
    left_out: tuple[str, ...] = ()  # mounts that a later shell cannot have, as "secret on /run/secrets/x"


def directory(paths: Paths, state_id: str = "") -> str:
    """Where a state is, or all of them."""
    return f"{paths.data}/build/failed{'/' if state_id else ''}{state_id}"


# ---- keeping ---------------------------------------------------------------------------------------------------------


def save_failed(
    paths: Paths, scratch: Scratch, request: RunRequest, where: str, context: str = ""
) -> FailedState:  # fmt: skip
    """Keeps what the step left in `scratch`, which is used up, and forgets all but the newest three.

    The layers of `request.lowers` are in the store. Raises PyrunError, OSError; then nothing is kept.
    """
    layers = tuple(chain_id(path) for path in request.lowers)
    of_stages = [mount for mount in request.mounts if mount.type == mounts.BIND and in_store(paths, mount.lowers)]
    binds = tuple((m.target, m.source, m.readonly, tuple(map(chain_id, m.lowers))) for m in of_stages)
    state = FailedState(
        id=os.urandom(6).hex(), where=where, created_at=time.time(), layers=layers, argv=request.argv,
        env=request.env, workdir=request.workdir, user=request.user, network=request.network,
        add_hosts=request.add_hosts, entitlements=request.entitlements,
        caches=tuple(cache_of(paths, mount) for mount in request.mounts if mount.type == mounts.CACHE),
        left_out=tuple(
            f"{mount.type} on {mount.target or '$' + mount.env}"
            for mount in request.mounts
            if mount not in of_stages and mount.type not in (mounts.CACHE, mounts.TMPFS)
        ),
        binds=binds, title=request.title, context=context,
    )  # fmt: skip
    target = files.private_dir(directory(paths, state.id))
    try:
        needed = dict.fromkeys((*layers, *(layer for bind in binds for layer in bind[3])))
        if needed:
            ImageStore(paths).keep(None, f"failed-{state.id}", layers=list(needed), blobs=(), data={"where": where})
        kept = scratch.keep()
        os.rename(f"{kept}/fs", f"{target}/fs")
        remove_path(kept)
        files.write_json(f"{target}/state.json", state.asdict(), sync=False)
    except BaseException as error:
        try:
            forget(paths, [state.id])
        except (OSError, PyrunError) as problem:
            error.add_note(f"clean-up: {problem}")
        raise
    prune_failed(paths, keep=KEPT)
    return state


def chain_id(layer: str) -> str:
    """The chain id of a layer's directory, layers/<hex>/fs."""
    return "sha256:" + os.path.basename(os.path.dirname(layer))


def in_store(paths: Paths, lowers: tuple[str, ...]) -> bool:
    """Whether these directories are layers, and no build context."""
    return all(path.startswith(f"{paths.data}/layers/") for path in lowers)


def cache_of(paths: Paths, mount: mounts.RunMount) -> tuple[str, str]:
    """Where a cache mount is: its target in the container, its directory on the host."""
    base = mounts.cache_base(mount)
    return mount.target, cache_mounts.path_of(paths, mount.id or mount.target, base)


def failed(paths: Paths) -> list[FailedState]:
    """All that are kept, the newest first; damaged ones are left out."""
    try:
        names = os.listdir(directory(paths))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            found.append(_from_json(files.read_json(f"{directory(paths, name)}/state.json")))
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda state: state.created_at, reverse=True)


def last_failed(paths: Paths) -> FailedState | None:
    """The one that failed last."""
    return next(iter(failed(paths)), None)


def _from_json(value: dict[str, Any]) -> FailedState:
    def frozen(item: Any) -> Any:
        return tuple(map(frozen, item)) if isinstance(item, list) else item

    return FailedState(**{name: frozen(item) for name, item in value.items()})


def prune_failed(paths: Paths, *, keep: int = 0) -> int:
    """Forgets all states but the newest `keep` and those with a shell in them; how many. Raises PyrunError, OSError."""
    remove_strays(paths)
    try:
        names = set(os.listdir(directory(paths)))
    except FileNotFoundError:
        return 0
    containers, _ = c.ContainerStore(paths).all()
    used = {value for one, _ in containers for name, value in one.options.annotations if name == ANNOTATION}
    newest = {state.id for state in failed(paths)[:keep]}
    doomed = sorted(name for name in names - used - newest if not (keep and _young(paths, name)))
    forget(paths, doomed)
    return len(doomed)


def remove_strays(paths: Paths) -> None:
    """What a kill between the two renames of save_failed() left."""
    layers = f"{paths.data}/layers"
    for name in os.listdir(layers) if os.path.isdir(layers) else ():
        try:
            if name.endswith(".kept") and time.time() - os.stat(f"{layers}/{name}").st_mtime > FORGOTTEN_AFTER_S:
                remove_path(f"{layers}/{name}")
        except FileNotFoundError:
            continue


def _young(paths: Paths, name: str) -> bool:
    """Whether a state without state.json may be one that is being saved."""
    path = directory(paths, name)
    try:
        return not os.path.exists(f"{path}/state.json") and time.time() - os.stat(path).st_mtime < FORGOTTEN_AFTER_S
    except FileNotFoundError:
        return False


def forget(paths: Paths, ids: list[str]) -> None:
    """Removes these states, and what only they needed."""
    for name in ids:
        if os.path.isdir(directory(paths, name)):
            remove_path(directory(paths, name))
    if ids:
        ImageStore(paths).drop_kept([f"failed-{name}" for name in ids])


# ---- the shell -------------------------------------------------------------------------------------------------------


def shell(paths: Paths, link: WorkerLink, state: FailedState, command: tuple[str, ...] = ()) -> str:
    """Starts a shell (or `command`) on the step's file system, with its environment, user and directory; its id.

    The client of this request is attached to it, and gets its exit code, as with `run -it --rm`; when the
    client goes, however it does, the shell is killed. Raises NotFound when the image has no shell, and what start()
    raises; then nothing is left.
    """
    layers = (*(ImageStore(paths).layers.fs(one) for one in state.layers), f"{directory(paths, state.id)}/fs")
    container = describe(paths, state, command or (find_shell(layers),))
    store = c.ContainerStore(paths)
    with store.busy():
        container = store.create(container, c.State(unfinished=True))
        try:
            for name in ("upper", "work", "rootfs", "log"):
                os.mkdir(f"{paths.container(container.id)}/{name}", 0o755 if name in ("upper", "rootfs") else 0o700)
            stubs.like_below(f"{paths.container(container.id)}/upper", layers)
            arranged = mounts.arrange(paths, container.id, mounts_of(paths, state))
            container = container.replace(mounts=(*container.mounts, *arranged.points))
            state_now = store.load_state(container.id)
            _Shell(paths, store, container, state_now, link, layers, tuple(arranged.instead)).begin()
        except BaseException as error:
            try:
                remove(paths, container.id, force=True, volumes=True, link=link)
            except Exception as problem:  # the cause is what the user must see
                error.add_note(f"clean-up: {problem}")
            raise
    return container.id


def mounts_of(paths: Paths, state: FailedState) -> list[mounts.RunMount]:
    """What the step had mounted from stages and images."""
    fs = ImageStore(paths).layers.fs
    return [
        mounts.RunMount(mounts.BIND, target, readonly, tuple(map(fs, layers)), source, "a stage of the build")
        for target, source, readonly, layers in state.binds
    ]


def find_shell(layers: tuple[str, ...]) -> str:
    """The image's shell. Raises NotFound."""
    with Stack(list(reversed(layers))) as stack:
        for path in SHELLS:
            try:
                stack.entry(stubs.components(path), follow=True)
            except OSError:
                continue
            return path
    raise NotFound("debug shell", "the image has no shell", hint="name a program that it has")


def describe(paths: Paths, state: FailedState, command: tuple[str, ...]) -> c.Container:
    """The record of the shell's container."""
    container_id = c.new_id()
    request = RunRequest(command, network=state.network, add_hosts=state.add_hosts)
    options = options_of(request).replace(
        tty=True, interactive=True, annotations=((ANNOTATION, state.id),), command=command
    )
    caches = tuple(
        c.MountPoint("bind", path, target, words=("rbind", "rprivate"))
        for target, path in state.caches if os.path.isdir(path)
    )  # fmt: skip
    return c.Container(
        id=container_id,
        name="",
        created=now(),
        image_id="",
        image_ref="<failed build step>",
        path=command[0],
        args=command[1:],
        options=options,
        mounts=caches,
        env=state.env,
        workdir=os.path.normpath(os.path.join("/", state.workdir or "/")),
        user=state.user,
        hostname=options.hostname,
        cgroup_path=cgroup_mount.container_path(container_id, instance=paths.instance, parent=""),
        log_path=f"{paths.container(container_id)}/log",
    )


class _Shell(Start):
    """A start whose layers are no image's."""

    def __init__(
        self, paths: Paths, store: c.ContainerStore, container: c.Container, state: c.State, link: WorkerLink,
        layers: tuple[str, ...], instead: tuple[tuple[str, Step], ...],
    ) -> None:  # fmt: skip
        super().__init__(paths, store, container, state, link)
        self._layers = layers
        self._instead = instead

    def begin(self) -> None:
        """start(), without what is only for a second one."""
        try:
            with self.store.lock(self.container.id):
                attach = wanted_streams(self.container.options)
                # without its client nobody would find it again
                self.run(None if attach is None else attach.replace(leash=True), restart=False)
        except BaseException:
            self.let_go()  # without the lock, which the monitor's finisher needs
            raise

    def prepare(self) -> Prepared:
        network.write_etc_files(self.paths, self.container, None)
        return prepare(self.paths, self.container, self._layers, instead=self._instead)
