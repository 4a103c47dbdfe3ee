# SPDX-License-Identifier: Apache-2.0
"""Resources: what linux.resources of the OCI runtime-spec 1.3 asks for; parse() reads it, limits.files() maps it.

The spec speaks cgroup v1. v1's network (net_cls, net_prio), kernel and kernelTCP memory, useHierarchy and leafWeight
have no meaning in v2 and are ignored; what a user would miss (swappiness, realtime, disableOOMKiller) is refused.
"""

from __future__ import annotations

from pyrun.runtime.errors import SpecError
from pyrun.runtime.record import Record

from .fields import INT64_MAX, UINT64_MAX, Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_CPU_NUMBER = 65_535


class Memory(Record):
    """Bytes; None means not asked for, -1 no limit. `swap` is memory and swap together, as in cgroup v1."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    check_before_update: bool = False


class Cpu(Record):
    """`shares` of cgroup v1 (2 to 262144), quota, burst and period in microseconds, cpuset lists as "0-3,7"."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(Record):
    """The highest number of tasks (threads count); -1 no limit, None not asked for."""

    limit: int | None = None


class DeviceWeight(Record):
    """A block device's share, 10 to 1000."""

    major: int
    minor: int
    weight: int


class Throttle(Record):
    """One limit of one block device: `key` is io.max's rbps, wbps (bytes/s), riops or wiops; rate 0 means no limit."""

    major: int
    minor: int
    key: str
    rate: int


class BlockIO(Record):
    """`weight` is cgroup v1's, 10 to 1000."""

    weight: int | None = None
    weight_devices: tuple[DeviceWeight, ...] = ()
    throttles: tuple[Throttle, ...] = ()


class HugepageLimit(Record):
    """At most `limit` bytes in huge pages of `page_size`, such as "2MB"."""

    page_size: str
    limit: int


class Rdma(Record):
    """Limits of one RDMA device; None where not asked for."""

    device: str
    handles: int | None = None
    objects: int | None = None


