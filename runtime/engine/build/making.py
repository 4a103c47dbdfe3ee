# SPDX-License-Identifier: Apache-2.0
"""The steps that make a layer: what each depends on (its key), and how the layer comes to be.

prepared = prepare(step, state, node)      # words expanded, inputs found and hashed; None: an input is not there yet
layer = cached(prepared, state, node)      # from the cache, or None
layer = make(prepared, state, node, vertex)
"""

from __future__ import annotations

import os

from pyrun.rootfs.build import steps as s
from pyrun.rootfs.build.runmount import parse_mount
from pyrun.runtime.engine.humanize import SECOND, rfc3339

from .cache import BuiltLayer
from .failure import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pyrun.rootfs.claims import Scratch

    from .graph import Node
    from .progress import Vertex
    from .stage import State

REGULAR, LOCAL_SOURCE, CACHE_MOUNT = "regular", "source.local", "exec.cachemount"  # docker's kinds, for `du`


class Prepared:
    """One step, ready to be looked up or made.

    title       for people: the instruction as it stands in the file
    created_by  for the image's history
    keys        functions that give keys of the cache, cheapest first; all of them mean the same result
    fill        makes the change in a scratch directory over layer directories (lowest first)
    again       what keys are written under after fill(): inputs may have changed meanwhile; None for `keys`
    nothing     there is nothing to do: no layer
    """

    def __init__(
        self,
        title: str,
        created_by: str,
        keys: tuple[Callable[[], str], ...],
        fill: Callable[[Scratch, tuple[str, ...], Vertex], None],
        *,
        kind: str = REGULAR,
        again: Callable[[], tuple[str, ...]] | None = None,
        nothing: bool = False,
    ) -> None:
        self.title = title
        self.created_by = created_by
        self.keys = keys
        self.fill = fill
        self.kind = kind
        self.again = again
        self.nothing = nothing
        self._known: dict[int, str] = {}

    def key(self, index: int) -> str:
        """One of the keys, computed once."""
        if index not in self._known:
            self._known[index] = self.keys[index]()
        return self._known[index]


def prepare(step: Any, state: State, node: Node) -> Prepared | None:
    """The step with its inputs; None while probing, when one of them is not there yet.

    Raises NotFound for files that are not there, UsageError.
    """
    return LAYERED[type(step)](step, state, node)


def stages_of(step: Any) -> Iterator[str]:
    """The names of stages (or images) that a step takes files from, as far as they can be known from its text."""
    if isinstance(step, s.FileStep):
        if step.from_:
            yield step.from_
    elif isinstance(step, s.Run):
        for text in step.mounts:
            name = parse_mount(text, escape=step.at.escape).from_
            if name:
                yield name


def cached(prepared: Prepared, state: State, node: Node) -> BuiltLayer | None:
    """The layer that this step made once; None when it has to be made."""
    cache = node.work.cache
    read = node.reads_cache()
    if not (read and cache.read):
        return None
    for index in range(len(prepared.keys)):
        layer = cache.find(prepared.key(index), state.layers, read=read)
        if layer is not None:
            for cheaper in range(index):
                cache.save(None, prepared.key(cheaper), state.layers, layer, prepared.kind, prepared.created_by)
            return layer
    return None


def make(prepared: Prepared, state: State, node: Node, vertex: Vertex) -> BuiltLayer:
    """Makes the layer, packs it and writes it down. Raises what the step raises; then nothing is left of it."""
    from pyrun.rootfs import changeset

    work = node.work
    ingest = work.ingest
    work.secure(state.layers)
    lowers = work.dirs(layer.chain_id for layer in state.layers)
    with work.limit:
        vertex.start()
        try:
            work.check()
            with work.store.layers.scratch() as scratch:
                prepared.fill(scratch, lowers, vertex)
                work.check()
                if work.epoch is not None:
                    clamp_times(scratch.fs, work.epoch)
                packed = changeset.pack(scratch.fs, lowers, ingest, epoch=work.epoch, compression=work.compression)
                created = rfc3339(None if work.epoch is None else work.epoch * SECOND)
                parent = state.chain_id
                chain_id = scratch.become(
                    parent, diff_id=packed.diff_id, digest=packed.digest, size=packed.content_size,
                    entries=packed.entries,
                )  # fmt: skip
                layer = BuiltLayer(packed.digest, packed.size, packed.media_type, packed.diff_id, chain_id, created)
                keys = prepared.again() if prepared.again else [prepared.key(n) for n in range(len(prepared.keys))]
                for key in keys:
                    work.cache.save(ingest, key, state.layers, layer, prepared.kind, prepared.created_by)
                scratch.named()
        except Cancelled:
            vertex.cancel()
            raise
        except BaseException as error:
            vertex.broken(error)
            raise
    vertex.done()
    return layer


