# SPDX-License-Identifier: Apache-2.0
"""RUN --mount: what a step has besides its file system, and what of it must be made on the host first.

bind     out of the build context, a stage or an image: read-only, or with changes that are thrown away
cache    a directory that outlives the build (cache_mounts.py)
tmpfs    empty memory
secret   a file of the caller's, in memory, gone with the step; or a variable
ssh      the socket of the caller's agent
file     a small file that the builder made (the script of a heredoc)

Nothing here resolves a path of what others filled: pyrun-init does, by descriptor, inside the tree (steps.BindTree;
CVE-2024-1753, CVE-2024-23653, CVE-2024-9407).
"""

from __future__ import annotations

import os
import posixpath

from pyrun.rootfs.entry import DIR, HARDLINK, SOCKET, Entry
from pyrun.rootfs.entry import FILE as FILE_KIND
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.tree import TreeWriter
from pyrun.runtime import files
from pyrun.runtime.engine.build import cache_mounts, stubs
from pyrun.runtime.engine.containers import MountPoint
from pyrun.runtime.errors import NotFound, UsageError
from pyrun.runtime.oci import steps as s
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event
    from typing import Protocol

    from pyrun.runtime.engine.build.agent import AgentRelay
    from pyrun.runtime.paths import Paths

    class Filter(Protocol):
        """What .dockerignore says (rootfs/build/ignore.py)."""

        def ignored(self, path: str, is_dir: bool) -> bool: ...


BIND, CACHE, TMPFS, SECRET, SSH, FILE = "bind", "cache", "tmpfs", "secret", "ssh", "file"
MOUNT_ATTR_RDONLY = 1
PRIVATE_FILE = ("bind", "rprivate", "ro", "nosuid", "nodev", "noexec")
# volatile: fsync(2) does nothing. dpkg does thousands, and a layer is synced once, when it is whole; if the machine
# crashes before, nobody takes what is there for a layer.
READ_ONLY_OPTIONS = "redirect_dir=nofollow,metacopy=off"
OVERLAY_OPTIONS = f"{READ_ONLY_OPTIONS},volatile"


class RunMount(Record):
    """One mount of a step. `target` is absolute; which of the other fields count depends on the type.

    lowers: the directories of the tree that a bind or a cache's first content comes from, lowest first; `source` is a
    path below it ("" for all), `where` names it in messages ("stage 'base'"), `ignore` is what it leaves out.
    """

    type: str
    target: str
    readonly: bool = True  # bind, cache
    lowers: tuple[str, ...] = ()
    source: str = ""
    where: str = ""
    ignore: Filter | None = None
    id: str = ""  # cache: "" is the target
    sharing: str = cache_mounts.SHARED
    base: str = ""  # cache: tells the first content; another base is another cache
    uid: int = 0  # cache, secret, ssh, file: owner and mode of what is mounted
    gid: int = 0
    mode: int | None = None  # None: 0755 for a cache, 0400 for a secret, 0600 for ssh, 0644 for a file
    size: int | None = None  # tmpfs, bytes
    content: bytes = b""  # secret, file
    env: str = ""  # secret: a variable of this name; with target "" no file. ssh: SSH_AUTH_SOCK
    socket: str = ""  # ssh: the agent's, on the host


class Arranged:
    """What the step's container is given; close() when it has ended."""

    def __init__(self) -> None:
        self.points: list[MountPoint] = []
        self.instead: list[tuple[str, s.Step]] = []
        self.targets: list[tuple[str, bool]] = []  # mount points: path, is it a directory
        self.env: list[str] = []  # NAME=value
        self._held: list[cache_mounts.Claimed | AgentRelay] = []

    def close(self) -> None:
        """Lets go of the caches, ends the relays."""
        problems: list[OSError] = []
        while self._held:
            try:
                self._held.pop().close()
            except OSError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def hold(self, what: cache_mounts.Claimed | AgentRelay) -> None:
        """close() closes it."""
        self._held.append(what)

    def add(self, target: str, source: str, words: tuple[str, ...], *, directory: bool) -> None:
        """A bind of a path of ours on the host."""
        self.points.append(MountPoint("bind", source, target, words=words))
        self.targets.append((target, directory))


