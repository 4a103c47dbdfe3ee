# SPDX-License-Identifier: Apache-2.0
"""What a failed step means: the message, the hint and the exit code, looked up after the failure and never before.

One table for hints. exec failures are told apart by the head of the program, which pyrun-init sends along: the kernel
says "no such file or directory" for a missing loader, a CRLF shebang and a missing program alike.
"""

from __future__ import annotations

import os
import struct

from pyrun.runtime.errors import EXIT_FAULT, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, StartError
from pyrun.runtime.oci import steps as s

EPERM, ENOENT, ENOEXEC, EACCES, EBUSY, EEXIST, ENODEV, ENOTDIR = 1, 2, 8, 13, 16, 17, 19, 20
EISDIR, EINVAL, ENFILE, EMFILE, ENOSPC, EROFS, ELOOP, ENOSYS, EDQUOT = 21, 22, 23, 24, 28, 30, 40, 38, 122

FILE_AND_DIRECTORY = "a directory cannot be mounted on a file, nor a file on a directory"

#: (operation, errno) -> advice; operation "" is any
HINTS: dict[tuple[str, int], str] = {
    ("", ENOSPC): "for mounts and namespaces this means a limit: see /proc/sys/fs/mount-max and /proc/sys/user/max_*",
    ("", ENOSYS): "the kernel is older than 5.14, or a seccomp filter around pyrun forbids the call",
    ("ROOT_OVERLAY", EINVAL): "the upper directory's file system may not do overlay (another overlay, NFS): "
    "use --data-root on ext4, xfs or btrfs",
    ("ROOT_OVERLAY", ENODEV): "the kernel has no overlay: modprobe overlay",
    ("MOUNT", ENODEV): "the kernel does not know this file system: is its module loaded?",
    ("MOUNT", EPERM): "in a user namespace only some file systems may be mounted",
    ("BIND", ENOENT): "the source of the mount does not exist on the host",
    ("BIND_TREE", ENOENT): "there is nothing of this name in what it is to be mounted from",
    ("BIND_TREE", ENOTDIR): FILE_AND_DIRECTORY,
    ("BIND_TREE", EINVAL): FILE_AND_DIRECTORY,
    ("BIND", ENOTDIR): FILE_AND_DIRECTORY,
    ("BIND", EINVAL): FILE_AND_DIRECTORY,
    ("MOUNT", ENOTDIR): "the image has a file there",
    ("RLIMIT", EPERM): "a hard limit can be raised only with CAP_SYS_RESOURCE, which pyrun does not hold here",
    ("PROC_WRITE", EACCES): "lowering oom_score_adj needs CAP_SYS_RESOURCE, which pyrun does not hold here",
    ("MKNOD", EPERM): "device nodes cannot be made in a user namespace",
    ("SECCOMP", EINVAL): "the kernel refused the filter: has it CONFIG_SECCOMP_FILTER?",
    ("SETNS", EINVAL): "the namespace is of another kind, or its processes are gone",
    ("UNSHARE", EPERM): "are user namespaces restricted here? see /proc/sys/user/max_user_namespaces",
    ("CHDIR", EACCES): "the container's user may not enter it",
    ("MKDIR", ENOTDIR): "there is a file in the way in the image",
    ("MKDIR", EEXIST): "there is a file in the way in the image",
    ("SYSCTL", ENOENT): "this kernel has no such parameter",
    ("SYSCTL", EINVAL): "the kernel refuses this value",
}

ELF_MACHINES = {
    0x03: "i386",
    0x28: "arm",
    0x3E: "amd64",
    0xB7: "arm64",
    0xF3: "riscv64",
    0x16: "s390x",
    0x15: "ppc64le",
}
MACHINE = {"x86_64": 0x3E, "aarch64": 0xB7}


def start_error(step: s.Step | None, errno: int, what: str, path: str, head: bytes, program: str) -> StartError:
    """The StartError for a failed step.

    Args:
        step: the step, or None when it failed before the first one (clone, execveat).
        errno: of the failed system call; what, path: pyrun-init's words for it.
        head: the first bytes of the program when its execve failed.
        program: argv[0], for the message.
    """
    op = step.op if step is not None else ""
    reason = os.strerror(errno).lower() if errno else "failed"
    if op == "LOOKUP":
        return not_found(program, errno)
    if op == "EXEC":
        return exec_error(path, errno, head)
    hint = HINTS.get((op, errno)) or HINTS.get(("", errno), "")
    if step is not None and (name := user_words(step)):
        code = EXIT_NOT_EXECUTABLE if isinstance(step, (s.Mkdir, s.Chdir)) else EXIT_FAULT
        return StartError(name, reason, hint=hint, code=code, errno=errno, path=path)
    where = f" {path}" if path else ""
    error = StartError(f"{what}{where}", reason, hint=hint, code=EXIT_FAULT, errno=errno, path=path)
    if step is not None:
        error.add_note(f"step: {step.describe()}")
    return error


