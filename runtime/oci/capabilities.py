# SPDX-License-Identifier: Apache-2.0
"""Capabilities: names and numbers, the five sets as bit masks, and docker's --cap-add and --cap-drop.

What a container asks for and cannot be given is dropped and reported, not refused: the runtime-spec wants a warning
(config.md, Linux Process), because one configuration must work on kernels and hosts that differ.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# By number, as in <linux/capability.h> and capabilities(7); 40 is the last one as of kernel 6.18.
NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",  # 5.8
    "CAP_BPF",  # 5.8
    "CAP_CHECKPOINT_RESTORE",  # 5.9
)
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}

ALL = "ALL"


class CapabilitySets(Record):
    """The five sets of a process as 64-bit masks (capabilities(7)); bit n is capability number n."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


def last_cap() -> int:
    """The highest capability number that the running kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb", buffering=0) as file:
            return int(file.read())
    except OSError:  # /proc may be masked; the kernel refuses what it does not know
        return len(NAMES) - 1


def held() -> CapabilitySets:
    """The sets of this process. Raises OSError without /proc."""
    sets = {}
    with open("/proc/self/status", "rb", buffering=0) as file:
        for line in file.read().splitlines():
            if line.startswith(b"Cap"):
                key, _, value = line.partition(b":")
                sets[key[3:]] = int(value, 16)
    return CapabilitySets(sets[b"Bnd"], sets[b"Eff"], sets[b"Inh"], sets[b"Prm"], sets[b"Amb"])


def mask(names: Iterable[str], last: int = len(NAMES) - 1) -> tuple[int, tuple[str, ...]]:
    """The bit mask of OCI names ("CAP_CHOWN"), and the names that stand for no capability up to number `last`."""
    bits = 0
    unknown = []
    for name in names:
        number = NUMBERS.get(name, 64)
        if number <= last:
            bits |= 1 << number
        else:
            unknown.append(name)
    return bits, tuple(unknown)


def names(bits: int) -> tuple[str, ...]:
    """The names in a mask, by number; numbers without a name as "CAP_41"."""
    return tuple([NAMES[n] if n < len(NAMES) else f"CAP_{n}" for n in range(64) if bits >> n & 1])


def grantable(
    bounding: Iterable[str],
    effective: Iterable[str],
    inheritable: Iterable[str],
    permitted: Iterable[str],
    ambient: Iterable[str],
    *,
    last: int,
    own: CapabilitySets | None,
) -> tuple[CapabilitySets, tuple[str, ...]]:
    """The sets that a process can really be given, and a sentence for each thing that had to be left out.

    `last` is last_cap(). `own` are the sets of the process that starts the container, or None when the container gets
    a new user namespace, in which its first process holds everything. The kernel's rules (capset(2),
    capabilities(7)): permitted within what is held, effective within permitted, inheritable within what is held and
    the bounding set, ambient within permitted and inheritable.
    """
    said: list[str] = []
    everything = (1 << (last + 1)) - 1
    can_bound = own.bounding & everything if own else everything
    can_hold = own.permitted & everything if own else everything

    def fit(wanted: Iterable[str], limit: int, what: str, why: str) -> int:
        bits, unknown = mask(wanted, last)
        for name in unknown:
            said.append(f"{what} capability {name}: this kernel has no such capability")
        for name in names(bits & ~limit):
            said.append(f"{what} capability {name}: {why}")
        return bits & limit

    bound = fit(bounding, can_bound, "bounding", "not in pyrun's own bounding set")
    prm = fit(permitted, can_hold, "permitted", "pyrun does not hold it")
    eff = fit(effective, prm, "effective", "not permitted")
    inh = fit(inheritable, can_hold & can_bound, "inheritable", "pyrun does not hold it")
    amb = fit(ambient, prm & inh, "ambient", "not both permitted and inheritable")
    return CapabilitySets(bound, eff, inh, prm, amb), tuple(dict.fromkeys(said))


def normalize(name: str) -> str:
    """The OCI name of a capability as people write it: "net_admin", "CAP_NET_ADMIN"; "all" gives "ALL".

    Raises UsageError for a name that is none, with the nearest one as a hint.
    """
    upper = name.upper()
    if upper == ALL:
        return ALL
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NUMBERS:
        from .nearest import nearest

        guess = nearest(full[4:], [known[4:] for known in NAMES])  # without CAP_, which makes all names alike
        hint = f"did you mean {guess!r}?" if guess else "capabilities(7) lists them; ALL stands for every one"
        raise UsageError(f"unknown capability {name!r}", hint=hint)
    return full


def resolve(
    add: Iterable[str],
    drop: Iterable[str],
    privileged: bool,
    default: Iterable[str],
    available: Iterable[str] = NAMES,
) -> tuple[str, ...]:
    """The capabilities of a container as docker counts them, by number.

    `add` and `drop` are --cap-add and --cap-drop, `default` what a container gets otherwise, `available` what can be
    given at all on this machine (names(held().permitted) on a host that is itself restricted).
    --privileged gives everything. --cap-add ALL gives everything but what is dropped; --cap-drop ALL gives only what
    is added; otherwise the default, less what is dropped, plus what is added (an added one wins over a dropped one).

    Raises UsageError for an unknown name, and for an added one that is not available.
    """
    possible = set(available)
    added = {normalize(name) for name in add}
    dropped = {normalize(name) for name in drop}
    missing = added - possible - {ALL}
    if privileged:
        chosen = possible
    elif missing:
        raise UsageError(
            f"cannot add capability {min(missing, key=NUMBERS.__getitem__)}",
            "pyrun does not hold it, or this kernel does not know it",
            hint="grep Cap /proc/self/status shows what is held",
        )
    elif ALL in added:
        chosen = possible - dropped
    elif ALL in dropped:
        chosen = added
    else:
        chosen = (set(default) - dropped) | added
    return tuple(sorted(chosen, key=NUMBERS.__getitem__))
