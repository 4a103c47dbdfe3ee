# SPDX-License-Identifier: Apache-2.0
"""libseccomp's filter builder under its own names, raising OSError with the call in words (seccomp_rule_add(3)).

Only what runtime/oci/seccomp.py needs; the extension module is built from seccomp_cdef.py. Importing this loads
libseccomp.so: a start whose filter is cached need not.
"""

from __future__ import annotations

import os

from . import _seccomp
from ._seccomp import ffi as _cffi
from ._seccomp import lib as _clib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self

_lib: Any = _clib
_ffi: Any = _cffi

EXTENSION = os.fsencode(_seccomp.__file__ or "")  # the file of the extension module

# seccomp_rule_add(3), seccomp_init(3)
ACTIONS: dict[str, int] = {
    "SCMP_ACT_KILL": _lib.SCMP_ACT_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _lib.SCMP_ACT_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _lib.SCMP_ACT_KILL_PROCESS,
    "SCMP_ACT_TRAP": _lib.SCMP_ACT_TRAP,
    "SCMP_ACT_LOG": _lib.SCMP_ACT_LOG,
    "SCMP_ACT_NOTIFY": _lib.SCMP_ACT_NOTIFY,
    "SCMP_ACT_ALLOW": _lib.SCMP_ACT_ALLOW,
}
COMPARE: dict[str, int] = {
    name: getattr(_lib, name)
    for name in (
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    )
}


def version() -> str:
    """The version of the library that is loaded, such as "2.5.4"."""
    found = _lib.seccomp_version()
    return f"{found.major}.{found.minor}.{found.micro}"


def api() -> int:
    """The API level (seccomp_api_get(3)): what library and running kernel can do together; 6 has notifications."""
    return int(_lib.seccomp_api_get())


def action(name: str, value: int) -> int:
    """The number of an action; `value` is the errno of SCMP_ACT_ERRNO or the message of SCMP_ACT_TRACE."""
    if name == "SCMP_ACT_ERRNO":
        return int(_lib.act_errno(value))
    if name == "SCMP_ACT_TRACE":
        return int(_lib.act_trace(value))
    return ACTIONS[name]


def arch_native() -> int:
    """The token of the architecture that pyrun runs on."""
    return int(_lib.seccomp_arch_native())


def arch_resolve_name(name: str) -> int:
    """The token of an architecture by libseccomp's name ("x86_64", "aarch64"), or 0 if this version knows no such."""
    return int(_lib.seccomp_arch_resolve_name(name.encode()))


def syscall_resolve_name(name: str) -> int | None:
    """The number of a system call here; negative where only another architecture has it; None if unknown."""
    number = int(_lib.seccomp_syscall_resolve_name(name.encode()))
    return None if number == _lib.__NR_SCMP_ERROR else number


def syscall_resolve_name_arch(token: int, name: str) -> int | None:
    """The number of a system call on the architecture `token`; negative or None if it has no such call."""
    number = int(_lib.seccomp_syscall_resolve_name_arch(token, name.encode()))
    return None if number == _lib.__NR_SCMP_ERROR else number


class Filter:
    """A scmp_filter_ctx, released at the end of the `with` block."""

    def __init__(self, default_action: int) -> None:
        self._context = _lib.seccomp_init(default_action)
        if self._context == _ffi.NULL:
            raise OSError(22, f"seccomp_init {default_action:#x}: {os.strerror(22)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        _lib.seccomp_release(self._context)
        self._context = _ffi.NULL

    def arch_add(self, token: int) -> None:
        """Adds an architecture; one that is there already is no error. Raises OSError."""
        code = _lib.seccomp_arch_add(self._context, token)
        if code != -17:  # EEXIST
            self._check(code, f"seccomp_arch_add {token:#x}")

    def optimize(self, level: int) -> None:
        """SCMP_FLTATR_CTL_OPTIMIZE: 2 makes a binary tree of the system calls."""
        code = _lib.seccomp_attr_set(self._context, _lib.SCMP_FLTATR_CTL_OPTIMIZE, level)
        self._check(code, f"seccomp_attr_set SCMP_FLTATR_CTL_OPTIMIZE {level}")

    def rule_add(self, act: int, number: int, conditions: Sequence[tuple[int, int, int, int]] = ()) -> None:
        """Adds a rule: `act` for system call `number` when all (argument, operator, datum_a, datum_b) hold."""
        array = _ffi.new("struct scmp_arg_cmp[]", [tuple(entry) for entry in conditions])
        code = _lib.seccomp_rule_add_array(self._context, act, number, len(conditions), array)
        self._check(code, f"seccomp_rule_add {act:#x} {number}")

    def export_bpf(self) -> bytes:
        """The program as an array of struct sock_filter in the byte order of this machine."""
        fd = os.memfd_create("pyrun-seccomp", os.MFD_CLOEXEC)
        try:
            self._check(_lib.seccomp_export_bpf(self._context, fd), "seccomp_export_bpf")
            size = os.fstat(fd).st_size
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)

    @staticmethod
    def _check(code: int, call: str) -> None:
        if code < 0:
            raise OSError(-code, f"{call}: {os.strerror(-code)}")
