# SPDX-License-Identifier: Apache-2.0
"""`--chmod` of COPY and ADD: octal as `644`, or symbolic as `u=rwX,go-w`, chmod(1) with a umask of 0."""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

_OCTAL = frozenset("01234567")
_WHO = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0o1000, "a": 0o7000}  # which of setuid, setgid and sticky a class has
_SHIFT = {"u": 6, "g": 3, "o": 0}


class Change(Record):
    """`--chmod`, parsed: `octal` is -1 for a symbolic one, which `clauses` holds as (who, operator, permissions)."""

    octal: int = -1
    clauses: tuple[tuple[str, str, str], ...] = ()

    def apply(self, mode: int, *, directory: bool) -> int:
        """The new permission bits (0-07777) of something that had `mode`."""
        if self.octal >= 0:
            return self.octal
        for who, operator, permissions in self.clauses:
            who = who or "a"
            reach = 0
            for one in who:
                reach |= _WHO[one] | _SPECIAL[one]
            bits = _bits(permissions, mode, who, directory=directory)
            if operator == "+":
                mode |= bits
            elif operator == "-":
                mode &= ~bits
            else:
                # as chmod(1) does, `=` leaves a directory's setuid and setgid alone unless they are named
                keep = 0o6000 & ~(0o6000 if "s" in permissions else 0) if directory else 0
                mode = (mode & ~(reach & ~keep)) | bits
        return mode & 0o7777


def parse(text: str) -> Change | None:
    """The change, or None for "". Raises UsageError that says what is wrong."""
    if not text:
        return None
    if _OCTAL.issuperset(text):
        mode = int(text, 8) if len(text) <= 12 else 0o10000
        if mode > 0o7777:
            raise UsageError(f"invalid --chmod '{text}'", "an octal mode is at most 7777")
        return Change(mode)
    if text[0].isdigit():
        raise UsageError(f"invalid --chmod '{text}'", "a mode is octal: digits from 0 to 7")
    clauses: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        at = 0
        while at < len(clause) and clause[at] in _WHO:
            at += 1
        who, rest = clause[:at], clause[at:]
        if not rest or rest[0] not in "+-=":
            raise UsageError(f"invalid --chmod '{text}'", f"no operator (+, - or =) in '{clause}'", hint=_HINT)
        while rest:
            operator, end = rest[0], 1
            while end < len(rest) and rest[end] not in "+-=":
                end += 1
            permissions, rest = rest[1:end], rest[end:]
            unknown = permissions.strip("rwxXst") if permissions not in ("u", "g", "o") else ""
            if unknown:
                raise UsageError(f"invalid --chmod '{text}'", f"unknown permission '{unknown[0]}'", hint=_HINT)
            clauses.append((who, operator, permissions))
    return Change(clauses=tuple(clauses))


_HINT = "octal as 644, or as chmod takes it: u=rwX,go=rX"


def _bits(permissions: str, mode: int, who: str, *, directory: bool) -> int:
    classes = 0
    for one in who:
        classes |= _WHO[one]
    bits = 0
    for one in permissions:
        if one in _SHIFT:  # u, g or o as a permission: what that class has now
            bits |= ((mode >> _SHIFT[one]) & 7) * 0o111 & classes
        elif one == "X":
            bits |= 0o111 & classes if directory or mode & 0o111 else 0
        elif one == "s":
            bits |= (0o4000 if classes & 0o700 else 0) | (0o2000 if classes & 0o070 else 0)
        elif one == "t":
            bits |= 0o1000 if classes & 0o007 else 0
        else:
            bits |= _BITS[one] & classes
    return bits
