# SPDX-License-Identifier: Apache-2.0
"""Limits through the command line: what `pyrun run -m 32m …` promises is what the kernel then does.

Most of it needs a cgroup2 with controllers, which a machine in hybrid mode does not have: the vm ring runs it all. What
holds without controllers (devices, the freezer, killing, rlimits, refusals) runs everywhere.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import machine
from requires import requires

if TYPE_CHECKING:
    from cli import Pyrun

pytestmark = requires(root=True)
MIB = 1 << 20
QUIET = ("run", "--network", "none")  # what a network costs is not the matter here


def group(pyrun: Pyrun, name: str) -> Path:
    """The directory of a container's cgroup."""
    path = pyrun.ok("inspect", "--format", "{{.CgroupPath}}", name)
    assert path.startswith("/")
    return Path(machine.cgroup2_mount() + path)


def value(pyrun: Pyrun, name: str, file: str) -> str:
    """What a file of a container's cgroup says."""
    return (group(pyrun, name) / file).read_text(encoding="utf-8").rstrip("\n")


def fields(text: str) -> dict[str, int]:
    """The numbers of a flat-keyed file such as memory.events."""
    return {key: int(number) for key, number in (line.split() for line in text.splitlines())}


def start(pyrun: Pyrun, image: str, name: str, *args: str, command: str = "sleep 600") -> None:
    """A detached container without a network that runs a line of shell."""
    pyrun.ok(*QUIET, "-d", "--name", name, *args, image, "sh", "-c", command)


def wait_until(what: str, seconds: float, check: object) -> None:
    """Waits for `check()` to be true; `seconds` of an ordinary machine."""
    assert callable(check)
    end = time.monotonic() + seconds * machine.slowness()
    while not check():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.05)


# --- memory ----------------------------------------------------------------------------------------------------


@requires(cgroup2=("memory",))
def test_memory_limit_ends_in_an_oom_kill(pyrun: Pyrun, base_image: str) -> None:
    """A container that wants more than -m is killed: exit code 137, and inspect says OOMKilled."""
    result = pyrun(*QUIET, "--name", "hog", "-m", "32m", base_image, "tail", "/dev/zero")
    assert result.rc == 137, str(result)
    assert pyrun.ok("inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog") == "true 137"
    assert "Exited (137)" in pyrun.ok("ps", "-a", "--filter", "name=hog")


@requires(cgroup2=("memory",))
def test_oom_kill_of_a_child_is_not_the_end(pyrun: Pyrun, base_image: str) -> None:
    """Only the process that is too big is killed; the container goes on and ends with its own exit code."""
    result = pyrun(*QUIET, "--rm", "-m", "32m", base_image, "sh", "-c", "tail /dev/zero; echo child: $?; exit 3")
    assert (result.rc, result.out) == (3, "child: 137\n"), str(result)


@requires(cgroup2=("memory",))
def test_memory_within_the_limit_is_no_matter(pyrun: Pyrun, base_image: str) -> None:
    """A container that stays below its limit ends as it wants, and OOMKilled is false."""
    pyrun.ok(*QUIET, "--name", "modest", "-m", "64m", base_image, "sh", "-c", "head -c 20000000 /dev/zero | tail -c 1")
    assert pyrun.ok("inspect", "--format", "{{.State.OOMKilled}}", "modest") == "false"


@requires(cgroup2=("memory",))
@pytest.mark.parametrize(
    ("flags", "files"),
    [
        (("-m", "48m"), {"memory.max": str(48 * MIB), "memory.swap.max": str(48 * MIB)}),
        (("-m", "48m", "--memory-swap", "64m"), {"memory.max": str(48 * MIB), "memory.swap.max": str(16 * MIB)}),
        (("-m", "48m", "--memory-swap", "48m"), {"memory.max": str(48 * MIB), "memory.swap.max": "0"}),
        (("-m", "48m", "--memory-swap", "-1"), {"memory.max": str(48 * MIB), "memory.swap.max": "max"}),
        (("-m", "64m", "--memory-reservation", "32m"), {"memory.max": str(64 * MIB), "memory.low": str(32 * MIB)}),
        ((), {"memory.max": "max", "memory.swap.max": "max", "memory.low": "0"}),
    ],
    ids=" ".join,
)
def test_memory_flags(pyrun: Pyrun, base_image: str, flags: tuple[str, ...], files: dict[str, str]) -> None:
    """The memory flags are in the files of cgroup v2, with docker's meaning: --memory-swap is both together."""
    start(pyrun, base_image, "sized", *flags)
    assert {name: value(pyrun, "sized", name) for name in files} == files


