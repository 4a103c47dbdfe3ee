# SPDX-License-Identifier: Apache-2.0
"""Entry: one object of a file tree, as tar describes it. What readers yield and writers take.

Readers: tarread (a tar stream), walk (a directory by fd), layered (stacked layers). Writers: tree (a directory by fd),
tarwrite (a tar stream). Names are bytes, as the kernel has them.
"""

from __future__ import annotations

import stat

from .limits import ArchiveError

FILE, DIR, SYMLINK, HARDLINK, CHAR, BLOCK, FIFO = "file", "dir", "symlink", "hardlink", "char", "block", "fifo"
SOCKET = "socket"  # only ever read: archives hold none
S_IFMT_OF = {
    FILE: stat.S_IFREG, DIR: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}  # fmt: skip
KIND_OF = {mode: kind for kind, mode in S_IFMT_OF.items()}

MAX_ID = 2**32 - 2  # 2**32-1 is (uid_t)-1, "leave it as it is" to chown(2)


class Entry:
    """One object. `parts` is its path below the root, () for the root itself; `size` counts the data bytes that follow.

    A sparse file has `regions` ((offset, length), …) whose lengths add up to `size`, and an apparent `real_size`.
    `link` is the target: text for a symlink, a path below the same root for a hard link. Times in nanoseconds.
    """

    __slots__ = (
        "gid", "kind", "link", "mode", "mtime_ns", "parts", "rdev", "real_size", "regions", "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(
        self,
        parts: tuple[bytes, ...],
        kind: str,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        rdev: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
        regions: tuple[tuple[int, int], ...] | None = None,
        real_size: int = 0,
    ) -> None:
        self.parts = parts
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.link = link
        self.rdev = rdev
        self.xattrs = xattrs
        self.regions = regions
        self.real_size = real_size

    @property
    def path(self) -> bytes:
        """The path below the root, without a leading slash; b"" for the root."""
        return b"/".join(self.parts)

    def __repr__(self) -> str:
        return f"Entry({show(self.path)!r}, {self.kind}, {self.mode:o}, {self.uid}:{self.gid}, size={self.size})"

    def error(self, why: str, hint: str = "") -> ArchiveError:
        """An ArchiveError that names this entry."""
        return ArchiveError(f"archive entry '{show(self.path)}'", why, hint=hint)


def show(name: bytes) -> str:
    """`name` for a message: control characters and bytes that are not UTF-8 are escaped, long names are cut."""
    text = name.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 300 else text[:300] + "…"


def split(name: bytes, what: str = "archive entry") -> tuple[bytes, ...]:
    """The components of an archive's path: an absolute name is taken below the root, "." and "" are dropped.

    Raises ArchiveError for a ".." component, which no tool that makes images writes, and for a NUL.
    """
    parts = tuple([part for part in name.split(b"/") if part and part != b"."])
    if b".." in parts or b"\0" in name:
        raise ArchiveError(f"{what} '{show(name)}'", "'..' in its path" if b".." in parts else "NUL in its path")
    return parts
