# SPDX-License-Identifier: Apache-2.0
"""Real cgroups under a prefix of the test's own: made, filled, frozen, killed, limited, removed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import machine
from pyrun.cgroups import mount, psi, recover, signals, stats
from pyrun.cgroups.cgroupfs import read, write
from pyrun.cgroups.controllers import USUAL
from pyrun.cgroups.devices import allow
from pyrun.cgroups.group import Cgroup
from pyrun.cgroups.oom import marks, out_of_memory
from pyrun.cgroups.resources import DeviceRule, parse
from pyrun.runtime import events
from pyrun.runtime.errors import Conflict, NotFound, PyrunError, Unsupported
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = requires(root=True)
PREFIX = f"/pyrun-test-{os.getpid()}"
PATIENCE_S = 10 * machine.slowness()


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A cgroup of its own for each test, made; afterwards it and its parent are gone."""
    made = Cgroup(f"{PREFIX}/c1")
    made.create()
    yield made
    top = Cgroup(PREFIX)
    top.kill()
    top.remove()


@pytest.fixture
def inside(group: Cgroup) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program in the cgroup (or one below it); all are reaped afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: str, where: Cgroup = group) -> subprocess.Popen[str]:
        move = f'echo 0 > {where.directory}/cgroup.procs && exec "$@"'
        started.append(
            subprocess.Popen(
                ["sh", "-c", move, "sh", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        until(lambda: started[-1].pid in where.procs() or started[-1].poll() is not None)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that must come true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def made_by_the_container(group: Cgroup, name: str) -> Cgroup:
    """A cgroup below the container's, without controllers: those would forbid processes in the container's own."""
    os.makedirs(f"{group.directory}/{name}")
    return Cgroup(f"{group.path}/{name}")


def sleeper() -> tuple[str, str]:
    return "sleep", "1000"


# --- making and removing ---------------------------------------------------------------------------------------


def test_create_makes_parents_and_remove_takes_one(group: Cgroup) -> None:
    """The directory is there, empty and of type domain; remove() leaves the parent."""
    assert group.exists()
    assert read(group.directory, "cgroup.type") == "domain\n"
    assert not group.populated()
    group.remove()
    assert not group.exists()
    assert Cgroup(PREFIX).exists()
    group.remove()  # gone already is fine


def test_the_controllers_of_the_machine_reach_the_cgroup(group: Cgroup) -> None:
    """Each usual controller that the root has is on in the new cgroup, without being asked for."""
    expected = set(USUAL) & machine.cgroup2_controllers()
    assert expected <= set(read(group.directory, "cgroup.controllers").split())


def test_create_takes_an_empty_cgroup_but_not_a_used_one(
    group: Cgroup, inside: Callable[..., subprocess.Popen[str]]
) -> None:
    """Two containers cannot share a cgroup by accident."""
    group.create()
    process = inside(*sleeper())
    with pytest.raises(Conflict, match=rf"has processes \(pid {process.pid}\)"):
        group.create()


def test_create_refuses_a_frozen_cgroup(group: Cgroup) -> None:
    """A process born inside would not start."""
    group.freeze()
    with pytest.raises(Conflict, match="frozen"):
        group.create()


def test_a_missing_controller_leaves_nothing() -> None:
    """The refusal names the controller, and not even the parent directory is made."""
    lost = Cgroup(f"{PREFIX}-lost/c1")
    with pytest.raises(Unsupported, match="cgroup v2 has no zoo controller here: this kernel was built without it"):
        lost.create(parse({"unified": {"zoo.max": "1"}}))
    assert not Cgroup(f"{PREFIX}-lost").exists()


def test_a_memory_limit_is_refused_without_the_controller() -> None:
    """The message says who holds the controller (hybrid mode: cgroup v1), and the hint how to get it."""
    found = mount.find()
    lost = Cgroup(f"{PREFIX}-lost/c1", mount.Mount(found.path, found.controllers - {"memory"}))
    with pytest.raises(Unsupported, match=r"memory\.max = 33554432: cgroup v2 has no memory controller") as caught:
        lost.create(parse({"memory": {"limit": 32 << 20}}))
    held_by_v1 = "memory" not in found.controllers
    assert ("hybrid mode" in str(caught.value)) is held_by_v1
    assert ("systemd.unified_cgroup_hierarchy=1" in caught.value.hint) is held_by_v1
    assert not Cgroup(f"{PREFIX}-lost").exists()


@requires(cgroup2=("hugetlb",))
def test_a_controller_that_is_asked_for_is_turned_on_and_limits() -> None:
    """hugetlb is off by default; asking for it turns it on from the root down and the limit is in the file."""
    asked = Cgroup(f"{PREFIX}-huge/c1")
    resources = parse({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
    was_on = "hugetlb" in read(asked.mount.path, "cgroup.subtree_control").split()
    try:
        asked.create(resources)
        asked.apply(resources)
        assert read(asked.directory, "hugetlb.2MB.max") == "4194304\n"
    finally:
        asked.remove()
        Cgroup(f"{PREFIX}-huge").remove()
        if not was_on:
            write(asked.mount.path, "cgroup.subtree_control", "-hugetlb")


def test_no_controllers_below_processes_unless_asked(
    group: Cgroup, inside: Callable[..., subprocess.Popen[str]]
) -> None:
    """Below a cgroup with processes a cgroup can be made; its parent stays what it was."""
    inside(*sleeper())
    below = Cgroup(f"{group.path}/below")
    below.create()
    assert read(group.directory, "cgroup.type") == "domain\n"
    assert read(group.directory, "cgroup.subtree_control").split() == []
    assert read(below.directory, "cgroup.type") == "domain\n"


@requires(cgroup2=("hugetlb",))
def test_processes_in_the_parent_forbid_limits_below_it(
    group: Cgroup, inside: Callable[..., subprocess.Popen[str]]
) -> None:
    """The "no internal processes" rule: the message names the processes in the way and how to move them."""
    process = inside(*sleeper())
    below = Cgroup(f"{group.path}/below")
    resources = parse({"unified": {"hugetlb.2MB.max": "4194304"}})
    was_on = "hugetlb" in read(group.mount.path, "cgroup.subtree_control").split()
    try:
        with pytest.raises(Unsupported, match=rf"it holds processes itself \(pid {process.pid}\)") as caught:
            below.create(resources)
        assert "cgroup.procs" in caught.value.hint
        assert not below.exists()
        assert read(group.directory, "cgroup.type") == "domain\n"  # and not a threaded one by accident
    finally:
        process.kill()
        process.wait()
        until(lambda: not group.populated())
        if not was_on:
            write(Cgroup(PREFIX).directory, "cgroup.subtree_control", "-hugetlb")
            write(group.mount.path, "cgroup.subtree_control", "-hugetlb")


def test_remove_waits_for_the_dying(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """kill() then remove() needs no sleep in between, whatever is below."""
    deep = made_by_the_container(group, "a/b/c")
    made_by_the_container(group, "x")
    processes = [inside(*sleeper()), inside(*sleeper(), where=deep)]
    assert sorted(group.procs()) == sorted(process.pid for process in processes)
    assert group.procs(recursive=False) == [processes[0].pid]
    group.kill()
    group.remove()
    assert not group.exists()


def test_remove_gives_up_on_the_living(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """It kills nobody; the message says who is left."""
    process = inside(*sleeper())
    with pytest.raises(Conflict, match=rf"still has processes after 0\.1 s \(pid {process.pid}\)"):
        group.remove(timeout_s=0.1)
    assert process.poll() is None


def test_remove_a_nest_deeper_than_a_path_can_be(group: Cgroup) -> None:
    """A container may nest cgroups beyond PATH_MAX; that must not keep them for ever."""
    here = os.open(group.directory, os.O_RDONLY)
    name = "n" * 200
    for _ in range(30):
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    assert group.procs() == []
    group.remove()
    assert not group.exists()


def test_many_at_once_share_parents() -> None:
    """Making and removing below one parent from several sides at once: nobody fails, also when the parent vanishes."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                one = Cgroup(f"{PREFIX}-many/deep/c{number}")
                one.create()
                one.remove()
                recover.recover(f"{PREFIX}-many/deep", lambda: [f"c{other}" for other in range(4)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Cgroup(f"{PREFIX}-many").remove()
    assert not failures


# --- processes -------------------------------------------------------------------------------------------------

BORN_INSIDE = """
import ctypes, os, struct, sys
cgroup = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
# struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
arguments = ctypes.create_string_buffer(struct.pack("=11Q", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, cgroup))
libc = ctypes.CDLL(None, use_errno=True)
pid = libc.syscall(435, arguments, 88)
if pid == 0:
    os.execvp("cat", ["cat", "/proc/self/cgroup"])
if pid < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_born_inside(group: Cgroup) -> None:
    """A process cloned with the directory's descriptor is in the cgroup from its first instruction."""
    ran = subprocess.run([sys.executable, "-c", BORN_INSIDE, group.directory], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert f"0::{group.path}\n" in ran.stdout


def test_own_path(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """A process's cgroup is told by its pid; a removed one without the kernel's "(deleted)"."""
    assert mount.own_path() == mount.own_path(os.getpid())
    assert mount.own_path(inside(*sleeper()).pid) == group.path


def test_open_fd_of_nothing() -> None:
    """A cgroup that is not there is NotFound, not a traceback."""
    nothing = Cgroup(f"{PREFIX}-none")
    with pytest.raises(NotFound):
        nothing.open_fd()
    with pytest.raises(NotFound):
        nothing.freeze()
    with pytest.raises(NotFound):
        nothing.thaw()
    with pytest.raises(NotFound):
        stats.read_stats(nothing)
    assert (nothing.procs(), nothing.populated(), nothing.frozen()) == ([], False, False)
    nothing.kill()


def test_freeze_stops_and_thaw_continues(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """A frozen busy loop uses no CPU time at all; a thawed one does again."""
    inside("sh", "-c", "while :; do :; done")
    group.freeze()
    assert group.frozen()
    before = stats.read_stats(group).cpu_usec
    time.sleep(0.2)
    assert stats.read_stats(group).cpu_usec == before
    group.thaw()
    assert not group.frozen()
    until(lambda: stats.read_stats(group).cpu_usec > before)


def test_kill_reaches_frozen_and_forking(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """SIGKILL ends a frozen process, and a tree that forks all the time."""
    forking = inside("sh", "-c", "f() { while :; do (sleep 0.01; f) & (sleep 0.01) & wait; done; }; trap '' TERM; f")
    until(lambda: len(group.procs()) > 3)
    group.kill()
    assert forking.wait(PATIENCE_S) == -signal.SIGKILL
    frozen = inside(*sleeper())
    group.freeze()
    group.kill()
    assert frozen.wait(PATIENCE_S) == -signal.SIGKILL
    until(lambda: not group.populated())


def test_kill_without_cgroup_kill(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """The way of kernels before 5.14 ends a forking tree too."""
    forking = inside("sh", "-c", "while :; do (sleep 0.01) & (sleep 0.01) & wait; done")
    until(lambda: len(group.procs()) > 1)
    signals.kill_one_by_one(group)
    assert forking.wait(PATIENCE_S) == -signal.SIGKILL
    assert not group.populated()


def test_signal_all_below_and_nobody_else(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """Each process of the cgroup and below gets the signal; one in a neighbour does not."""
    below, neighbour = made_by_the_container(group, "below"), Cgroup(f"{group.path}2")
    neighbour.create()
    hit = [inside(*sleeper()), inside(*sleeper(), where=below)]
    spared = inside(*sleeper(), where=neighbour)
    assert signals.signal_all(group, signal.SIGTERM) == 2
    assert [process.wait(PATIENCE_S) for process in hit] == [-signal.SIGTERM] * 2
    assert spared.poll() is None


def test_a_pid_of_somebody_else_is_not_signalled(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """A pid that was read from cgroup.procs and belongs to a process outside by now gets nothing."""
    outside = subprocess.Popen(sleeper())
    try:
        assert signals._signal_one(group.path, outside.pid, signal.SIGKILL) is False
        assert outside.poll() is None
    finally:
        outside.kill()
        outside.wait()


def test_delegate_gives_away_only_what_the_kernel_lists(group: Cgroup) -> None:
    """The directory and cgroup.procs change their owner; a limit file does not."""
    group.delegate(65534)
    assert os.stat(group.directory).st_uid == 65534
    assert os.stat(f"{group.directory}/cgroup.procs").st_uid == 65534
    assert os.stat(f"{group.directory}/cgroup.max.depth").st_uid == os.geteuid()


# --- devices ---------------------------------------------------------------------------------------------------

TRY_DEVICES = """
import os, sys
for word in sys.argv[1:]:
    path, mode = word.split(",")
    try:
        if mode == "m":
            major, minor = path.split(":")
            os.mknod("/dev/shm/pyrun-test-node", 0o20600, os.makedev(int(major), int(minor)))
            os.unlink("/dev/shm/pyrun-test-node")
        else:
            os.close(os.open(path, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[mode] | os.O_NONBLOCK))
        print("ok")
    except OSError as error:
        print(error.errno)
"""


def tried(inside: Callable[..., subprocess.Popen[str]], *words: str) -> list[str]:
    process = inside(sys.executable, "-c", TRY_DEVICES, *words)
    output, _ = process.communicate(timeout=PATIENCE_S)
    return output.split()


DENIED = str(errno.EPERM)


def test_device_rules_hold_for_real(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """A process in the cgroup opens what the rules allow and gets EPERM for the rest, also after a change."""
    asked = ("/dev/null,rw", "/dev/urandom,r", "/dev/kmsg,r", "/dev/kmsg,w", "/dev/kmsg,rw", "1:11,m")
    assert tried(inside, *asked) == ["ok"] * 6
    group.allow_devices((DeviceRule(False),))
    assert tried(inside, *asked) == ["ok", "ok", DENIED, DENIED, DENIED, "ok"]
    group.allow_devices((DeviceRule(False), DeviceRule(True, "c", 1, 11, "w")))
    assert tried(inside, *asked) == ["ok", "ok", DENIED, "ok", DENIED, "ok"]
    group.allow_devices((DeviceRule(True), DeviceRule(False, "c", 1, 11, "r")))
    assert tried(inside, *asked) == ["ok", "ok", DENIED, "ok", DENIED, "ok"]
    group.allow_devices((DeviceRule(True),))
    assert tried(inside, *asked) == ["ok"] * 6


def attached(group: Cgroup) -> list[int]:
    from pyrun.runtime.kernel.syscalls import bpf_prog_query

    fd = group.open_fd()
    try:
        return bpf_prog_query(fd)
    finally:
        os.close(fd)


def test_one_program_at_a_time(group: Cgroup) -> None:
    """A change replaces the program; allowing everything takes it off."""
    group.allow_devices((DeviceRule(False),))
    [first] = attached(group)
    group.allow_devices((DeviceRule(False), DeviceRule(True, "c", 1, 11)))
    [second] = attached(group)
    assert first != second
    group.allow_devices((DeviceRule(True),))
    assert attached(group) == []


def test_a_cgroup_below_may_narrow_but_not_widen(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """An engine inside the container attaches its own program; the outer one still holds."""
    below = made_by_the_container(group, "below")
    group.allow_devices((DeviceRule(False),))
    below.allow_devices((DeviceRule(True, "c", 1, 11), DeviceRule(True, "c", 10, None)))
    process = inside(sys.executable, "-c", TRY_DEVICES, "/dev/null,rw", "/dev/kmsg,r", where=below)
    assert process.communicate(timeout=PATIENCE_S)[0].split() == ["ok", DENIED]


def test_several_programs_become_one(group: Cgroup) -> None:
    """Programs that somebody else attached to the same cgroup are replaced by ours."""
    from pyrun.cgroups.devices import compile_rules
    from pyrun.runtime.kernel.syscalls import BPF_F_ALLOW_MULTI, bpf_prog_attach, bpf_prog_load_cgroup_device

    fd = group.open_fd()
    try:
        for minor in (1, 2):
            program = bpf_prog_load_cgroup_device(compile_rules((DeviceRule(True, "c", 42, minor),)))
            bpf_prog_attach(fd, program, BPF_F_ALLOW_MULTI)
            os.close(program)
        assert len(attached(group)) == 2
        allow(fd, group.directory, (DeviceRule(False),))
        assert len(attached(group)) == 1
    finally:
        os.close(fd)


# --- limits that need controllers (the vm ring) ----------------------------------------------------------------


@requires(cgroup2=("memory", "cpu", "pids", "cpuset"))
def test_limits_are_in_the_files(group: Cgroup) -> None:
    """What is asked for is what the kernel says is in force; an update changes only what it names."""
    resources = parse(
        {
            "memory": {"limit": 64 << 20, "reservation": 16 << 20},
            "cpu": {"quota": 50000, "period": 100000, "shares": 512, "cpus": "0"},
            "pids": {"limit": 20},
        }
    )
    group.create(resources)
    group.apply(resources)
    expected = {
        "memory.max": "67108864",
        "memory.low": "16777216",
        "cpu.max": "50000 100000",
        "cpu.weight": "59",
        "cpuset.cpus": "0",
        "pids.max": "20",
    }
    assert {name: read(group.directory, name).strip() for name in expected} == expected
    group.apply(parse({"cpu": {"quota": 20000}}))
    assert read(group.directory, "cpu.max") == "20000 100000\n"
    assert read(group.directory, "memory.max") == "67108864\n"
    group.apply(parse({"cpu": {"quota": 30000, "burst": 30000}}))
    group.apply(parse({"cpu": {"quota": 10000, "burst": 5000}}))  # the burst has to go first here
    assert (read(group.directory, "cpu.max"), read(group.directory, "cpu.max.burst")) == ("10000 100000\n", "5000\n")


@requires(cgroup2=("memory", "cpuset"))
def test_a_refused_value_names_file_and_value(group: Cgroup) -> None:
    """The kernel's reason, the file, the value; CPUs that are not there are refused before the kernel hides it."""
    with pytest.raises(PyrunError, match=r"write 'lots' to .*/memory\.high: invalid argument"):
        group.apply(parse({"unified": {"memory.high": "lots"}}))
    with pytest.raises(PyrunError, match=r"cpuset\.cpus = 4095: cpus 4095 cannot be had"):
        group.apply(parse({"cpu": {"cpus": "4095"}}))
    with pytest.raises(Unsupported, match="no such file"):
        group.apply(parse({"unified": {"memory.nothing": "1"}}))


FORK_UNTIL_REFUSED = """
import os, signal
children = []
try:
    while True:
        pid = os.fork()
        if not pid:
            signal.pause()
        children.append(pid)
except BlockingIOError as error:
    print(len(children), error.errno)
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""


@requires(cgroup2=("io",))
def test_io_limits_of_a_disk(group: Cgroup) -> None:
    """Two limits of one disk and the weight are in force; a device that is none is refused with file and value."""
    disk = next(name for name in sorted(os.listdir("/sys/block")) if not name.startswith(("ram", "zram", "loop")))
    major, minor = (int(number) for number in read(f"/sys/block/{disk}", "dev").strip().split(":"))
    throttle = {"major": major, "minor": minor, "rate": 1 << 20}
    group.apply(
        parse(
            {
                "blockIO": {
                    "weight": 500,
                    "throttleReadBpsDevice": [throttle],
                    "throttleWriteIOPSDevice": [throttle | {"rate": 50}],
                }
            }
        )
    )
    assert read(group.directory, "io.max") == f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50\n"
    weights = [name for name in ("io.weight", "io.bfq.weight") if os.path.exists(f"{group.directory}/{name}")]
    assert weights
    assert read(group.directory, weights[0]).split()[1] in ("4950", "500")
    with pytest.raises(PyrunError, match=r"write '4095:1 rbps=5' to .*/io\.max: no such device"):
        group.apply(parse({"blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 1, "rate": 5}]}}))


@requires(cgroup2=("pids",))
def test_pids_limit(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """The fork beyond the limit fails with EAGAIN."""
    group.apply(parse({"pids": {"limit": 3}}))
    process = inside(sys.executable, "-c", FORK_UNTIL_REFUSED)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert output.split() == ["2", str(errno.EAGAIN)]


@requires(cgroup2=("memory",))
def test_out_of_memory_names_the_container(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """A process above the container's limit is killed, and the report says whose limit it was."""
    group.apply(parse({"memory": {"limit": 32 << 20, "swap": 32 << 20}}))
    before = marks(group)
    assert out_of_memory(group, before) is None
    assert inside(sys.executable, "-c", "b'x' * (128 << 20)").wait(PATIENCE_S) == -signal.SIGKILL
    happened = out_of_memory(group, before)
    assert str(happened) == "killed: memory limit 32 MiB of the container reached"
    reading = stats.read_stats(group)
    assert (reading.oom_kills, reading.memory_source) == (1, "memory.current")
    assert reading.memory_limit_bytes == 32 << 20


@requires(cgroup2=("memory",))
def test_out_of_memory_names_the_parent(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """When the limit is the parent's, the report names the parent, and only for what happened since the start."""
    parent = Cgroup(PREFIX)
    parent.apply(parse({"memory": {"limit": 32 << 20, "swap": 32 << 20}}))
    try:
        before = marks(group)
        assert inside(sys.executable, "-c", "b'x' * (128 << 20)").wait(PATIENCE_S) == -signal.SIGKILL
        happened = out_of_memory(group, before)
        assert happened is not None
        assert (happened.whose, happened.cgroup, happened.limit_bytes) == ("parent", PREFIX, 32 << 20)
        assert stats.read_stats(group).memory_limit_bytes == 32 << 20
        again = out_of_memory(group, marks(group))
        assert again is not None
        assert again.whose == "host"  # nothing since these marks: not the parent's fault
    finally:
        parent.apply(parse({"memory": {"limit": -1}}))


# --- numbers ---------------------------------------------------------------------------------------------------


def test_stats_of_a_busy_process(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """CPU is about one processor, memory is that of a small shell, one task is counted; with or without controllers."""
    inside("sh", "-c", "while :; do :; done")
    before = stats.read_stats(group)
    time.sleep(0.3)
    after = stats.read_stats(group)
    assert 10 < stats.cpu_percent(before, after) < 130
    assert stats.cpu_percent(after, after) == 0.0
    assert after.pids == 1
    assert after.memory_source == ("memory.current" if "memory" in machine.cgroup2_controllers() else "pss")
    assert after.memory_bytes is not None
    assert 50_000 < after.memory_bytes < 20 << 20
    assert 64 << 20 < after.memory_limit_bytes == stats.read_stats(group).memory_limit_bytes
    percent = stats.memory_percent(after)
    assert percent is not None
    assert 0 < percent < 100


FOUR_THREADS = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(99,)).start()
time.sleep(99)
"""


def test_stats_count_threads_below(group: Cgroup, inside: Callable[..., subprocess.Popen[str]]) -> None:
    """PIDS counts threads, also in cgroups below, as pids.current does."""
    below = made_by_the_container(group, "below")
    inside(sys.executable, "-c", FOUR_THREADS, where=below)
    until(lambda: stats.read_stats(group).pids == 4)


def test_pressure_is_read_where_the_kernel_counts_it(group: Cgroup) -> None:
    """One entry for each resource of /proc/pressure; a cgroup without processes waits for nothing."""
    expected = {name for name in psi.RESOURCES if os.path.exists(f"/proc/pressure/{name}")}
    found = psi.pressure(group.directory)
    assert set(found) == expected
    assert all(one == psi.Pressure() for one in found.values())


def test_no_oom_without_memory_pressure(group: Cgroup) -> None:
    """Nothing killed, nothing reported."""
    assert out_of_memory(group, marks(group)) is None


# --- leftovers -------------------------------------------------------------------------------------------------


def test_recover_removes_the_dead_and_spares_the_living(inside: Callable[..., subprocess.Popen[str]]) -> None:
    """Cgroups of no live container go with their processes; what is no container's stays."""
    prefix = f"{PREFIX}-recover"
    dead, living, starting, other = (Cgroup(f"{prefix}/{name}") for name in ("d" * 64, "1" * 64, "5" * 64, "other"))
    for one in (dead, living, other):
        one.create()
    orphan, kept = inside(*sleeper(), where=dead), inside(*sleeper(), where=living)

    def live_ids() -> list[str]:
        starting.create()  # a container that starts between the listing and this call
        return ["1" * 64]

    assert recover.recover(prefix, live_ids) == ["d" * 64]
    assert orphan.wait(PATIENCE_S) == -signal.SIGKILL
    assert kept.poll() is None
    assert starting.exists()
    assert sorted(recover.recover(prefix, list)) == ["1" * 64, "5" * 64]
    assert other.exists()
    other.remove()


def test_recover_removes_its_empty_prefix() -> None:
    """With no container left, nothing is left."""
    prefix = f"{PREFIX}-recover"
    Cgroup(f"{prefix}/{'d' * 64}").create()
    assert recover.recover(prefix, list) == ["d" * 64]
    assert not Cgroup(prefix).exists()
    assert recover.recover(prefix, list) == []


# --- what the user sees ----------------------------------------------------------------------------------------


def test_every_change_is_a_step(group: Cgroup) -> None:
    """--trace shows mkdir, echo and rmdir as a person would type them."""
    seen: list[events.Event] = []
    events.set_sink(seen.append)
    try:
        other = Cgroup(f"{PREFIX}/c2")
        other.create()
        other.freeze()
        other.thaw()
        other.remove()
    finally:
        events.set_sink(None)
    where = other.directory
    texts = [event.what for event in seen if "subtree_control" not in event.what]
    assert texts == [
        f"mkdir {where}",
        f"echo 1 > {where}/cgroup.freeze",
        f"echo 0 > {where}/cgroup.freeze",
        f"rmdir {where}",
    ]
    assert [event.area for event in seen] == ["cgroup"] * len(seen)
    assert [event.error for event in seen] == [""] * len(seen)