class Place:
    """Where one mount may keep things, made on demand: `disk` beside the container, `memory` in the run root."""

    def __init__(self, paths: Paths, container_id: str, number: int) -> None:
        self.paths = paths
        self._disk = f"{paths.container(container_id)}/mounts/{number}"
        self._memory = f"{paths.running(container_id)}/mounts/{number}"

    def disk(self, name: str) -> str:
        """A new private directory."""
        return files.private_dir(f"{self._disk}/{name}")

    def memory(self) -> str:
        """A new directory in the run root (a tmpfs), which only root enters."""
        return files.private_dir(self._memory)

    def memory_file(self, content: bytes, mode: int, uid: int, gid: int) -> str:
        """A new file in memory()."""
        path = f"{self.memory()}/file"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        return path


def check(mounts: Sequence[RunMount]) -> None:
    """Raises UsageError for targets that cannot be: relative, the root, below /proc, twice the same."""
    seen: set[str] = set()
    for mount in mounts:
        if mount.type == SECRET and not mount.target and mount.env:
            continue
        target = mount.target
        what = f"RUN --mount=type={mount.type}"
        # normpath() leaves two slashes at the beginning alone
        if not target.startswith("/") or posixpath.normpath(target) != target or "//" in target or "\0" in target:
            raise UsageError(what, f"target '{target}' is not a clean absolute path")
        if target == "/" or target == "/proc" or target.startswith("/proc/"):
            raise UsageError(what, f"nothing can be mounted on {target}")
        if target in seen:
            raise UsageError(what, f"two mounts have the target {target}", hint="give each one of its own")
        seen.add(target)


def arrange(paths: Paths, container_id: str, mounts: Sequence[RunMount], cancel: Event | None = None) -> Arranged:
    """Everything that the mounts need, made below the container's directories; waits for caches that are locked.

    The caller has checked them, has made the container's directory, and calls close() at the end. Raises NotFound for
    a source that is not there, UsageError, Cancelled, OSError; then the caches are free again.
    """
    arranged = Arranged()
    try:
        for number, mount in enumerate(mounts):
            _ARRANGE[mount.type](Place(paths, container_id, number), mount, arranged, cancel)
    except BaseException:
        arranged.close()
        raise
    return arranged


# ---- one function for each type --------------------------------------------------------------------------------------


def _bind(place: Place, mount: RunMount, arranged: Arranged, _: Event | None) -> None:
    lowers = mount.lowers
    if mount.ignore is not None:
        lowers = (_without_ignored(mount, place.disk("filtered")),)
    kind = look(lowers, mount)
    throw_away = not mount.readonly
    arranged.instead.append(
        (
            mount.target,
            s.BindTree(
                place=place.disk("place"),
                lower=tuple(reversed(lowers)),
                upper=_like_root(place.disk("upper"), lowers) if throw_away else "",
                work=place.disk("work") if throw_away else "",
                options=OVERLAY_OPTIONS if throw_away else READ_ONLY_OPTIONS,
                source=mount.source or "/",
                target=mount.target,
                attr_set=0 if throw_away else MOUNT_ATTR_RDONLY,
            ),
        )
    )
    # what config.json says of it; the step takes its place in the plan
    arranged.add(mount.target, lowers[-1], ("rbind", "rprivate"), directory=kind is DIR)


def _like_root(upper: str, lowers: Sequence[str]) -> str:
    stubs.like_below(upper, lowers)
    return upper


def look(lowers: Sequence[str], mount: RunMount) -> str:
    """The kind (entry.DIR, …) of what is at the mount's source. Raises NotFound."""
    try:
        with Stack(list(reversed(lowers))) as stack:
            return stack.entry(stubs.components(mount.source), follow=True).kind
    except OSError as error:
        what = f"RUN --mount=type={mount.type}: '{mount.source or '/'}' in {mount.where or 'its source'}"
        raise NotFound(what, os.strerror(error.errno or 0).lower()) from None


def _without_ignored(mount: RunMount, into: str) -> str:
    """A copy of the tree's part at `source` without what .dockerignore names, at the same path below `into`."""
    assert mount.ignore is not None
    with Stack(list(reversed(mount.lowers))) as stack:
        start = stack.resolve(stubs.components(mount.source))
        # an ignored directory may have exceptions in it: its own entry comes only with one of them
        _copy(stack, start, start, into, mount.ignore)
    return into


