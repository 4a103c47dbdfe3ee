# SPDX-License-Identifier: Apache-2.0
"""The processes of a container, read from /proc by pids of its cgroup: nothing of the container is ever run.

Columns are those of ps(1) on the host; `nspid`, `caps`, `seccomp` and `nsuser` show what ps cannot.
"""

from __future__ import annotations

import os
import time

from pyrun.runtime.engine.containers import ContainerStore
from pyrun.runtime.errors import Conflict, UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrun.runtime.paths import Paths

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class Process(Record):
    """One process as /proc shows it: the fields of stat(5) by number, those of status by name."""

    pid: int
    comm: str
    args: str
    stat: tuple[str, ...]  # fields 3 and on of /proc/PID/stat
    status: dict[str, str]  # of /proc/PID/status
    now: float  # seconds since boot

    def field(self, number: int) -> int:
        """A numeric field of /proc/PID/stat, numbered as in proc(5)."""
        return int(self.stat[number - 3])

    @property
    def cpu_seconds(self) -> float:
        return (self.field(14) + self.field(15)) / TICKS

    @property
    def age(self) -> float:
        return max(self.now - self.field(22) / TICKS, 0.001)


def processes(pids: Sequence[int]) -> list[Process]:
    """The processes that still exist, by pid."""
    with open("/proc/uptime") as file:
        now = float(file.read().split()[0])
    found = [_read(pid, now) for pid in sorted(pids)]
    return [process for process in found if process is not None]


def _read(pid: int, now: float) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, tail = file.read().rpartition(")")
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            args = file.read().rstrip("\0").replace("\0", " ")
    except OSError:
        return None  # it has ended meanwhile
    comm = head.partition("(")[2]
    shown = "".join(char if char.isprintable() else "?" for char in args or f"[{comm}]")
    return Process(pid, comm, shown, tuple(tail.split()), status, now)


def _user(uid: str) -> str:
    import pwd  # the host's names, as ps on the host

    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return uid


def _group(gid: str) -> str:
    import grp

    try:
        return grp.getgrgid(int(gid)).gr_name
    except KeyError:
        return gid


def _terminal(process: Process) -> str:
    """tty_nr as ps prints it: pts/3, tty1 or ?."""
    device = process.field(7)
    major, minor = os.major(device), os.minor(device)
    if 136 <= major <= 143:  # Documentation/admin-guide/devices.txt: Unix98 pty slaves
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"


def _started(process: Process) -> str:
    then = time.time() - process.age
    form = "%H:%M" if process.age < 86400 else "%b%d"
    return time.strftime(form, time.localtime(then))


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hour:02}:{minute:02}:{second:02}"


def _elapsed(process: Process) -> str:
    shown = _clock(process.age)
    return shown[3:] if shown.startswith("00:") else shown


def _id(name: str, at: int) -> Callable[[Process], str]:
    return lambda process: process.status[name].split()[at]


def _memory_share(process: Process) -> str:
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1])
    return f"{100 * process.field(24) * PAGE_KIB / total:.1f}"


def _inner_pid(process: Process) -> str:
    return process.status.get("NSpid", str(process.pid)).split()[-1]


