# SPDX-License-Identifier: Apache-2.0
"""Which --flags each instruction takes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .dockerfile import Instruction

SWITCH, VALUE, VALUES = "switch", "value", "values"

_FILES = {"chown": VALUE, "chmod": VALUE, "link": SWITCH, "exclude": VALUES}
FLAGS: dict[str, dict[str, str]] = {
    "ADD": {**_FILES, "keep-git-dir": SWITCH, "checksum": VALUE, "unpack": SWITCH},
    "COPY": {**_FILES, "from": VALUE, "parents": SWITCH},
    "FROM": {"platform": VALUE},
    "HEALTHCHECK": dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), VALUE),
    "RUN": {"mount": VALUES, "network": VALUE, "security": VALUE, "device": VALUES},
}


class Flags:
    """The checked flags of one instruction. Raises DockerfileError: unknown (with the nearest), repeated, no value."""

    def __init__(self, at: Instruction) -> None:
        known = FLAGS.get(at.name, {})
        self._values: dict[str, list[str]] = {}
        for name, value in at.flags:
            kind = known.get(name)
            if kind is None:
                raise at.error(f"{at.name} has no flag --{name}", _hint(at.name, name, known))
            if name in self._values and kind != VALUES:
                raise at.error(f"--{name} is given twice")
            if kind == SWITCH:
                value = "true" if value is None else value.lower()
                if value not in ("true", "false"):
                    raise at.error(f"--{name}={value} is neither true nor false")
            elif value is None:
                raise at.error(f"--{name} needs a value", f"write --{name}=<value>")
            self._values.setdefault(name, []).append(value)

    def value(self, name: str, default: str = "") -> str:
        """The value of a flag, `default` if it is not there."""
        return self._values.get(name, [default])[0]

    def values(self, name: str) -> tuple[str, ...]:
        """All the values of a flag that may be repeated."""
        return tuple(self._values.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """True or False, None if it is not there."""
        return None if name not in self._values else self._values[name][0] == "true"


def _hint(instruction: str, name: str, known: dict[str, str]) -> str:
    from .nearest import did_you_mean

    elsewhere = [other for other, flags in FLAGS.items() if name in flags]
    known_here = ", ".join(f"--{flag}" for flag in known)
    return (
        did_you_mean(f"--{name}", [f"--{flag}" for flag in known])
        or (f"it is a flag of {' and '.join(elsewhere)}" if elsewhere else "")
        or (f"{instruction} knows {known_here}" if known else f"{instruction} has no flags")
    )