# --- processors ------------------------------------------------------------------------------------------------


@requires(cgroup2=("cpu",))
def test_cpus_throttles(pyrun: Pyrun, base_image: str) -> None:
    """--cpus 0.2 gives a busy loop a fifth of a processor: measured over some seconds, by the kernel's own count."""
    start(pyrun, base_image, "busy", "--cpus", "0.2", command="while :; do :; done")
    assert value(pyrun, "busy", "cpu.max") == "20000 100000"
    before, then = fields(value(pyrun, "busy", "cpu.stat")), time.monotonic()
    time.sleep(4)
    after, now = fields(value(pyrun, "busy", "cpu.stat")), time.monotonic()
    share = (after["usage_usec"] - before["usage_usec"]) / (now - then) / 1e6
    assert after["nr_throttled"] - before["nr_throttled"] > 10
    assert 0.1 < share < 0.3


@requires(cgroup2=("cpu", "cpuset"))
def test_cpu_shares_divide_a_processor(pyrun: Pyrun, base_image: str) -> None:
    """Of two containers that want all of one processor, the one with more shares gets that many times more of it."""
    for name, shares in (("more", "2048"), ("less", "512")):
        start(pyrun, base_image, name, "--cpuset-cpus", "0", "--cpu-shares", shares, command="while :; do :; done")
    weights = {name: int(value(pyrun, name, "cpu.weight")) for name in ("more", "less")}
    before = {name: fields(value(pyrun, name, "cpu.stat"))["usage_usec"] for name in weights}
    time.sleep(6)
    used = {name: fields(value(pyrun, name, "cpu.stat"))["usage_usec"] - before[name] for name in weights}
    wanted = weights["more"] / weights["less"]
    assert wanted > 2
    assert wanted / 2 < used["more"] / used["less"] < wanted * 2, (weights, used)


@requires(cgroup2=("cpu",))
@pytest.mark.parametrize(
    ("flags", "files"),
    [
        (("--cpus", "1.5"), {"cpu.max": "150000 100000"}),
        (("--cpu-period", "50000", "--cpu-quota", "25000"), {"cpu.max": "25000 50000"}),
        (("--cpu-shares", "1024"), {"cpu.weight": "100"}),
        ((), {"cpu.max": "max 100000", "cpu.weight": "100"}),
    ],
    ids=" ".join,
)
def test_cpu_flags(pyrun: Pyrun, base_image: str, flags: tuple[str, ...], files: dict[str, str]) -> None:
    """The flags for processor time are in the files; the default share is the kernel's own default."""
    start(pyrun, base_image, "timed", *flags)
    assert {name: value(pyrun, "timed", name) for name in files} == files


@requires(cgroup2=("cpuset",))
def test_cpuset_confines(pyrun: Pyrun, base_image: str) -> None:
    """--cpuset-cpus and --cpuset-mems leave the container the processor and the memory node that they name."""
    shown = pyrun.ok(
        *(*QUIET, "--rm", "--cpuset-cpus", "1", "--cpuset-mems", "0", base_image),
        *("grep", "-E", "^(Cpus|Mems)_allowed_list", "/proc/self/status"),
    )
    assert [line.split()[1] for line in shown.splitlines()] == ["1", "0"]


@requires(cgroup2=("cpuset",))
def test_processor_that_is_not_there(pyrun: Pyrun, base_image: str) -> None:
    """A processor that the machine does not have is refused in one line that names it."""
    result = pyrun(*QUIET, "--rm", "--cpuset-cpus", "4000", base_image, "true")
    assert result.rc == 125, str(result)
    first, *hints = result.err.splitlines()
    assert first.startswith("pyrun: ")
    assert "4000" in first
    assert all(line.startswith("hint: ") for line in hints)


