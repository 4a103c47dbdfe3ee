# SPDX-License-Identifier: Apache-2.0
"""`cp`: trees read and written by fd, on the host, in a running container, and in one that is stopped.

A stopped container needs no mount: its layers are read as overlayfs would show them (layered.Stack) and written to its
upper directory as overlayfs would have done (tree.TreeWriter). The caller holds the container's lock, so that it does
not start meanwhile. A running one is reached through an fd of its root, /proc/<pid>/root, where its mounts are visible.

    directory, below = host_target("out/hosts.txt")
    with Tree.running(root_fd) as container, Tree.host(directory) as host:
        copy(container, "/etc/hosts", host, below, owner=(os.getuid(), os.getgid()), plain=True)

Whoever controls the container can change it while it is read or written; nothing here follows a link that it did not
look at, and what is written to the host is written below one directory (CVE-2018-15664, CVE-2026-41568,
CVE-2026-42306).
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, NotFound, UsageError
from pyrun.runtime.record import Record

from . import stream, tarread, tarwrite
from .entry import BLOCK, CHAR, DIR, FILE, HARDLINK, SOCKET, Entry
from .layered import Stack
from .limits import DEFAULT_LIMITS, Limits
from .tree import TreeWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    Path = tuple[bytes, ...]
    Owner = tuple[int, int] | None

# What a container's root has mounted that is no data: reading it all would never end, or change something.
PSEUDO_FILE_SYSTEMS = {
    "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "debugfs", "tracefs", "securityfs", "pstore", "bpf",
    "configfs", "fusectl", "efivarfs",
}  # fmt: skip


class MountedAt(Record):
    """A mount of a stopped container: where it is, the host's directory or file, whether it is read-only."""

    destination: str
    source: str
    readonly: bool = False


class Tree:
    """One side of a copy; a `with` block. Made by host(), running() or stopped()."""

    def __init__(
        self, stack: Stack, mounts: Sequence[MountedAt] = (), *, layered: bool = False, where: str = ""
    ) -> None:
        self.stack = stack
        self.where = where
        self.skip_devices: frozenset[int] = frozenset()
        self._layered = layered
        self._mounts = {components(mount.destination): mount for mount in mounts}

    @classmethod
    def host(cls, directory: str) -> Tree:
        """The host's directory as a root of its own. Paths given to it are below it. Raises NotFound, OSError."""
        try:
            return cls(Stack([directory]))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no directory '{directory}'") from None

    @classmethod
    def running(cls, root_fd: int, mountinfo: str = "") -> Tree:
        """A running container. root_fd: its root directory (stays the caller's); mountinfo: the text of
        /proc/<pid>/mountinfo,
        to leave out /proc, /sys and their like. Raises OSError."""
        tree = cls(Stack([root_fd]), where="in the container")
        tree.skip_devices = pseudo_devices(mountinfo)
        return tree

    @classmethod
    def stopped(cls, upper: str, lowers: Sequence[str], mounts: Sequence[MountedAt] = ()) -> Tree:
        """A container that is not running: its upper directory, its image's layers (topmost first), its mounts."""
        over = {components(mount.destination): mount.source for mount in mounts}
        return cls(Stack([upper, *lowers], over), mounts, layered=True, where="in the container")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.stack.close()

    def find(self, path: Path, *, follow: bool) -> Entry | None:
        """What is at `path`, under its resolved path; None for nothing."""
        try:
            resolved = self.stack.resolve(path, follow=follow)
            return self.stack.entry(resolved)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: Path, base: Path) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """The entries at and below exactly `path`, placed below `base`, each with its data."""
        for entry, own in self.stack.walk(path, base, skip_devices=self.skip_devices):
            yield entry, self.stack.data(own) if entry.kind is FILE else iter(())

    def write(self, base: Path, entries: Iterator[tuple[Entry, Iterator[bytes]]], owner: Owner) -> None:
        """Writes entries placed below `base`, or at it. Raises ArchiveError, Conflict for a read-only mount."""
        mount = max((at for at in self._mounts if base[: len(at)] == at), key=len, default=())
        within = self._mounts.get(mount)
        if within is not None and within.readonly:
            raise Conflict(f"cannot copy to '{within.destination}'", "it is mounted read-only")
        layered = self._layered and within is None
        root_fd = self.stack.top() if within is None else _open_mount(within)
        try:
            with TreeWriter(
                root_fd,
                overlay=layered,
                metadata_of=self.stack.directory if layered else None,
                resolve=self.stack.resolve if layered else None,
                owner=owner,
                existing=lambda parts: self.find((*mount, *parts), follow=False),
            ) as writer:
                for entry, data in entries:
                    if entry.kind is SOCKET:
                        continue
                    entry.parts = entry.parts[len(mount) :]
                    if entry.kind is HARDLINK:
                        entry.link = b"/".join(entry.link.split(b"/")[len(mount) :])
                    writer.add(entry, data)
        finally:
            os.close(root_fd)


