# SPDX-License-Identifier: Apache-2.0
"""Output on its way from a pipe to the log, exactly once, whenever the monitor is killed with SIGKILL.

read(2) followed by write(2) cannot be exact: killed between the two, the bytes are in neither place; and with tee(2)
first, nobody can tell afterwards whether they had been consumed. So the bytes are moved by splice(2) from the pipe
into a memfd, the *ledger*, which the keeper holds too. A splice either happened or not, and the file offset of the
ledger, which the kernel moves with the bytes, says how many came. One transfer at a time, in five steps:

    phase 1  begin    the slot of the stream, and which log file has which size, are written down
             take     splice: pipe -> inbox in the ledger (a terminal cannot be spliced into a file: by way of a pipe)
             ...      the caller renders (old tail + inbox) as log lines and appends them to the log
    phase 2  seal     the new tail (an unfinished line, less than 16 KiB) goes into the stream's spare buffer
    phase 0  commit   the spare buffer becomes the tail

A new monitor finds phase 1: it cuts the log back to the noted size, renders what tail and inbox hold and appends it
again; phase 2: the log is complete, so it commits; phase 0: nothing was under way. A phase is one byte, stored after
what it stands for; a processor stores in program order as far as a later reader of the memory can tell.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import termios
from heapq import heappop, heappush
from struct import Struct

from pyrun.runtime.kernel.syscalls import SPLICE_F_MOVE, SPLICE_F_NONBLOCK, splice_to
from pyrun.runtime.monitor.fault import fault

BATCH = 64 * 1024  # a pipe's default capacity: pipe(7)
TAIL = 16 * 1024  # the longest unfinished line that is held back, as docker's
SLOTS = 16 * 1024

_HEAD = Struct("<BBxxIQQ")  # phase, active buffer after commit, slot, inode and size of the log at the beginning
_NOTED = Struct("<QQ")  # the last two of them
_SLOT = Struct("<BxxxII")  # active buffer, length of buffer 0, length of buffer 1
_SLOT_SIZE = 16
_TABLE_AT = 4096
_INBOX_AT = _TABLE_AT + SLOTS * _SLOT_SIZE
_TAILS_AT = _INBOX_AT + BATCH
_SIZE = _TAILS_AT + SLOTS * 2 * TAIL  # sparse: what no stream has used takes no memory
_FLAGS = SPLICE_F_MOVE | SPLICE_F_NONBLOCK

IDLE, BEGUN, SEALED = 0, 1, 2


class Ledger:
    """The transfers of all streams of a monitor. Every stream that is logged has a slot of its own."""

    def __init__(self, fds: tuple[int, ...] = ()) -> None:
        """A new ledger; or, with the `fds` of an earlier one, that one (claim() its slots, then recover())."""
        if not fds:
            memory = os.memfd_create("pyrun-ledger", os.MFD_CLOEXEC)
            os.ftruncate(memory, _SIZE)
            fds = (memory, *os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        self.fds = fds
        self._memory, self._pipe_out, self._pipe_in = fds
        self._map = mmap.mmap(self._memory, _SIZE)
        self._free: list[int] = []
        self._next = 0
        self._pending = array.array("i", [0])

    # ---- slots

    def claim(self) -> int:
        """A free slot with an empty tail. Raises OSError (ENFILE) when there are none left."""
        if self._free:
            slot = heappop(self._free)
        elif self._next < SLOTS:
            slot = self._next
            self._next += 1
        else:
            raise OSError(23, "the monitor has no room for more streams")
        self._map[_TABLE_AT + slot * _SLOT_SIZE : _TABLE_AT + (slot + 1) * _SLOT_SIZE] = bytes(_SLOT_SIZE)
        return slot

    def reclaim(self, slots: list[int]) -> None:
        """Marks as used the slots that an earlier monitor's streams have; once, before any claim()."""
        used = set(slots)
        self._next = max(used, default=-1) + 1
        for slot in range(self._next):
            if slot not in used:
                heappush(self._free, slot)

    def release(self, slot: int) -> None:
        """The stream is over."""
        heappush(self._free, slot)

    def tail(self, slot: int) -> bytes:
        """The unfinished line of the stream, which is in no log yet."""
        active, *lengths = _SLOT.unpack_from(self._map, _TABLE_AT + slot * _SLOT_SIZE)
        at = self._buffer_at(slot, active)
        return self._map[at : at + lengths[active]]

    @staticmethod
    def _buffer_at(slot: int, index: int) -> int:
        return _TAILS_AT + (slot * 2 + index) * TAIL

    # ---- a transfer

    def begin(self, slot: int, log_inode: int, log_size: int) -> None:
        """Notes whose transfer starts and what the log is."""
        os.lseek(self._memory, _INBOX_AT, os.SEEK_SET)
        _HEAD.pack_into(self._map, 0, IDLE, 0, slot, log_inode, log_size)
        self._map[0] = BEGUN
        fault("begun")

    def rotated(self, log_inode: int, log_size: int) -> None:
        """Notes the new log file of the transfer under way, to which nothing has been appended yet."""
        _NOTED.pack_into(self._map, 8, log_inode, log_size)

    def take(self, source: int, limit: int = BATCH, *, terminal: bool = False) -> bytes:
        """Moves what `source` has into the inbox and returns it; b"" at the end of the stream.

        Raises BlockingIOError when there is nothing now, OSError (EIO: a terminal's other side is closed); then
        cancel(). The source must be non-blocking.
        """
        if terminal:
            expected = splice_to(source, self._pipe_in, limit, _FLAGS)
            fault("in-pipe")
            count = 0
            while count < expected:
                count += splice_to(self._pipe_out, self._memory, expected - count, _FLAGS)
        else:
            count = splice_to(source, self._memory, limit, _FLAGS)
        fault("taken")
        return self._map[_INBOX_AT : _INBOX_AT + count]

    def cancel(self) -> None:
        """Nothing was taken."""
        self._map[0] = IDLE

    def commit(self, slot: int, tail: bytes) -> None:
        """The log is written; what it does not hold of the stream is `tail`."""
        entry = _TABLE_AT + slot * _SLOT_SIZE
        spare = 1 - self._map[entry]
        if tail:
            at = self._buffer_at(slot, spare)
            self._map[at : at + len(tail)] = tail
        self._map[entry + 4 + spare * 4 : entry + 8 + spare * 4] = len(tail).to_bytes(4, "little")
        self._map[1] = spare
        self._map[0] = SEALED
        fault("sealed")
        self._settle()

    def _settle(self) -> None:
        slot = int.from_bytes(self._map[4:8], "little")
        self._map[_TABLE_AT + slot * _SLOT_SIZE] = self._map[1]
        fault("settled")
        self._map[0] = IDLE

    # ---- after a kill

    def unfinished(self) -> tuple[int, int, int, bytes] | None:
        """(slot, log inode, log size, bytes taken) of a transfer that must be done again from the log's writing on:
        cut the log, append, commit(). None when there is none; a sealed transfer is committed on the way."""
        phase, _, slot, inode, size = _HEAD.unpack_from(self._map, 0)
        if phase == SEALED:
            self._settle()
        if phase != BEGUN:
            return None
        taken = max(0, os.lseek(self._memory, 0, os.SEEK_CUR) - _INBOX_AT)
        fcntl.ioctl(self._pipe_out, termios.FIONREAD, self._pending)
        if self._pending[0]:  # killed between a terminal's two splices
            taken += splice_to(self._pipe_out, self._memory, BATCH - taken, _FLAGS)
        return slot, inode, size, self._map[_INBOX_AT : _INBOX_AT + taken]
