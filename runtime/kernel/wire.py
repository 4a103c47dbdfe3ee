# SPDX-License-Identifier: Apache-2.0
"""The wire format of init/wire.h for the Python side: names, signatures and constants, read from C through cffi."""

from __future__ import annotations

from ._kernel import ffi, lib

#: operation name -> (number, signature)
OPERATIONS: dict[str, tuple[int, str]] = {
    ffi.string(lib.pyrun_wire_name(number)).decode("ascii"): (
        number,
        ffi.string(lib.pyrun_wire_signature(number)).decode("ascii"),
    )
    for number in range(lib.pyrun_wire_count())
}

MAGIC: int = lib.WIRE_MAGIC
VERSION: int = lib.WIRE_VERSION
PLAN_TRACE: int = lib.PLAN_TRACE
NO_FD = 0xFFFFFFFFFFFFFFFF
REPORT_SYNC: int = lib.REPORT_SYNC
REPORT_ERROR: int = lib.REPORT_ERROR
REPORT_TRACE: int = lib.REPORT_TRACE
REPORT_PID: int = lib.REPORT_PID
REPORT_FD: int = lib.REPORT_FD
REPORT_READY: int = lib.REPORT_READY
REPORT_EXEC: int = lib.REPORT_EXEC