# --- processes -------------------------------------------------------------------------------------------------


@requires(cgroup2=("pids",))
def test_pids_limit_stops_a_fork_bomb(pyrun: Pyrun, base_image: str) -> None:
    """With --pids-limit 8 a loop that forks gets no further, and the machine's other processes are untouched."""
    start(pyrun, base_image, "bomb", "--pids-limit", "8", command="bomb() { bomb | bomb & }; bomb; sleep 600")
    wait_until("a refused fork", 10, lambda: fields(value(pyrun, "bomb", "pids.events"))["max"] > 0)
    assert value(pyrun, "bomb", "pids.max") == "8"
    assert int(value(pyrun, "bomb", "pids.current")) <= 8
    assert pyrun.ok(*QUIET, "--rm", base_image, "echo", "fine") == "fine"


@requires(cgroup2=("pids",))
@pytest.mark.parametrize(("flags", "limit"), [(("--pids-limit", "-1"), "max"), ((), "max")], ids=["-1", "none"])
def test_pids_unlimited(pyrun: Pyrun, base_image: str, flags: tuple[str, ...], limit: str) -> None:
    """-1 is no limit, and neither is there one by default."""
    start(pyrun, base_image, "free", *flags)
    assert value(pyrun, "free", "pids.max") == limit


def test_ulimit(pyrun: Pyrun, base_image: str) -> None:
    """--ulimit sets the soft and the hard limit of a resource."""
    shown = pyrun.ok(
        *(*QUIET, "--rm", "--ulimit", "nofile=100:200", "--ulimit", "core=0", base_image),
        *("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c"),
    )
    assert shown.split() == ["100", "200", "0"]


# --- disks -----------------------------------------------------------------------------------------------------


def disk_of(path: str) -> tuple[str, str]:
    """The block device under a path, as /dev/NAME and as MAJOR:MINOR."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    return f"/dev/{Path(f'/sys/dev/block/{number}').resolve().name}", number


@requires(cgroup2=("io",))
def test_write_rate_is_held(pyrun: Pyrun, base_image: str) -> None:
    """--device-write-bps holds what a container writes to its own file system to that rate."""
    disk, _ = disk_of(pyrun.paths.data)
    pyrun.ok(*QUIET, "--rm", base_image, "true")  # what the first start costs is not writing
    write = "dd if=/dev/zero of=/data bs=256k count=12 oflag=direct 2>/dev/null"
    took = {}
    for name, flags in (("free", ()), ("held", ("--device-write-bps", f"{disk}:1mb"))):
        begin = time.monotonic()
        pyrun.ok(*QUIET, "--rm", *flags, base_image, "sh", "-c", write)
        took[name] = time.monotonic() - begin
    assert took["held"] - took["free"] > 1.5, took  # 3 MiB at 1 MiB/s; the first burst is free


@requires(cgroup2=("io",))
def test_device_rates(pyrun: Pyrun, base_image: str) -> None:
    """The four --device-* rates are one line of io.max."""
    disk, number = disk_of(pyrun.paths.data)
    rates = (("read-bps", "8mb"), ("write-bps", "4mb"), ("read-iops", "300"), ("write-iops", "200"))
    flags = [word for name, rate in rates for word in (f"--device-{name}", f"{disk}:{rate}")]
    start(pyrun, base_image, "slow", *flags)
    assert value(pyrun, "slow", "io.max") == f"{number} rbps={8 * MIB} wbps={4 * MIB} riops=300 wiops=200"


@requires(cgroup2=("io",))
def test_blkio_weight(pyrun: Pyrun, base_image: str) -> None:
    """--blkio-weight is in the weight file that this kernel's I/O scheduler reads."""
    start(pyrun, base_image, "weighed", "--blkio-weight", "1000")
    files = [group(pyrun, "weighed") / name for name in ("io.weight", "io.bfq.weight")]
    shown = {file.name: file.read_text(encoding="utf-8").splitlines()[0] for file in files if file.exists()}
    assert shown, "this kernel has no weight file"
    assert set(shown.items()) <= {("io.weight", "default 10000"), ("io.bfq.weight", "default 1000")}


