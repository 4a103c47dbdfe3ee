# SPDX-License-Identifier: Apache-2.0
"""cffi builder of pyrun.runtime.kernel._kernel: the functions of syscalls.c and the constants of init/wire.h."""

from __future__ import annotations

import os
import re

import cffi

HERE = os.path.dirname(os.path.abspath(__file__))


def _prototypes() -> str:
    """The declarations of syscalls.h without what the C preprocessor would take out."""
    with open(os.path.join(HERE, "syscalls.h"), encoding="ascii") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)
    limit = re.search(r"#define PYRUN_SPAWN_MAX_FDS (\d+)", text)
    assert limit is not None
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE).replace("PYRUN_SPAWN_MAX_FDS", limit.group(1))


CONSTANTS = (  # by white space, so that they can be read
    "WIRE_MAGIC WIRE_VERSION PLAN_TRACE SYNC_FD FIRST_FD STEP_NONE "
    "REPORT_SYNC REPORT_ERROR REPORT_TRACE REPORT_PID REPORT_FD REPORT_READY REPORT_EXEC REPORT_HEAD "
    "RESOLVE_BENEATH RESOLVE_IN_ROOT RESOLVE_NO_MAGICLINKS RESOLVE_NO_SYMLINKS RESOLVE_NO_XDEV "
    "CLONE_NEWCGROUP CLONE_NEWIPC CLONE_NEWNET CLONE_NEWNS CLONE_NEWPID CLONE_NEWTIME CLONE_NEWUSER CLONE_NEWUTS "
    "CLONE_PARENT SPLICE_F_MOVE SPLICE_F_NONBLOCK OPEN_TREE_CLONE OPEN_TREE_CLOEXEC AT_RECURSIVE AT_EMPTY_PATH "
    "BPF_F_ALLOW_MULTI BPF_F_REPLACE WNOHANG WNOWAIT"
)

ffibuilder = cffi.FFI()
ffibuilder.cdef(_prototypes() + "\n".join(f"#define {name} ..." for name in CONSTANTS.split()))
ffibuilder.set_source(
    "pyrun.runtime.kernel._kernel",
    """
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <sched.h>
    #include <sys/mount.h>
    #include <sys/wait.h>
    #include <linux/bpf.h>
    #include <linux/openat2.h>
    #include <linux/sched.h>
    #include "syscalls.h"
    #include "init/wire.h"
    """,
)
