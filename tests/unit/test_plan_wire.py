# SPDX-License-Identifier: Apache-2.0
"""The wire format from the Python side: signatures, descriptors, strings."""

from __future__ import annotations

import struct

import pytest

from pyrun.runtime.kernel import wire as kernel_wire
from pyrun.runtime.oci import steps as s
from pyrun.runtime.oci.wire import Wire


def test_every_operation_has_a_step_and_every_step_an_operation() -> None:
    """Neither side can have something that the other lacks."""
    assert s.check_steps() == []


def test_arguments_must_fit_the_signature() -> None:
    """A wrong type or count is found in Python, not by pyrun-init."""
    wire = Wire()
    with pytest.raises(ValueError, match="HOSTNAME takes 1 arguments, got 2"):
        wire.add("HOSTNAME", ["a", "b"])
    with pytest.raises(ValueError, match="does not fit 's'"):
        wire.add("HOSTNAME", [5])
    with pytest.raises(ValueError, match="NUL"):
        wire.add("HOSTNAME", ["a\0b"])


def test_descriptors_are_numbered_in_order_of_mention() -> None:
    """Each name once; None is NO_FD."""
    wire = Wire()
    wire.add("STDIO", ["in", "out", "out"])
    wire.add("STDIO", [None, "in", None])
    assert wire.fd_names == ["in", "out"]
    plan = wire.finish(trace=False)
    body = struct.unpack_from("=QQQ", plan, 20 + 8 + 24 + 8)
    assert body == (kernel_wire.NO_FD, 0, kernel_wire.NO_FD)


def test_header_counts_records_and_descriptors() -> None:
    """magic, version, flags, records, descriptors."""
    wire = Wire()
    wire.add("HOSTNAME", ["x"])
    wire.add("WAIT_START", ["exec.fifo"])
    header = struct.unpack_from("=IIIII", wire.finish(trace=True))
    assert header == (kernel_wire.MAGIC, kernel_wire.VERSION, kernel_wire.PLAN_TRACE, 2, 1)


def test_bytes_that_are_no_utf8_survive() -> None:
    """Arguments and environment are bytes to the kernel; surrogateescape round-trips them."""
    wire = Wire()
    wire.add("EXEC", [["\udcff"], ["A=\udc80"]])
    assert b"\xff\0" in wire.finish(trace=False)
    assert b"A=\x80\0" in wire.finish(trace=False)
