# SPDX-License-Identifier: Apache-2.0
"""What an overlay's upper directory says about the layers below it, found by fd and without mounting anything.

overlayfs keeps there what was made or changed, whole; a character device 0:0 where something was deleted; and
trusted.overlay.opaque=y on a directory that replaces the one below (Documentation/filesystems/overlayfs.rst). Also
without need: every directory made in a merged one is marked opaque, and a deleted name may be one that no layer has.
Here only what makes a difference is told, so that the same changes give the same layer.

The directory may be a running container's. No name is followed, and nothing is opened before it was looked at.
"""

from __future__ import annotations

import errno
import os
import stat

from . import xattrs
from .entry import show
from .limits import DEFAULT_LIMITS, ArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterator, Sequence

    Path = tuple[bytes, ...]

KEPT, DELETED, OPAQUE = "kept", "deleted", "opaque"
NOTHING: Container[Path] = ()
# The second name of each is that of mounts with userxattr (Linux 5.11)
_OPAQUE_NAMES = ("trusted.overlay.opaque", "user.overlay.opaque")
_REDIRECTS = ("trusted.overlay.redirect", "user.overlay.redirect")  # on a renamed directory, with redirect_dir=on
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found:
    """One difference at `parts` (() is the root). `fd` is open until the next one is asked for.

    what    KEPT: the object behind `fd`, with `info` as its stat, is there; DELETED: the layers below have it, and it
            is gone; OPAQUE: nothing of what the layers below have in this directory is left (after its KEPT)
    below   stat of what the layers below have at this path, None for nothing
    hidden  an OPAQUE directory is above: what the layers below have here is not seen any more, `below` or not
    lowers  fds of this directory in the layers below, topmost first, for a directory
    """

    __slots__ = ("below", "fd", "hidden", "info", "lowers", "parts", "what")

    def __init__(
        self,
        what: str,
        parts: Path,
        fd: int,
        info: os.stat_result,
        below: os.stat_result | None,
        hidden: bool,
        lowers: list[int],
    ) -> None:
        self.what = what
        self.parts = parts
        self.fd = fd
        self.info = info
        self.below = below
        self.hidden = hidden
        self.lowers = lowers


class _Directory:
    """A directory that the walk is in. `told` once it was handed out, or has no need to be."""

    def __init__(self, found: Found, *, hidden: bool) -> None:
        self.found = found
        self.hidden = hidden
        self.told = False
        self.left_out = False  # something in it is on the list of what to leave out
        self.names = iter(sorted(_names(found.fd)))

    def close(self) -> None:
        os.close(self.found.fd)
        for fd in self.found.lowers:
            os.close(fd)


def walk(directory: str, lowers: Sequence[str], ignore: Container[Path] = NOTHING) -> Generator[Found, None, None]:
    """Every difference, parents first, names in byte order.

    Args:
        directory: the upper directory, or a fresh tree.
        lowers: the directories below it, lowest first.
        ignore: paths that are left out with all below them.

    A directory that looks as below, and in which nothing differs, is not told: it is there because something was
    changed back, or for a path of `ignore`. Raises ArchiveError for what cannot be understood, OSError.
    """
    stack: list[_Directory] = []
    try:
        stack.append(_top(directory, lowers))
        if _root_differs(stack[0].found):
            yield stack[0].found
        while stack:
            current = stack[-1]
            name = next(current.names, None)
            if name is None:
                yield from _leave(stack)
                continue
            parts = (*current.found.parts, name)
            if parts in ignore:
                current.left_out = True
                continue
            try:
                fd = os.open(name, _LOOK, dir_fd=current.found.fd)
            except FileNotFoundError:
                continue  # removed in this moment
            entered = False
            try:
                info = os.fstat(fd)
                below = lookup(current.found.lowers, name)
                if is_whiteout(info):
                    if below is not None and not current.hidden:
                        yield from _tell(stack)
                        yield Found(DELETED, parts, -1, info, below, False, [])
                elif not stat.S_ISDIR(info.st_mode):
                    yield from _tell(stack)
                    yield Found(KEPT, parts, fd, info, below, current.hidden, [])
                else:
                    inside = _enter(current, name, parts, below)
                    if inside is not None:
                        stack.append(inside)
                        entered = True
            finally:
                os.close(fd)
            if entered:
                yield from _begin(stack)
    finally:
        for left in stack:
            left.close()


def _top(directory: str, lowers: Sequence[str]) -> _Directory:
    fds: list[int] = []
    try:
        fds.append(os.open(directory, _LIST & ~os.O_NOFOLLOW))
        fds += [os.open(lower, _LOOK & ~os.O_NOFOLLOW | os.O_DIRECTORY) for lower in reversed(lowers)]
        below = os.fstat(fds[1]) if lowers else None
        return _Directory(Found(KEPT, (), fds[0], os.fstat(fds[0]), below, False, fds[1:]), hidden=False)
    except BaseException:
        _close(fds)
        raise


