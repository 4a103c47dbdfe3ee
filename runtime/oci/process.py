# SPDX-License-Identifier: Apache-2.0
"""The process of a configuration (config.md, Process): config.json's, and the one that `exec --process` is given.

Records and, below them, the reader of their JSON form; see spec.py.
"""

from __future__ import annotations

from pyrun.runtime.record import Record

from .reader import (
    absolute,
    array,
    boolean,
    choice,
    int32,
    integer,
    kernel_id,
    record,
    text,
    texts,
    uint64,
    wrong,
)
from .rlimits import NUMBERS, Rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ConsoleSize(Record):
    """The size of the terminal, in characters."""

    height: int
    width: int


class User(Record):
    """Ids inside the container; umask None leaves the caller's."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Record):
    """The five sets, as names; unknown ones are kept here and reported by capabilities.grantable()."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Scheduler(Record):
    """sched_setattr(2)."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(Record):
    """ioprio_set(2)."""

    class_: str
    priority: int = 0


class ExecCpuAffinity(Record):
    """CPU lists ("0-3,7") for `exec`, before and after the process enters the cgroup."""

    initial: str = ""
    final: str = ""


class Process(Record):
    """The container's process. `args` has at least one entry; `cwd` is absolute."""

    cwd: str
    args: tuple[str, ...]
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    env: tuple[str, ...] = ()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: ExecCpuAffinity | None = None


def _args(value: Any, where: str) -> tuple[str, ...]:
    args = texts(value, where)
    if not args:
        raise wrong(where, "needs at least one entry, the program")
    return args


def variable(value: Any, where: str) -> str:
    if text(value, where).find("=") < 1:
        raise wrong(where, f"{value!r} is not of the form NAME=value")
    return str(value)


def _rlimits(value: Any, where: str) -> tuple[Rlimit, ...]:
    limits = _RLIMITS(value, where)
    for index, limit in enumerate(limits):
        if limit.soft > limit.hard:
            raise wrong(f"{where}[{index}].soft", f"{limit.soft} is above the hard limit, {limit.hard}")
        if limit.type in [earlier.type for earlier in limits[:index]]:
            raise wrong(f"{where}[{index}].type", f"{limit.type} occurs twice")
    return limits


_POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
_POLICY_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
)
_RLIMITS = array(record(Rlimit, ("type", choice(NUMBERS, "resource")), ("soft", uint64), ("hard", uint64)))

PROCESS = record(
    Process,
    ("cwd", absolute),
    ("args", _args),
    ("terminal", boolean),
    ("consoleSize", record(ConsoleSize, ("height", integer(0, 65535)), ("width", integer(0, 65535)))),
    (
        "user",
        record(
            User,
            ("uid", kernel_id),
            ("gid", kernel_id),
            ("umask", integer(0, 0o777)),
            ("additionalGids", array(kernel_id)),
        ),
    ),
    ("env", array(variable)),
    (
        "capabilities",
        record(
            Capabilities,
            ("bounding", texts),
            ("effective", texts),
            ("inheritable", texts),
            ("permitted", texts),
            ("ambient", texts),
        ),
    ),
    ("rlimits", _rlimits),
    ("noNewPrivileges", boolean),
    ("apparmorProfile", text),
    ("selinuxLabel", text),
    ("oomScoreAdj", integer(-1000, 1000)),
    (
        "scheduler",
        record(
            Scheduler,
            (
                "policy",
                choice(_POLICIES, "scheduling policy"),
            ),
            ("nice", int32),
            ("priority", int32),
            (
                "flags",
                array(choice(_POLICY_FLAGS, "scheduling flag")),
            ),
            ("runtime", uint64),
            ("deadline", uint64),
            ("period", uint64),
        ),
    ),
    (
        "ioPriority",
        record(
            IoPriority,
            ("class", choice(("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"), "I/O class")),
            ("priority", integer(0, 7)),
        ),
    ),
    ("execCPUAffinity", record(ExecCpuAffinity, ("initial", text), ("final", text))),
)


def parse_process(value: object, where: str = "process.json") -> Process:
    """The Process in the document of `exec --process`. Raises SpecError and nothing else."""
    return PROCESS(value, f"{where}: ")