def clamp_times(directory: str, epoch: int) -> None:
    """Gives every file in a tree of ours that is younger than `epoch` (seconds) that time: SOURCE_DATE_EPOCH.

    By fd and without following links: the tree may hold anything.
    """
    limit = epoch * SECOND
    from pyrun.rootfs.walk import directories

    for fd, names in directories(directory):
        for name in names:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if info.st_mtime_ns > limit:
                os.utime(name, ns=(limit, limit), dir_fd=fd, follow_symlinks=False)
    if os.stat(directory).st_mtime_ns > limit:
        os.utime(directory, ns=(limit, limit))


# ── WORKDIR ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _workdir(step: s.Workdir, state: State, node: Node) -> Prepared:
    """The directory is made if it is missing, owned by USER, as BuildKit does; if it is there, no layer is made."""
    from pyrun.rootfs.build.substitute import expanded
    from pyrun.rootfs.layered import Stack

    from .cache import key_of
    from .stage import absolute

    text = expanded(step, state.lookup).path
    if not text:
        raise step.at.error("WORKDIR: the path is empty", "is a variable not set?")
    path = absolute(state.workdir, text)
    path = path.rstrip("/") or "/"
    parts = tuple(os.fsencode(path).split(b"/")[1:]) if path != "/" else ()
    dirs = node.work.dirs(layer.chain_id for layer in state.layers)
    there = not parts
    if parts and dirs:
        with Stack(list(reversed(dirs))) as stack:
            there = stack.directory(stack.resolve(parts)) is not None
    state.config["WorkingDir"] = path
    inputs = {"parent": state.chain_id, "path": path, "user": state.user, "epoch": node.work.epoch}

    def fill(scratch: Scratch, lowers: tuple[str, ...], _: Vertex) -> None:
        _make_directory(scratch.fs, lowers, parts, state.user, path)

    return Prepared(step.at.original, f"WORKDIR {path}", (lambda: key_of("workdir", inputs),), fill, nothing=there)


def _make_directory(fs: str, lowers: tuple[str, ...], parts: tuple[bytes, ...], user: str, path: str) -> None:
    from time import time_ns

    from pyrun.rootfs.entry import DIR, Entry
    from pyrun.rootfs.layered import Stack
    from pyrun.rootfs.tree import TreeWriter
    from pyrun.runtime.errors import Conflict

    top_first = list(reversed(lowers))
    uid, gid = owner_of(user, lowers, "USER") if user else (0, 0)
    root_fd = os.open(fs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Stack(top_first) as stack, TreeWriter(root_fd, overlay=True, metadata_of=stack.directory) as writer:
            writer.default_root()
            try:
                wanted = stack.resolve(parts) if top_first else parts
            except NotADirectoryError:
                wanted = parts
            for depth in range(1, len(wanted) + 1):
                if top_first and stack.directory(wanted[:depth]) is not None:
                    continue
                if top_first and _exists(stack, wanted[:depth]):
                    raise Conflict(f"WORKDIR {path}", f"{os.fsdecode(b'/'.join(wanted[:depth]))} is not a directory")
                entry = Entry(wanted[:depth], DIR, 0o755, uid, gid, mtime_ns=time_ns())
                writer.add(entry)
    finally:
        os.close(root_fd)


def _exists(stack: Any, parts: tuple[bytes, ...]) -> bool:
    try:
        stack.entry(parts)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def owner_of(text: str, dirs: tuple[str, ...], what: str = "--chown") -> tuple[int, int]:
    """(uid, gid) of --chown, or of what is made for USER: names are looked up in the image; a number alone is the group
    too (Dockerfile reference, COPY --chown). Raises UsageError, NotFound.
    """
    from pyrun.rootfs import users
    from pyrun.runtime.errors import UsageError

    who, colon, which = text.partition(":")
    if what == "USER" and which:
        who = who or "0"  # as a container with this USER
    if not who or (colon and (not which or ":" in which)):
        raise UsageError(f"{what}={text}", "write USER, UID, USER:GROUP or UID:GID")
    top_first = tuple(reversed(dirs))
    user = users.of_layers(top_first, who)
    if which:
        return user.uid, users.of_layers(top_first, f"0:{which}").gid
    return user.uid, user.uid if who.isascii() and who.isdigit() else user.gid


def _run(step: s.Run, state: State, node: Node) -> Prepared | None:
    from .runs import prepare_run

    return prepare_run(step, state, node)


def _copy(step: s.FileStep, state: State, node: Node) -> Prepared | None:
    from .copies import prepare_copy

    return prepare_copy(step, state, node)


LAYERED: dict[type, Callable[[Any, State, Node], Prepared | None]] = {
    s.Add: _copy,
    s.Copy: _copy,
    s.Run: _run,
    s.Workdir: _workdir,
}