# --- devices ---------------------------------------------------------------------------------------------------

MAKE_AND_READ = "mknod /node {} && head -c 1 /node >/dev/null"


def test_device_node_is_no_use_without_leave(pyrun: Pyrun, base_image: str) -> None:
    """A container may make a node for a device that it was not given, and then not open it: the program says EPERM."""
    result = pyrun(*QUIET, "--rm", base_image, "sh", "-c", MAKE_AND_READ.format("c 1 11"))  # /dev/kmsg
    assert result.rc != 0
    assert "Operation not permitted" in result.err, str(result)
    pyrun.ok(*QUIET, "--rm", base_image, "sh", "-c", MAKE_AND_READ.format("c 1 5"))  # /dev/zero is everybody's


def test_device_cgroup_rule_gives_leave(pyrun: Pyrun, base_image: str) -> None:
    """--device-cgroup-rule opens a class of devices, and only in the way that it says."""
    rule = ("--device-cgroup-rule", "c 1:11 r", "--cap-add", "SYSLOG")
    pyrun.ok(*QUIET, "--rm", *rule, base_image, "sh", "-c", "mknod /node c 1 11 && : </node")
    result = pyrun(*QUIET, "--rm", *rule, base_image, "sh", "-c", "mknod /node c 1 11 && : >/node")
    assert result.rc != 0
    assert "Operation not permitted" in result.err, str(result)


def test_device_flag_gives_node_and_leave(pyrun: Pyrun, base_image: str) -> None:
    """--device puts the node there, and the permissions are the program's."""
    flags = ("--device", "/dev/kmsg:/dev/messages:w")
    pyrun.ok(*QUIET, "--rm", *flags, base_image, "sh", "-c", "test -c /dev/messages && : >/dev/messages")
    result = pyrun(*QUIET, "--rm", *flags, base_image, "sh", "-c", ": </dev/messages")
    assert result.rc != 0
    assert "Operation not permitted" in result.err, str(result)


# --- the cgroup itself -----------------------------------------------------------------------------------------


def test_pause_stands_still_and_unpause_goes_on(pyrun: Pyrun, base_image: str) -> None:
    """Between pause and unpause not one step is done, and nothing is lost."""
    start(pyrun, base_image, "count", command="n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done")
    wait_until("the first lines", 10, lambda: len(pyrun.ok("logs", "count").splitlines()) > 2)
    pyrun.ok("pause", "count")
    assert "frozen 1" in value(pyrun, "count", "cgroup.events")
    assert pyrun.ok("inspect", "--format", "{{.State.Status}}", "count") == "paused"
    time.sleep(0.5)  # for what was written before
    before = pyrun.ok("logs", "count")
    time.sleep(1)
    assert pyrun.ok("logs", "count") == before
    pyrun.ok("unpause", "count")
    wait_until("another line", 10, lambda: len(pyrun.ok("logs", "count")) > len(before))
    lines = pyrun.ok("logs", "count").split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]


def test_kill_reaches_all_without_a_pid_namespace(pyrun: Pyrun, base_image: str) -> None:
    """With --pid host the container's processes do not die with the first one: cgroup.kill gets them all."""
    forks = "for n in 1 2 3 4 5; do (trap '' TERM HUP; exec sleep 600) & done; exec sleep 600"
    start(pyrun, base_image, "many", "--pid", "host", command=forks)
    procs = group(pyrun, "many") / "cgroup.procs"
    wait_until("six processes", 10, lambda: len(procs.read_text(encoding="utf-8").split()) == 6)
    pids = procs.read_text(encoding="utf-8").split()
    pyrun.ok("rm", "-f", "many")
    wait_until("their end", 10, lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids))


def test_cgroup_parent(pyrun: Pyrun, base_image: str) -> None:
    """--cgroup-parent puts the container's cgroup below that one."""
    parent = f"/pyrun-test-parent-{os.getpid()}"
    try:
        start(pyrun, base_image, "below", "--cgroup-parent", parent)
        assert pyrun.ok("inspect", "--format", "{{.CgroupPath}}", "below").startswith(f"{parent}/")
        assert value(pyrun, "below", "cgroup.procs") != ""
        pyrun.ok("rm", "-f", "below")
    finally:
        directory = Path(machine.cgroup2_mount() + parent)
        if directory.exists():
            directory.rmdir()


