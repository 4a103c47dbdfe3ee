# SPDX-License-Identifier: Apache-2.0
"""Limits: the cgroup v2 files that grant what a Resources asks for. Pure: a test compares two dicts.

files()               Resources -> {"memory.max": "33554432", …}
needed_controllers()  Resources -> {"memory": "memory.max = 33554432", …}

Where v2 differs from the v1 that the spec speaks, the conversion is the one of runc and crun, so that a container
gets the same share whichever runtime starts it.
"""

from __future__ import annotations

from pyrun.runtime.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .resources import BlockIO, Cpu, Memory, Pids, Resources

PERIOD_USEC = 100_000  # the kernel's default period of cpu.max


def files(resources: Resources, current: Mapping[str, str] | None = None) -> dict[str, str]:
    """File name -> value, in the order to write them; a value of several lines is written line by line.

    `current` holds what memory.max and cpu.max say now, for an update that names only one half of a pair
    (swap without memory, quota without period). Raises SpecError for what cannot be converted.
    """
    now = current or {}
    wanted: dict[str, str] = {}
    for part in (
        _memory_files(resources.memory, now.get("memory.max", "")),
        _cpu_files(resources.cpu, now.get("cpu.max", "")),
        _pids_files(resources.pids),
        _io_files(resources.block_io),
        _other_files(resources),
        resources.unified,
    ):
        wanted.update(part)
    return wanted


def _memory_files(memory: Memory, max_now: str) -> Iterator[tuple[str, str]]:
    # 0 is "not asked for", as for runc: a cgroup without any memory could not even start.
    if memory.reservation:
        yield "memory.low", _or_max(memory.reservation)
    swap = memory.swap or (-1 if memory.limit == -1 else 0)  # v1's unlimited memory meant unlimited swap
    if swap:
        yield "memory.swap.max", _or_max(_swap_alone(swap, memory.limit, max_now))
    if memory.limit:
        yield "memory.max", _or_max(memory.limit)


def _swap_alone(both: int, limit: int | None, max_now: str) -> int:
    """v1 limits memory and swap together, v2 swap alone."""
    known = limit or (int(max_now) if max_now.isdecimal() else -1 if max_now else 0)
    if both == -1 or known == -1:
        return both
    if not known:
        raise SpecError("memory.swap", "needs memory.limit too: it is the limit of both together")
    if both < known:
        raise SpecError("memory.swap", f"{both} must not be smaller than memory.limit {known}: it covers both")
    return both - known


def cpu_weight(shares: int) -> int:
    """cpu.weight (1..10000, default 100) for cgroup v1's shares (2..262144, default 1024).

    The curve of runc 1.3.2 and crun 1.23 and later (opencontainers/cgroups pull 20, containers/crun pull 1767):
    through minimum, default and maximum. The linear one before it turned the default of 1024 into 39, so that a
    container which asked for the default got less than half of what its neighbours had.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    from math import ceil, log2

    doublings = log2(shares)
    exponent = (doublings * doublings + 125 * doublings) / 612 - 7 / 34
    return ceil(round(10**exponent, 9))  # rounded: 1024 must be 100, not 101 by the last bit of a float


def _cpu_files(cpu: Cpu, max_now: str) -> Iterator[tuple[str, str]]:
    if cpu.idle is not None:
        yield "cpu.idle", str(cpu.idle)
    if cpu.shares and cpu.idle != 1:  # a SCHED_IDLE cgroup has the least weight, and the kernel refuses another
        yield "cpu.weight", str(cpu_weight(cpu.shares))
    if cpu.quota or cpu.period:
        quota_now, _, period_now = max_now.partition(" ")
        quota = ("max" if cpu.quota < 0 else str(cpu.quota)) if cpu.quota else quota_now or "max"
        yield "cpu.max", f"{quota} {cpu.period or period_now or PERIOD_USEC}"
    if cpu.burst is not None:
        yield "cpu.max.burst", str(cpu.burst)
    if cpu.cpus:
        yield "cpuset.cpus", cpu.cpus
    if cpu.mems:
        yield "cpuset.mems", cpu.mems


def _pids_files(pids: Pids) -> Iterator[tuple[str, str]]:
    if pids.limit is not None:
        # The spec allows 0, but a process born inside (CLONE_INTO_CGROUP) is counted: 1 is as much as 0 can mean.
        yield "pids.max", "max" if pids.limit < 0 else str(max(pids.limit, 1))


def io_weight(weight: int) -> int:
    """io.weight (1..10000) for blkio.weight (10..1000), linearly as runc and crun do."""
    return 1 + (weight - 10) * 9999 // 990


def _io_files(block: BlockIO) -> Iterator[tuple[str, str]]:
    # Two schedulers, two files: BFQ reads io.bfq.weight, iocost io.weight. Written where they exist.
    weights = [f"default {block.weight}"] if block.weight else []
    scaled = [f"default {io_weight(block.weight)}"] if block.weight else []
    for device in block.weight_devices:
        weights.append(f"{device.major}:{device.minor} {device.weight}")
        scaled.append(f"{device.major}:{device.minor} {io_weight(device.weight)}")
    if weights:
        yield "io.bfq.weight", "\n".join(weights)
        yield "io.weight", "\n".join(scaled)
    limits: dict[str, list[str]] = {}
    for throttle in block.throttles:
        value = str(throttle.rate) if throttle.rate else "max"
        limits.setdefault(f"{throttle.major}:{throttle.minor}", []).append(f"{throttle.key}={value}")
    if limits:
        yield "io.max", "\n".join(f"{device} {' '.join(keys)}" for device, keys in limits.items())


def _other_files(resources: Resources) -> Iterator[tuple[str, str]]:
    for huge in resources.hugepages:
        # rsvd counts when memory is reserved (mmap), so a program gets an error instead of SIGBUS; since Linux 5.7
        yield f"hugetlb.{huge.page_size}.rsvd.max", str(huge.limit)
        yield f"hugetlb.{huge.page_size}.max", str(huge.limit)
    lines = []
    for rdma in resources.rdma:
        pairs = (("hca_handle", rdma.handles), ("hca_object", rdma.objects))
        lines.append(" ".join([rdma.device, *(f"{key}={value}" for key, value in pairs if value is not None)]))
    if lines:
        yield "rdma.max", "\n".join(lines)


def _or_max(value: int) -> str:
    return "max" if value == -1 else str(value)


# --- controllers -----------------------------------------------------------------------------------------------


def grants_all(name: str, value: str) -> bool:
    """Whether the value is what holds without the controller anyway, so that the file may be missing."""
    return value == "max" or value.startswith("max ") or (value == "0" and name in ("cpu.idle", "cpu.max.burst"))


def needed_controllers(resources: Resources) -> dict[str, str]:
    """Controller -> the first thing that asks for it, such as {"memory": "memory.max = 33554432"}.

    "No limit" asks for none: it holds without the controller. `unified` always asks, as the spec says.
    """
    needed: dict[str, str] = {}
    explicit = dict(resources.unified)
    for name, value in files(resources, {"memory.max": "max"}).items():
        controller = name.partition(".")[0]
        if controller != "cgroup" and (name in explicit or not grants_all(name, value)):
            needed.setdefault(controller, f"{name} = {value.replace(chr(10), ', ')}")
    return needed