def user_words(step: s.Step) -> str:
    """What the user calls it that the step does; "" where the step's own line says more."""
    if isinstance(step, (s.Mkdir, s.Chdir)):
        return f"working directory {step.path}"
    if isinstance(step, s.Sysctl):
        return f"sysctl {step.path.replace('/', '.')}={step.value}"
    if isinstance(step, s.Rlimit):
        return f"limit {step.name.removeprefix('RLIMIT_').lower()}"
    if isinstance(step, s.BindTree):
        return f"mount {step.source or '/'} on {step.target}"
    if isinstance(step, s.Bind):
        return f"mount {step.source} on {step.target}"
    if isinstance(step, s.Mount):
        return f"mount {step.fstype} on {step.target}"
    return ""


def not_found(program: str, errno: int) -> StartError:
    """LOOKUP failed. The words are the ones that docker, podman and containerd look for."""
    what = f'exec "{program}"'
    if errno == EISDIR:
        return StartError(what, "is a directory", code=EXIT_NOT_EXECUTABLE, errno=errno, path=program)
    if errno == EACCES:
        hint = f"chmod +x {program} in the image?" if "/" in program else ""
        return StartError(what, "permission denied", hint=hint, code=EXIT_NOT_EXECUTABLE, errno=errno, path=program)
    if errno == ENOENT and "/" not in program:
        why = "executable file not found in $PATH"
        hint = "is it installed in the image?"
        if program.startswith("-"):  # docker's users do it too
            hint = "flags go before the name of the image or container; what follows it is the command"
        return StartError(what, why, hint=hint, code=EXIT_NOT_FOUND, errno=errno, path=program)
    code = EXIT_NOT_FOUND if errno == ENOENT else EXIT_NOT_EXECUTABLE
    return StartError(what, os.strerror(errno).lower(), code=code, errno=errno, path=program)


def exec_error(program: str, errno: int, head: bytes) -> StartError:
    """execve failed although the program is there and executable."""
    reason = os.strerror(errno).lower()
    why, hint = explain_program(head, errno)
    code = EXIT_NOT_FOUND if errno == ENOENT else EXIT_NOT_EXECUTABLE if errno in (EACCES, ENOEXEC) else EXIT_FAULT
    if errno == EPERM:
        code = EXIT_NOT_EXECUTABLE
    text = f"{reason}: {why}" if why else reason
    return StartError(f'exec "{program}"', text, hint=hint, code=code, errno=errno, path=program)


def explain_program(head: bytes, errno: int) -> tuple[str, str]:
    """(why, hint) from the first bytes of a program that would not start; ("", "") when they tell nothing."""
    if head.startswith(b"#!"):
        line = head[2:].split(b"\n", 1)[0]
        words = line.split()
        interpreter = os.fsdecode(words[0]).rstrip("\r") if words else ""
        if line.endswith(b"\r"):
            return (
                f"its first line ends with CR LF, so the kernel looks for '{interpreter}\\r'",
                "save the script with Unix line ends: sed -i 's/\\r$//' FILE",
            )
        if errno == ENOENT:
            return f"its interpreter {interpreter} does not exist in the container", "install it in the image"
    elif head.startswith(b"\x7fELF") and len(head) >= 20:
        machine = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
        ours = os.uname().machine
        if errno == ENOEXEC and machine != MACHINE.get(ours):
            built = ELF_MACHINES.get(machine, f"machine {machine:#x}")
            return f"it is built for {built}, this machine is {ours}", "use an image for this machine's architecture"
        if errno == ENOENT:
            loader = elf_interpreter(head)
            return (
                f"its loader {loader or '(ld.so)'} does not exist in the container",
                "it is dynamically linked: install the C library it was built with, or link it statically",
            )
    elif errno == ENOEXEC and head and not head.startswith(b"\x7fELF"):
        return (
            "it is neither an ELF program nor has it a #! line",
            "put #!/bin/sh on the first line, or run it by a shell",
        )
    elif errno == ENOEXEC and not head:
        return "the file is empty", ""
    return "", ""


def elf_interpreter(head: bytes) -> str:
    """The path in PT_INTERP (elf(5)) if it lies within `head`, else ""."""
    try:
        if head[4] != 2 or head[5] != 1:  # 64 bit, little endian: what pyrun runs on
            return ""
        offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        for index in range(count):
            kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", head, offset + index * size)
            if kind == 3:
                return os.fsdecode(head[at : at + length].rstrip(b"\0"))
    except struct.error:
        pass
    return ""