def _copy(
    stack: Stack, source: tuple[bytes, ...], base: tuple[bytes, ...], into: str, ignore: Filter | None = None
) -> None:
    """What is at `source` in the stack, placed at `base` below the directory `into`. Raises OSError, ArchiveError."""
    root_fd = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        like = stack.directory if base == source else None
        owner = (0, 0) if ignore is not None else None  # a context's files are root's, as those that COPY makes
        with TreeWriter(root_fd, metadata_of=like, owner=owner) as writer:
            for entry, own in stack.walk(source, base):
                if entry.kind is SOCKET or (ignore is not None and _ignored(ignore, entry, own)):
                    continue
                if ignore is not None and entry.kind is HARDLINK:  # its first name may be left out
                    entry = stack.entry(own)
                writer.add(entry, stack.data(own) if entry.kind is FILE_KIND else ())
    finally:
        os.close(root_fd)


def _ignored(ignore: Filter, entry: Entry, own: tuple[bytes, ...]) -> bool:
    # directories of ignored things are made only for what is not: TreeWriter makes missing parents
    return bool(own) and ignore.ignored(os.fsdecode(b"/".join(own)), entry.kind is DIR)


def cache_base(mount: RunMount) -> str:
    """Tells what a cache is filled with at first: another base is another cache."""
    return f"{mount.base}\0{mount.source}" if mount.lowers else ""


def _cache(place: Place, mount: RunMount, arranged: Arranged, cancel: Event | None) -> None:
    def fill(directory: str) -> None:
        if mount.lowers:
            with Stack(list(reversed(mount.lowers))) as stack:
                source = stack.resolve(stubs.components(mount.source))
                if stack.entry(source).kind is not DIR:
                    raise UsageError(f"RUN --mount=type=cache: '{mount.source}' in {mount.where}", "not a directory")
                _copy(stack, source, (), directory)
        else:
            os.chown(directory, mount.uid, mount.gid)
            os.chmod(directory, 0o755 if mount.mode is None else mount.mode)

    if mount.lowers:
        look(mount.lowers, mount)
    cache = cache_mounts.claim(place.paths, mount.id or mount.target, mount.sharing, cache_base(mount), fill, cancel)
    arranged.hold(cache)
    words = ("rbind", "rprivate", "rro") if mount.readonly else ("rbind", "rprivate")
    arranged.add(mount.target, cache.path, words, directory=True)


def _tmpfs(_: Place, mount: RunMount, arranged: Arranged, __: Event | None) -> None:
    words = ("nosuid", "nodev", "mode=1777", *([f"size={mount.size}"] if mount.size is not None else []))
    arranged.points.append(MountPoint("tmpfs", "", mount.target, words=words))
    arranged.targets.append((mount.target, True))


def _secret(place: Place, mount: RunMount, arranged: Arranged, _: Event | None) -> None:
    if mount.env:
        try:
            value = mount.content.decode()
        except UnicodeDecodeError:
            value = "\0"
        if "\0" in value:
            what = f"RUN --mount=type=secret,env={mount.env}"
            raise UsageError(
                what, "the secret is not text, which a variable must be", hint="mount it as a file: target=…"
            )
        arranged.env.append(f"{mount.env}={value}")
    if mount.target:
        mode = 0o400 if mount.mode is None else mount.mode
        path = place.memory_file(mount.content, mode, mount.uid, mount.gid)
        arranged.add(mount.target, path, PRIVATE_FILE, directory=False)


def _file(place: Place, mount: RunMount, arranged: Arranged, _: Event | None) -> None:
    mode = 0o644 if mount.mode is None else mount.mode
    path = place.memory_file(mount.content, mode, mount.uid, mount.gid)
    arranged.add(mount.target, path, ("bind", "rprivate", "ro", "nosuid", "nodev"), directory=False)


def _ssh(place: Place, mount: RunMount, arranged: Arranged, _: Event | None) -> None:
    from pyrun.runtime.engine.build.agent import AgentRelay

    relay = AgentRelay(place.memory(), mount.socket).start(
        mount.uid, mount.gid, 0o600 if mount.mode is None else mount.mode
    )
    arranged.hold(relay)
    arranged.add(mount.target, relay.path, ("bind", "rprivate", "nosuid", "nodev", "noexec"), directory=False)
    if mount.env:
        arranged.env.append(f"{mount.env}={mount.target}")


_ARRANGE = {BIND: _bind, CACHE: _cache, TMPFS: _tmpfs, SECRET: _secret, SSH: _ssh, FILE: _file}
