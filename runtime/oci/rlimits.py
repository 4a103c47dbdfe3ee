# SPDX-License-Identifier: Apache-2.0
"""Resource limits (getrlimit(2)): OCI names, kernel numbers, and docker's --ulimit."""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

# <asm-generic/resource.h>, which every architecture uses that pyrun runs on (alpha, mips and sparc differ).
NUMBERS: dict[str, int] = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}

UNLIMITED = 2**64 - 1  # RLIM_INFINITY


class Rlimit(Record):
    """One limit: `type` is the OCI name; UNLIMITED stands for no limit. Units as in getrlimit(2)."""

    type: str
    soft: int
    hard: int

    @property
    def number(self) -> int:
        """The kernel's number of the resource."""
        return NUMBERS[self.type]


def parse_ulimit(text: str) -> Rlimit:
    """The limit in "nofile=1024:2048", "nofile=1024" (soft and hard) or "core=-1" (also "unlimited").

    Raises UsageError for anything else; docker's rule that the soft limit may not exceed the hard one holds.
    """
    name, equals, values = text.partition("=")
    kind = f"RLIMIT_{name.upper()}"
    if not equals or not values:
        raise UsageError(f"invalid ulimit {text!r}", "expected name=soft[:hard]", hint="such as nofile=1024:2048")
    if kind not in NUMBERS:
        from .nearest import did_you_mean

        known = [known[7:].lower() for known in NUMBERS]
        raise UsageError(f"unknown ulimit {name!r}", hint=did_you_mean(name, known) or f"one of {' '.join(known)}")
    soft_text, _, hard_text = values.partition(":")
    soft = _number(soft_text, text)
    hard = _number(hard_text, text) if ":" in values else soft
    if soft > hard:
        raise UsageError(f"invalid ulimit {text!r}", "the soft limit is above the hard limit")
    return Rlimit(kind, soft, hard)


def _number(digits: str, text: str) -> int:
    if digits in ("-1", "unlimited"):
        return UNLIMITED
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19 or int(digits) > 2**63 - 1:
        raise UsageError(f"invalid ulimit {text!r}", f"{digits!r} is not a number", hint="-1 means unlimited")
    return int(digits)