class DeviceRule(Record):
    """One line of the allowed device list: type "a", "b" or "c", None for any number, access of "r", "w", "m"."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __str__(self) -> str:
        numbers = ":".join("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{'allow' if self.allow else 'deny'} {self.type} {numbers} {self.access}"

    def oci(self) -> dict[str, Any]:
        """The rule as an entry of linux.resources.devices."""
        numbers = {name: value for name, value in (("major", self.major), ("minor", self.minor)) if value is not None}
        return {"allow": self.allow, "type": self.type, **numbers, "access": self.access}


class Resources(Record):
    """linux.resources; `unified` holds (file, value) pairs that are written as they are, last."""

    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: Pids = Pids()
    block_io: BlockIO = BlockIO()
    hugepages: tuple[HugepageLimit, ...] = ()
    rdma: tuple[Rdma, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()


NOTHING = Resources()


# --- parsing ---------------------------------------------------------------------------------------------------


def parse(raw: Any, where: str = "config.json: linux.resources") -> Resources:
    """The Resources of a linux.resources object (or None). Raises SpecError starting with the JSON path."""
    if raw is None:
        return NOTHING
    top = Fields(raw, where)
    rdma, unified = top.inside("rdma"), top.inside("unified")
    return Resources(
        memory=_memory(top.inside("memory")),
        cpu=_cpu(top.inside("cpu")),
        pids=Pids(top.inside("pids").whole("limit", -INT64_MAX)),
        block_io=_block_io(top.inside("blockIO")),
        hugepages=tuple(_hugepage(item) for item in top.each("hugepageLimits")),
        rdma=tuple(_rdma(rdma, name) for name in rdma.raw),
        devices=tuple(_device(item) for item in top.each("devices")),
        unified=tuple(_unified(unified, name) for name, value in unified.raw.items() if value is not None),
    )


def _memory(raw: Fields) -> Memory:
    # cgroup v2 has neither knob per cgroup; crun refuses them too. 0 and false are what callers send unasked.
    if raw.whole("swappiness", 0, UINT64_MAX):
        raise SpecError(raw.at("swappiness"), "cgroup v2 has no swappiness of a cgroup", hint="use memory.swap instead")
    if raw.flag("disableOOMKiller"):
        raise SpecError(raw.at("disableOOMKiller"), "cgroup v2 cannot turn the OOM killer off", hint="leave it out")
    memory = Memory(
        limit=raw.whole("limit", -1),
        reservation=raw.whole("reservation", -1),
        swap=raw.whole("swap", -1),
        check_before_update=bool(raw.flag("checkBeforeUpdate")),
    )
    if memory.limit and memory.swap and 0 < memory.swap < memory.limit:
        raise SpecError(
            raw.at("swap"), f"{memory.swap} must not be smaller than the limit {memory.limit}: it covers both"
        )
    return memory


def _cpu(raw: Fields) -> Cpu:
    for name in ("realtimeRuntime", "realtimePeriod"):
        if raw.whole(name, -1, UINT64_MAX):
            raise SpecError(raw.at(name), "cgroup v2 has no realtime limits", hint="leave it out, or use cpu.quota")
    cpu = Cpu(
        shares=raw.whole("shares", 0, UINT64_MAX),
        quota=raw.whole("quota", -INT64_MAX),
        burst=raw.whole("burst", 0, UINT64_MAX),
        period=raw.whole("period", 0, UINT64_MAX),
        idle=raw.whole("idle", 0, 1),
        cpus=raw.text("cpus"),
        mems=raw.text("mems"),
    )
    for name, listed in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        if listed:
            cpu_list(listed, raw.at(name))
    if cpu.burst and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        raise SpecError(raw.at("burst"), f"{cpu.burst} must not be larger than the quota {cpu.quota}")
    return cpu


def cpu_list(listed: str, where: str) -> set[int]:
    """The numbers of a cpuset(7) list such as "0-3,7". Raises SpecError."""
    numbers: set[int] = set()
    for part in listed.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first + last).isdecimal() or not part.isascii() or not first or not last:
            raise SpecError(where, f"{listed!r} is not a list such as 0-3,7")
        low, high = int(first[:9]), int(last[:9])
        if high > MAX_CPU_NUMBER or low > high:
            raise SpecError(where, f"{part!r} in {listed!r} is not a range from a low to a high number")
        numbers.update(range(low, high + 1))
    return numbers


THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def _block_io(raw: Fields) -> BlockIO:
    return BlockIO(
        weight=_blkio_weight(raw),
        weight_devices=tuple(
            DeviceWeight(*_numbers(item), weight)
            for item in raw.each("weightDevice")
            if (weight := _blkio_weight(item))  # leafWeight alone is CFQ's, gone since Linux 5.0
        ),
        throttles=tuple(
            Throttle(*_numbers(item), key, item.required("rate", 0, UINT64_MAX))
            for name, key in THROTTLES.items()
            for item in raw.each(name)
        ),
    )


def _blkio_weight(raw: Fields) -> int | None:
    weight = raw.whole("weight", 0, 1000)
    if weight and weight < 10:
        raise SpecError(raw.at("weight"), f"must be from 10 to 1000, or 0 for the default, not {weight}")
    return weight


def _numbers(raw: Fields) -> tuple[int, int]:
    return raw.required("major", 0, (1 << 12) - 1), raw.required("minor", 0, (1 << 20) - 1)


def _hugepage(raw: Fields) -> HugepageLimit:
    size = raw.text("pageSize")
    if not size[:-2].isdecimal() or not size.isascii() or size[-2:] not in ("KB", "MB", "GB"):
        raise SpecError(raw.at("pageSize"), f"must be a size such as 2MB or 1GB, not {size!r}")
    return HugepageLimit(size, raw.required("limit", 0, UINT64_MAX))


def _rdma(raw: Fields, name: str) -> Rdma:
    if not name or any(ch.isspace() for ch in name):
        raise SpecError(raw.where, f"{name!r} is not the name of an RDMA device")
    limits = raw.inside(name)
    found = Rdma(name, limits.whole("hcaHandles", 0, 0xFFFFFFFF), limits.whole("hcaObjects", 0, 0xFFFFFFFF))
    if found.handles is None and found.objects is None:
        raise SpecError(limits.where, "needs hcaHandles or hcaObjects")
    return found


def _device(raw: Fields) -> DeviceRule:
    allow, kind, access = raw.flag("allow"), raw.text("type") or "a", raw.text("access") or "rwm"
    if allow is None:
        raise SpecError(raw.at("allow"), "is required")
    if kind not in ("a", "b", "c"):
        raise SpecError(raw.at("type"), f"must be a (all), b (block) or c (char), not {kind!r}")
    if set(access) - set("rwm"):
        raise SpecError(raw.at("access"), f"must be made of r, w and m, not {access!r}")
    # -1 is how Go programs (docker, containerd) say "any"; dev_t has 12 bits for the major, 20 for the minor
    major, minor = raw.whole("major", -1, (1 << 12) - 1), raw.whole("minor", -1, (1 << 20) - 1)
    return DeviceRule(allow, kind, None if major == -1 else major, None if minor == -1 else minor, access)


def _unified(raw: Fields, name: str) -> tuple[str, str]:
    # The name becomes part of a path below the cgroup mount: it must be the name of a file of a cgroup, no more.
    controller, dot, rest = name.partition(".")
    if not (controller and dot and rest) or "/" in name or "\0" in name:
        raise SpecError(raw.at(name), "must name a file of a cgroup, such as memory.high")
    if name in ("cgroup.procs", "cgroup.threads", "cgroup.kill"):
        raise SpecError(raw.at(name), "is an action, not a limit")
    return name, raw.text(name)
