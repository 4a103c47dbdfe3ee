# SPDX-License-Identifier: Apache-2.0
"""The ledger: transfers from pipes and terminals, tails, slots, and what is found after an interruption."""

from __future__ import annotations

import os
import pty
import select
import tty

import pytest

from pyrun.runtime.monitor.inbox import BATCH, TAIL, Ledger


def pipe_with(data: bytes) -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.write(writer, data)
    return reader, writer


def again(ledger: Ledger) -> Ledger:
    """What a later monitor gets from the keeper: the same open files."""
    return Ledger(tuple(os.dup(fd) for fd in ledger.fds))


def test_a_transfer_takes_what_is_there() -> None:
    """All bytes, binary ones too; then BlockingIOError; then b"" at the end."""
    ledger = Ledger()
    slot = ledger.claim()
    data = os.urandom(50_000)
    reader, writer = pipe_with(data)
    ledger.begin(slot, 1, 2)
    assert ledger.take(reader) == data
    ledger.commit(slot, b"tail")
    assert ledger.tail(slot) == b"tail"
    ledger.begin(slot, 1, 2)
    with pytest.raises(BlockingIOError):
        ledger.take(reader)
    ledger.cancel()
    os.close(writer)
    ledger.begin(slot, 1, 2)
    assert ledger.take(reader) == b""


def test_a_limit_leaves_the_rest_in_the_pipe() -> None:
    """Small batches for small log files."""
    ledger = Ledger()
    slot = ledger.claim()
    reader, _ = pipe_with(b"abcdefgh")
    ledger.begin(slot, 1, 2)
    assert ledger.take(reader, 5) == b"abcde"
    ledger.commit(slot, b"")
    assert os.read(reader, 10) == b"fgh"


def test_a_terminal_is_taken_by_way_of_a_pipe() -> None:
    """And its hang-up is EIO."""
    ledger = Ledger()
    slot = ledger.claim()
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    os.write(slave, b"x" * 300)
    select.select([master], [], [], 10)  # the kernel carries it over in a moment of its own
    ledger.begin(slot, 1, 2)
    assert ledger.take(master, terminal=True) == b"x" * 300
    ledger.commit(slot, b"")
    os.close(slave)
    ledger.begin(slot, 1, 2)
    with pytest.raises(OSError):
        ledger.take(master, terminal=True)


def test_interrupted_before_the_taking() -> None:
    """Nothing was taken: nothing is to be logged, but the log is to be cut."""
    ledger = Ledger()
    slot = ledger.claim()
    reader, _ = pipe_with(b"old")
    ledger.begin(slot, 1, 2)
    ledger.take(reader)
    ledger.commit(slot, b"old")
    ledger.begin(slot, 77, 88)
    assert again(ledger).unfinished() == (slot, 77, 88, b"")


def test_interrupted_after_the_taking() -> None:
    """The bytes and the old tail are there; the log's file and size are those noted last."""
    ledger = Ledger()
    slot = ledger.claim()
    reader, _ = pipe_with(b"taken")
    ledger.begin(slot, 77, 88)
    ledger.take(reader)
    ledger.rotated(78, 0)
    later = again(ledger)
    later.reclaim([slot])
    assert later.unfinished() == (slot, 78, 0, b"taken")
    assert later.tail(slot) == b""
    later.commit(slot, b"new")
    assert later.tail(slot) == b"new"
    assert again(later).unfinished() is None


def test_interrupted_between_a_terminals_two_steps() -> None:
    """What waits in the pipe is found, and belongs to the transfer."""
    ledger = Ledger()
    slot = ledger.claim()
    ledger.begin(slot, 1, 2)
    os.write(ledger.fds[2], b"on its way")  # as splice(terminal -> pipe) leaves it
    assert again(ledger).unfinished() == (slot, 1, 2, b"on its way")


def test_interrupted_after_sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is complete: the new tail counts, and nothing is done again."""
    ledger = Ledger()
    slot = ledger.claim()
    reader, _ = pipe_with(b"taken")
    ledger.begin(slot, 1, 2)
    ledger.take(reader)
    monkeypatch.setattr(ledger, "_settle", lambda: None)
    ledger.commit(slot, b"new tail")
    later = again(ledger)
    assert later.unfinished() is None
    assert later.tail(slot) == b"new tail"


def test_slots_are_apart_and_used_again() -> None:
    """Each stream its own tail, of up to the longest; a slot claimed again begins empty."""
    ledger = Ledger()
    slots = [ledger.claim() for _ in range(50)]
    reader, writer = os.pipe2(os.O_NONBLOCK)
    for slot in slots:
        os.write(writer, b"x")
        ledger.begin(slot, 1, 2)
        ledger.take(reader)
        ledger.commit(slot, b"%d" % slot * (TAIL // len(b"%d" % slot)))
    assert [ledger.tail(slot)[:2] for slot in (7, 8, 49)] == [b"77", b"88", b"49"]
    ledger.release(slots[7])
    assert ledger.claim() == slots[7]
    assert ledger.tail(slots[7]) == b""
    later = again(ledger)
    later.reclaim([0, 3])
    assert [later.claim() for _ in range(4)] == [1, 2, 4, 5]


def test_a_full_pipe_is_one_batch() -> None:
    """64 KiB at once, what a pipe holds by default."""
    ledger = Ledger()
    slot = ledger.claim()
    reader, _ = pipe_with(bytes(BATCH))
    ledger.begin(slot, 1, 2)
    assert len(ledger.take(reader)) == BATCH