def _open_mount(mount: MountedAt) -> int:
    try:
        return os.open(mount.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise Conflict(f"cannot copy to '{mount.destination}'", "a file is mounted there") from None


def copy(
    source: Tree,
    source_path: str,
    target: Tree,
    target_path: str,
    *,
    follow: bool = False,
    owner: Owner = None,
    plain: bool = False,
    name: str = "",
) -> None:
    """`cp SOURCE TARGET` by docker's rules (docker cp, "Extended description").

    Args:
        follow: -L, a symlink as source is followed.
        owner: everything belongs to it; None keeps the owners (-a).
        name: what the source is called in a target directory, if not by the last component of its path.
        plain: towards the host, without -a: no setuid bits, no attributes, no device nodes, which the container chose.

    Raises NotFound, Conflict (a directory onto a file), UsageError, ArchiveError, OSError.
    """
    found = _source(source, source_path, follow)
    base = _destination(source_path, found, target, target_path, os.fsencode(name))
    entries = source.read(found.parts, base)
    target.write(base, (_plain(item) for item in entries) if plain else entries, owner)


def tar(source: Tree, path: str, *, follow: bool = False) -> Iterator[bytes]:
    """`cp SOURCE -`: a tar of what is at `path`, under its last component's name ("." for the root, and for "/.")."""
    found = _source(source, path, follow)
    asked = components(path)
    base = () if _is_content(path) or not asked else (asked[-1],)
    return tarwrite.tar(source.read(found.parts, base))


def extract(
    archive: stream.Readable, target: Tree, path: str, *, owner: Owner = None, limits: Limits = DEFAULT_LIMITS
) -> None:
    """`cp - TARGET`: the entries of a tar, plain or compressed, below the existing directory `path`.

    Decompression happens here, on the host, before anything of the container is touched (CVE-2026-41567).
    """
    base = _directory(target, path)
    kind, chunks = stream.sniffed(stream.chunks_of(archive))
    source = stream.ByteStream(stream.inflate(chunks, kind, limits), limits)

    def placed() -> Iterator[tuple[Entry, Iterator[bytes]]]:
        for entry in tarread.entries(source, limits, require_end=True):
            if not entry.parts:
                continue  # the archive's "./" must not change the directory itself
            entry.parts = (*base, *entry.parts)
            if entry.kind is HARDLINK:
                entry.link = b"/".join(base) + b"/" + entry.link
            yield entry, map(bytes, source.data())

    target.write(base, placed(), owner)


def host_source(path: str, *, follow: bool = False) -> tuple[str, str, str]:
    """(directory, path below it, name) for a host path to copy from: Tree.host(directory) takes the path.

    The host's own symlinks lead where they lead for the user; below `directory` they are taken literally.
    """
    if _is_content(path) or path.endswith("/"):
        return os.path.realpath(path), "/." if _is_content(path) else "/", os.path.basename(os.path.abspath(path))
    if follow:
        real = os.path.realpath(path)
        return os.path.dirname(real), os.path.basename(real), os.path.basename(path)
    return os.path.realpath(os.path.dirname(path)), os.path.basename(path), os.path.basename(path)


def host_target(path: str) -> tuple[str, str]:
    """(directory, path below it) for a host path to copy to; nothing is ever written outside that directory."""
    if os.path.isdir(path):
        return os.path.realpath(path), "/"
    real = os.path.realpath(path) if os.path.exists(path) else path.rstrip("/") or "/"
    slash = "/" if path.endswith("/") else ""
    return os.path.realpath(os.path.dirname(real)), os.path.basename(real) + slash


def components(path: str) -> tuple[bytes, ...]:
    """A path's components, ".." kept: those are resolved inside the tree."""
    if "\0" in path:
        raise UsageError(f"invalid path '{path!r}'", "NUL in it")
    return tuple(part for part in os.fsencode(path).split(b"/") if part and part != b".")


def pseudo_devices(mountinfo: str) -> frozenset[int]:
    """st_dev of the mounts that are no data, from the text of /proc/<pid>/mountinfo (proc(5))."""
    found = set()
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ")[0] in PSEUDO_FILE_SYSTEMS:
            major, _, minor = fields.split(" ")[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def _is_content(path: str) -> bool:
    """Whether SRC/. or SRC/.. was written: the directory's content is meant, not the directory."""
    return path.endswith(("/.", "/..")) or path in (".", "..")


def _source(source: Tree, path: str, follow: bool) -> Entry:
    trailing = path.endswith("/") or _is_content(path)
    found = source.find(components(path), follow=follow or trailing)
    if found is None:
        raise NotFound(f"no such path '{path}' {source.where}".rstrip())
    if trailing and found.kind is not DIR:
        raise Conflict(f"cannot copy '{path}'", "it is not a directory")
    found.parts = source.stack.resolve(components(path), follow=follow or trailing)
    return found


def _destination(source_path: str, found: Entry, target: Tree, path: str, called: bytes) -> Path:
    """Where the source goes, resolved: into the directory at `path`, onto the file there, or to a new name."""
    asked = components(path)
    there = target.find(asked, follow=True)
    if there is not None and there.kind is DIR:
        base = target.stack.resolve(asked)
        name = components(source_path)
        if found.kind is DIR and (_is_content(source_path) or not (name or called)):
            return base
        return (*base, called or (found.parts if name[-1] == b".." else name)[-1])
    if there is not None:
        if found.kind is DIR:
            raise Conflict(f"cannot copy a directory to '{path}'", "there is a file of that name")
        if path.endswith("/"):
            raise Conflict(f"cannot copy to '{path}'", "it is not a directory")
        return target.stack.resolve(asked)
    if path.endswith("/") and found.kind is not DIR:
        raise NotFound(f"no directory '{path}'", target.where, hint="create it first, or leave the slash off")
    parent = target.find(asked[:-1], follow=True)
    if parent is None or parent.kind is not DIR:
        raise NotFound(f"no directory '{os.fsdecode(b'/' + b'/'.join(asked[:-1]))}'", target.where)
    return (*target.stack.resolve(asked[:-1]), asked[-1])


def _directory(target: Tree, path: str) -> Path:
    there = target.find(components(path), follow=True)
    if there is None:
        raise NotFound(f"no directory '{path}'", target.where)
    if there.kind is not DIR:
        raise Conflict(f"cannot extract to '{path}'", "it is not a directory")
    return target.stack.resolve(components(path))


def _plain(item: tuple[Entry, Iterator[bytes]]) -> tuple[Entry, Iterator[bytes]]:
    entry, data = item
    if entry.kind is CHAR or entry.kind is BLOCK:
        raise entry.error("a device node is copied to the host only with -a")
    entry.mode &= 0o1777
    entry.xattrs = None
    return entry, data