def _enter(parent: _Directory, name: bytes, parts: Path, below: os.stat_result | None) -> _Directory | None:
    if len(parts) > DEFAULT_LIMITS.max_depth:
        raise ArchiveError(f"'{show(b'/'.join(parts))}'", f"more than {DEFAULT_LIMITS.max_depth} directories deep")
    try:
        fd = os.open(name, _LIST, dir_fd=parent.found.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None  # removed or replaced in this moment
    lowers: list[int] = []
    try:
        if below is not None and stat.S_ISDIR(below.st_mode):
            lowers = descend(parent.found.lowers, name)
        return _Directory(Found(KEPT, parts, fd, os.fstat(fd), below, parent.hidden, lowers), hidden=parent.hidden)
    except BaseException:
        _close([fd, *lowers])
        raise


def _begin(stack: list[_Directory]) -> Iterator[Found]:
    """What is to be said on entering the last directory of `stack`."""
    current = stack[-1]
    names = _attributes(current.found)
    if current.hidden:
        yield from _tell(stack)
    if current.found.lowers and any(name in names for name in _OPAQUE_NAMES) and _is_opaque(current.found.fd):
        yield from _tell(stack)
        found = current.found
        if not current.hidden:
            yield Found(OPAQUE, found.parts, found.fd, found.info, found.below, False, found.lowers)
        current.hidden = True


def _attributes(found: Found) -> list[str]:
    try:
        names = os.listxattr(found.fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    for name in names:
        if name in _REDIRECTS:
            raise ArchiveError(
                f"directory '{show(b'/'.join(found.parts))}'",
                f"overlayfs renamed it in a way that no layer can hold ({name})",
                hint="mount the overlay with redirect_dir=off",
            )
    return names


def _tell(stack: list[_Directory]) -> Iterator[Found]:
    """The directories above a difference that were not told yet; the root is told first or never."""
    for directory in stack[1:]:
        if not directory.told:
            directory.told = True
            yield directory.found


def _leave(stack: list[_Directory]) -> Iterator[Found]:
    """The end of the last directory in `stack`: told if it differs itself."""
    current = stack[-1]
    try:
        if len(stack) > 1 and not current.told:
            if _differs(current):
                yield from _tell(stack)
            elif current.left_out:
                stack[-2].left_out = True  # it was made, or touched, for what is left out
    finally:
        stack.pop().close()


def _root_differs(found: Found) -> bool:
    """Its time does not count: it changes with whatever is made in the root, and began when the upper was made."""
    if not found.lowers:  # a fresh tree: unlike what readers of layers take a root for that is not in it
        return (stat.S_IMODE(found.info.st_mode), found.info.st_uid, found.info.st_gid) != (0o755, 0, 0)
    return _looks_different(found)


def _differs(current: _Directory) -> bool:
    """Whether a directory in which nothing differs does so itself."""
    found = current.found
    if not found.lowers:
        return not current.left_out
    assert found.below is not None
    if found.info.st_mtime_ns != found.below.st_mtime_ns and not current.left_out:
        return True
    return _looks_different(found)


def _looks_different(found: Found) -> bool:
    assert found.below is not None
    return not same_owner_and_mode(found.info, found.below) or (
        _kept_attributes(found.fd) != _kept_attributes(found.lowers[0])
    )


def _kept_attributes(fd: int) -> dict[bytes, bytes]:
    return xattrs.get(b"/proc/self/fd/%d" % fd, follow=True) or {}


def take_root(upper: str, lowers: Sequence[str]) -> None:
    """Gives an empty upper directory the owner, mode and attributes of the root below (lowest first; of none: 0755).

    overlayfs shows the upper directory's own as those of "/", and mkdir(2) made them of the caller's umask. Raises
    OSError.
    """
    if not lowers:
        os.chmod(upper, 0o755)
        return
    info = os.stat(lowers[-1])
    os.chown(upper, info.st_uid, info.st_gid)
    os.chmod(upper, stat.S_IMODE(info.st_mode))
    for name, value in (xattrs.get(os.fsencode(lowers[-1])) or {}).items():
        os.setxattr(upper, name, value)


def same_owner_and_mode(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether chmod(2) and chown(2) would change nothing."""
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def is_whiteout(info: os.stat_result) -> bool:
    """Whether it is overlayfs's mark for a deleted name."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def lookup(lowers: Sequence[int], name: bytes) -> os.stat_result | None:
    """What merged directories (fds, topmost first) show under `name`: the topmost that has it decides."""
    for fd in lowers:
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        return None if is_whiteout(info) else info
    return None


def descend(lowers: Sequence[int], name: bytes) -> list[int]:
    """New O_PATH fds of the directory `name` in merged directories, topmost first, down to an opaque one."""
    found: list[int] = []
    try:
        for fd in lowers:
            try:
                inside = os.open(name, _LOOK, dir_fd=fd)
            except FileNotFoundError:
                continue
            found.append(inside)
            if not stat.S_ISDIR(os.fstat(inside).st_mode):
                os.close(found.pop())  # a file, or a whiteout: hides what is below it
                break
            if _is_opaque(inside):
                break
    except BaseException:
        _close(found)
        raise
    return found


def listed(lowers: Sequence[int]) -> list[bytes]:
    """The names that merged directories show, sorted."""
    names: dict[bytes, None] = {}
    for fd in lowers:
        readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            names.update(dict.fromkeys(_names(readable)))
        finally:
            os.close(readable)
    return sorted(name for name in names if lookup(lowers, name) is not None)


def _names(fd: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(fd)]


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE_NAMES:
        try:
            if os.getxattr(b"/proc/self/fd/%d" % fd, name) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    return False


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
