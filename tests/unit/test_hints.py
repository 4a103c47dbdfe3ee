# SPDX-License-Identifier: Apache-2.0
"""What a failed exec is told apart by: the head of the program."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from pyrun.runtime.oci import hints
from pyrun.runtime.oci import steps as s


def elf(machine: int, interpreter: bytes = b"") -> bytes:
    """A 64-bit little-endian ELF header with a PT_INTERP, as far as hints reads it."""
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(interpreter) + 1, 0, 1) + interpreter + b"\0"


OTHER = 0xB7 if os.uname().machine == "x86_64" else 0x3E


@pytest.mark.parametrize(
    ("head", "error", "code", "words"),
    [
        (b"#!/bin/sh\r\necho", errno.ENOENT, 127, "ends with CR LF"),
        (b"#!/opt/python3 -I\n", errno.ENOENT, 127, "its interpreter /opt/python3 does not exist"),
        (elf(OTHER), errno.ENOEXEC, 126, "it is built for"),
        (
            elf(hints.MACHINE[os.uname().machine], b"/lib/ld-musl.so.1"),
            errno.ENOENT,
            127,
            "its loader /lib/ld-musl.so.1",
        ),
        (b"echo hello\n", errno.ENOEXEC, 126, "neither an ELF program nor has it a #! line"),
        (b"", errno.ENOEXEC, 126, "the file is empty"),
    ],
)
def test_exec_failures_are_told_apart(head: bytes, error: int, code: int, words: str) -> None:
    """The kernel says ENOENT or ENOEXEC for all of them."""
    found = hints.start_error(s.Exec(("x",), ()), error, "exec", "/x", head, "x")
    assert words in str(found)
    assert found.code == code
    assert found.errno == error


def test_missing_program_uses_the_words_that_engines_look_for() -> None:
    """podman and docker read the exit code from the text."""
    missing = hints.start_error(s.Lookup("foo", "/bin"), errno.ENOENT, "find program", "foo", b"", "foo")
    assert str(missing) == 'exec "foo": executable file not found in $PATH'
    assert missing.code == 127
    denied = hints.start_error(s.Lookup("/foo", "/bin"), errno.EACCES, "find program", "/foo", b"", "/foo")
    assert str(denied) == 'exec "/foo": permission denied'
    assert denied.code == 126


def test_a_failed_step_says_what_on_what_and_why() -> None:
    """The message alone reproduces the call; the step is a note."""
    step = s.Symlink("pts/ptmx", "/dev/ptmx")
    found = hints.start_error(step, errno.EROFS, "symlink", "/dev/ptmx", b"", "sh")
    assert str(found) == "symlink /dev/ptmx: read-only file system"
    assert found.code == 125
    assert found.__notes__ == [f"step: {step.describe()}"]


@pytest.mark.parametrize(
    ("step", "error", "line", "hint", "code"),
    [
        (
            s.Bind("/gone", "/data"),
            errno.ENOENT,
            "mount /gone on /data: no such file or directory",
            "does not exist",
            125,
        ),
        (s.Bind("/etc", "/data"), errno.ENOTDIR, "mount /etc on /data: not a directory", "a directory cannot be", 125),
        (s.Mkdir("/a/b"), errno.ENOTDIR, "working directory /a/b: not a directory", "there is a file in the way", 126),
        (s.Chdir("/root"), errno.EACCES, "working directory /root: permission denied", "may not enter", 126),
        (s.Sysctl("net/x", "1"), errno.ENOENT, "sysctl net.x=1: no such file or directory", "no such parameter", 125),
        (s.Rlimit(7, 1, 2, "RLIMIT_NOFILE"), errno.EPERM, "limit nofile: operation not permitted", "SYS_RESOURCE", 125),
    ],
)
def test_what_the_user_asked_for_is_called_as_the_user_calls_it(
    step: s.Step, error: int, line: str, hint: str, code: int
) -> None:
    """A mount, a limit, a sysctl, the working directory: one line that names it, and no step of ours."""
    found = hints.start_error(step, error, "open", "/somewhere", b"", "sh")
    assert str(found) == line
    assert hint in found.hint
    assert found.code == code
    assert not hasattr(found, "__notes__")


def test_a_directory_is_no_program() -> None:
    """As docker says it; 126."""
    found = hints.start_error(s.Lookup("/etc", "/bin"), errno.EISDIR, "find program", "/etc", b"", "/etc")
    assert str(found) == 'exec "/etc": is a directory'
    assert found.code == 126
