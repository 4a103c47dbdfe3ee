# SPDX-License-Identifier: Apache-2.0
"""Mount points that the image does not have, in a layer of their own between the image and the step's changes.

/proc, /etc/hosts, the targets of RUN --mount: something has to be there to mount on, and none of it may end up in the
image, not even as a new time of /etc. So nothing is made in the upper directory, and nothing has to be removed from it
afterwards (CVE-2024-23652 was such a removal). Parents look as in the image, because overlayfs copies the topmost one
when the program writes into it.
"""

from __future__ import annotations

import os

from pyrun.rootfs.entry import DIR, FILE, Entry, show
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.tree import TreeWriter
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: what every container mounts, but for what lies in one of the others
DIRECTORIES = ("/proc", "/dev", "/sys")


def components(path: str) -> tuple[bytes, ...]:
    """The components of a path; "" and "." are dropped."""
    return tuple(part for part in os.fsencode(path).split(b"/") if part not in (b"", b"."))


def make(directory: str, lowers: Sequence[str], targets: Iterable[tuple[str, bool]]) -> None:
    """Makes the mount points that are missing below `directory`, an empty one.

    Args:
        lowers: the layers below it, lowest first.
        targets: absolute paths in the container, and whether each is to be a directory; links are followed inside.

    Raises UsageError when something else is in the way, OSError.
    """
    wanted = list(targets)
    tops = [components(path) for path, is_directory in wanted if is_directory]
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Stack(list(reversed(lowers))) as stack, TreeWriter(root_fd, metadata_of=stack.directory) as writer:
            writer.default_root()
            for path, is_directory in wanted:
                parts = components(path)
                if not any(len(top) < len(parts) and parts[: len(top)] == top for top in tops):
                    _add(writer, stack, path, parts, is_directory=is_directory)
    finally:
        os.close(root_fd)


def _add(writer: TreeWriter, stack: Stack, path: str, parts: tuple[bytes, ...], *, is_directory: bool) -> None:
    try:
        parts = stack.resolve(parts)
        try:
            there = stack.entry(parts)
        except FileNotFoundError:
            writer.add(Entry(parts, DIR, 0o755) if is_directory else Entry(parts, FILE, 0o644))
            return
    except NotADirectoryError:
        raise UsageError(
            f"mount on {path}", f"{show(_file_above(stack, parts))} is no directory in the image"
        ) from None
    except OSError as error:
        raise UsageError(f"mount on {path}", os.strerror(error.errno or 0).lower()) from None
    if (there.kind is DIR) != is_directory:
        what = ("a directory", "a file") if there.kind is DIR else ("a file", "a directory")
        raise UsageError(f"mount on {path}", f"the image has {what[0]} there, and what is mounted is {what[1]}")


def _file_above(stack: Stack, parts: tuple[bytes, ...]) -> bytes:
    for depth in range(1, len(parts)):
        if stack.directory(parts[:depth]) is None:
            return b"/" + b"/".join(parts[:depth])
    return b"/" + b"/".join(parts)


def like_below(upper: str, lowers: Sequence[str]) -> None:
    """Gives an empty upper directory the owner, mode, attributes and times of the root below: it is the container's "/"
    from now on. Raises OSError."""
    root_fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Stack(list(reversed(lowers))) as stack, TreeWriter(root_fd, metadata_of=stack.directory) as writer:
            writer.default_root()
    finally:
        os.close(root_fd)
