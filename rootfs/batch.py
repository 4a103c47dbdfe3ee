# SPDX-License-Identifier: Apache-2.0
"""Batch: the ordinary entries of an archive, made many at a time by one call into C.

Ordinary: a new directory, symlink or small file, with nothing to replace and no attributes; of ten thousand entries of
an image, all but a hundred. They are only written down here, in order; flush() has runtime/kernel/syscalls.c make them,
without the interpreter lock. Whatever it cannot make so, because the name is taken, the parent is missing, the disk is
full, is left to TreeWriter, one entry at a time, and then it goes on behind that one: what is special is decided in one
place, and in the archive's order.
"""

from __future__ import annotations

import struct

from pyrun.runtime.kernel import syscalls

from .entry import DIR, FILE, S_IFMT_OF, SYMLINK, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Data = Iterable[memoryview | bytes]

MAX_FILE = 1 << 16  # bytes; a larger file is written as it comes, which copies it once less
MAX_OBJECTS = 512
MAX_DATA = 1 << 20
_OBJECT = struct.Struct(syscalls.OBJECT)


class Batch:
    """Entries to be made below `root_fd`. make_one: makes a single entry with its data the careful way."""

    def __init__(self, root_fd: int, make_one: Callable[[Entry, Data], None]) -> None:
        self._root_fd = root_fd
        self._make_one = make_one
        self._clear()

    def _clear(self) -> None:
        self._entries: list[Entry] = []
        self._objects = bytearray()
        self._text = bytearray()
        self._data = bytearray()
        self._parent: tuple[bytes, ...] | None = None
        self._parent_at = 0

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is of the ordinary kind."""
        kind = entry.kind
        if entry.xattrs or not entry.parts:
            return False
        return kind is DIR or kind is SYMLINK or (kind is FILE and entry.size <= MAX_FILE and entry.regions is None)

    def add(self, entry: Entry, data: Data, uid: int, gid: int) -> None:
        """Writes down an entry that it takes(). Errors come out of flush(), which may be called here already."""
        parts, text = entry.parts, self._text
        if parts[:-1] != self._parent:
            self._parent = parts[:-1]
            self._parent_at = len(text)
            text += b"/".join(self._parent) + b"\0"
        name = len(text)
        text += parts[-1] + b"\0"
        start = len(self._data)
        length = 0
        if entry.kind is FILE:
            for piece in data:
                self._data += piece
            length = len(self._data) - start
        elif entry.kind is SYMLINK:
            start = len(text)
            text += entry.link + b"\0"
        seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
        self._objects += _OBJECT.pack(
            S_IFMT_OF[entry.kind], entry.mode, uid, gid, seconds, nanoseconds,
            self._parent_at, name, length, start,
        )  # fmt: skip
        self._entries.append(entry)
        if len(self._entries) >= MAX_OBJECTS or len(self._data) >= MAX_DATA:
            self.flush()

    def flush(self) -> None:
        """Makes all that was written down. Raises what make_one() does; the entries behind that one are dropped."""
        entries, objects, text, data = self._entries, self._objects, self._text, self._data
        if not entries:
            return
        self._clear()
        done = 0
        while (done := syscalls.make_objects(self._root_fd, objects, done, text, data)) < len(entries):
            fields = _OBJECT.unpack_from(objects, done * _OBJECT.size)
            content = bytes(data[fields[9] : fields[9] + fields[8]])
            self._make_one(entries[done], (content,) if content else ())
            done += 1