def test_container_sees_its_cgroup_as_the_root(pyrun: Pyrun, base_image: str) -> None:
    """The container has a cgroup namespace of its own."""
    assert "0::/\n" in pyrun.ok(*QUIET, "--rm", base_image, "cat", "/proc/self/cgroup") + "\n"


@requires(cgroup2=("memory", "pids"))
def test_limits_hold_after_a_restart(pyrun: Pyrun, base_image: str) -> None:
    """A stopped container that is started again has its limits again, in a fresh cgroup."""
    start(pyrun, base_image, "again", "-m", "40m", "--pids-limit", "20", "--stop-timeout", "0")
    pyrun.ok("restart", "again")
    assert (value(pyrun, "again", "memory.max"), value(pyrun, "again", "pids.max")) == (str(40 * MIB), "20")


@requires(cgroup2=("memory", "cpu", "pids"))
def test_stats_show_limits_and_use(pyrun: Pyrun, base_image: str) -> None:
    """`stats` shows what the cgroup counts, against the limits."""
    start(pyrun, base_image, "shown", "-m", "64m", "--pids-limit", "30")
    shown = pyrun.ok("stats", "--no-stream", "--format", "{{.MemUsage}}|{{.PIDs}}", "shown")
    usage, _, pids = shown.partition("|")
    assert usage.endswith("/ 64MiB")
    assert pids == "1"


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("-m", "1_0m"), "1_0m"),
        (("-m", "lots"), "lots"),
        (("-m", "32m", "--memory-swap", "16m"), "memory"),
        (("--memory-swap", "64m"), "memory"),
        (("--cpus", "-1"), "-1"),
        (("--cpus", "0x2"), "0x2"),
        (("--cpuset-cpus", "1-"), "1-"),
        (("--pids-limit", "ten"), "ten"),
        (("--blkio-weight", "5"), "5"),
        (("--device-write-bps", "/dev/no-such-disk:1mb"), "/dev/no-such-disk"),
        (("--ulimit", "nofile=20:10"), "nofile"),
        (("--ulimit", "files=20"), "files"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_bad_limit_is_one_line(pyrun: Pyrun, base_image: str, flags: tuple[str, ...], named: str) -> None:
    """A limit that makes no sense is refused with exit code 125 and a line that names it; nothing is left."""
    result = pyrun(*QUIET, "--rm", *flags, base_image, "true")
    assert result.rc == 125, str(result)
    assert result.out == ""
    first, *hints = result.err.splitlines()
    assert first.startswith("pyrun: ")
    assert named in first, first
    assert all(line.startswith("hint: ") for line in hints), result.err


WANTING = {
    "memory": ("-m", "32m"),
    "cpu": ("--cpus", "0.5"),
    "cpuset": ("--cpuset-cpus", "0"),
    "pids": ("--pids-limit", "10"),
    "io": ("--blkio-weight", "300"),
}
MISSING = sorted(set(WANTING) - machine.cgroup2_controllers())

if MISSING:  # in the VM every controller is there, so there is nothing to refuse and no such test

    @pytest.mark.parametrize("controller", MISSING)
    def test_missing_controller_is_named_with_its_remedy(pyrun: Pyrun, base_image: str, controller: str) -> None:
        """A limit whose controller is missing is refused: the line names the controller, the hint how to get it."""
        result = pyrun(*QUIET, "--rm", *WANTING[controller], base_image, "true")
        assert result.rc == 125, str(result)
        line, hint = result.err.splitlines()
        assert line.startswith("pyrun: ")
        assert f"no {controller} controller" in line
        assert hint.startswith("hint: ")
        assert "cgroup" in hint

    def test_without_controllers_a_container_runs_without_limits(pyrun: Pyrun, base_image: str) -> None:
        """What nobody asked for is not missed."""
        assert pyrun.ok(*QUIET, "--rm", base_image, "echo", "fine") == "fine"