SECCOMP = {"0": "off", "1": "strict", "2": "filter"}
# name -> (heading, value); the names are ps(1)'s for -o
COLUMNS: dict[str, tuple[str, Callable[[Process], str]]] = {
    "uid": ("UID", _id("Uid", 1)),
    "user": ("USER", lambda process: _user(process.status["Uid"].split()[1])),
    "gid": ("GID", _id("Gid", 1)),
    "group": ("GROUP", lambda process: _group(process.status["Gid"].split()[1])),
    "ruser": ("RUSER", lambda process: _user(process.status["Uid"].split()[0])),
    "pid": ("PID", lambda process: str(process.pid)),
    "ppid": ("PPID", lambda process: str(process.field(4))),
    "pgid": ("PGID", lambda process: str(process.field(5))),
    "sid": ("SID", lambda process: str(process.field(6))),
    "nspid": ("NSPID", _inner_pid),
    "c": ("C", lambda process: str(int(100 * process.cpu_seconds / process.age))),
    "pcpu": ("%CPU", lambda process: f"{100 * process.cpu_seconds / process.age:.1f}"),
    "pmem": ("%MEM", _memory_share),
    "vsz": ("VSZ", lambda process: str(process.field(23) // 1024)),
    "rss": ("RSS", lambda process: str(process.field(24) * PAGE_KIB)),
    "tty": ("TTY", _terminal),
    "stat": ("STAT", lambda process: process.stat[0]),
    "stime": ("STIME", _started),
    "start": ("START", _started),
    "etime": ("ELAPSED", _elapsed),
    "etimes": ("ELAPSED", lambda process: str(int(process.age))),
    "time": ("TIME", lambda process: _clock(process.cpu_seconds)),
    "ni": ("NI", lambda process: str(process.field(19))),
    "pri": ("PRI", lambda process: str(39 - process.field(18))),
    "nlwp": ("NLWP", lambda process: str(process.field(20))),
    "psr": ("PSR", lambda process: str(process.field(39))),
    "caps": ("CAPS", lambda process: process.status.get("CapEff", "")),
    "seccomp": ("SECCOMP", lambda process: SECCOMP.get(process.status.get("Seccomp", ""), "?")),
    "nnp": ("NNP", lambda process: process.status.get("NoNewPrivs", "?")),
    "comm": ("COMMAND", lambda process: process.comm),
    "args": ("COMMAND", lambda process: process.args),
}
ALIASES = {
    "cmd": "args",
    "command": "args",
    "ucmd": "comm",
    "%cpu": "pcpu",
    "%mem": "pmem",
    "vsize": "vsz",
    "rssize": "rss",
    "tt": "tty",
    "tname": "tty",
    "s": "stat",
    "state": "stat",
    "nice": "ni",
    "cputime": "time",
    "pgrp": "pgid",
    "euser": "user",
    "uname": "user",
    "euid": "uid",
    "egid": "gid",
    "sess": "sid",
    "thcount": "nlwp",
    "hpid": "pid",
    "capeff": "caps",
}
FULL = (("user", "UID"), "pid", "ppid", "c", "stime", "tty", "time", ("args", "CMD"))  # ps -ef, docker's default
BSD = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "time", "args")  # ps aux


def columns(options: Sequence[str]) -> list[tuple[str, Callable[[Process], str]]]:
    """The columns that ps options ask for: none or -ef, aux, or -o / -eo with a list of names.

    Raises UsageError for what is not understood.
    """
    words = [word for option in options for word in option.split()]
    chosen: list[str] = []
    for at, word in enumerate(words):
        letters = word.lstrip("-")
        if at and words[at - 1].lstrip("-").endswith("o"):
            continue  # the list itself
        if letters.startswith("o") and len(letters) > 1:
            chosen += letters[1:].split(",")
        elif letters.endswith("o"):
            if at + 1 == len(words):
                raise UsageError("top", f"{word} needs a list of columns", hint=f"of {', '.join(COLUMNS)}")
            chosen += words[at + 1].split(",")
        elif letters in ("aux", "axu", "u"):
            return [COLUMNS[name] for name in BSD]
        elif not set(letters) <= set("eAaxfFw"):
            hint = f"aux, -ef, or -o with some of {', '.join(COLUMNS)}"
            raise UsageError("top", f"unknown ps option '{word}'", hint=hint)
    if not chosen:
        pairs = [(name, COLUMNS[name][0]) if isinstance(name, str) else name for name in FULL]
        return [(heading, COLUMNS[name][1]) for name, heading in pairs]
    return [_column(name.strip().lower()) for name in chosen]


def _column(text: str) -> tuple[str, Callable[[Process], str]]:
    name, equals, heading = text.partition("=")
    name = ALIASES.get(name, name)
    if name not in COLUMNS:
        from pyrun.runtime.oci.nearest import did_you_mean

        raise UsageError("top", f"unknown column '{name}'", hint=did_you_mean(name, COLUMNS) or ", ".join(COLUMNS))
    return (heading.upper() if equals else COLUMNS[name][0]), COLUMNS[name][1]


def top(paths: Paths, name: str, options: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of a container's processes. Raises NotFound, UsageError, Conflict when it does not run."""
    from pyrun.cgroups.group import Cgroup

    wanted = columns(options)
    store = ContainerStore(paths)
    container = store.load(store.lookup(name))
    state = store.settle(container.id, store.load_state(container.id))
    if not state.running:
        raise Conflict(f"top {container.name}", f"container is not running ({state.status})")
    found = processes(Cgroup(container.cgroup_path).procs())
    return [heading for heading, _ in wanted], [[value(process) for _, value in wanted] for process in found]
