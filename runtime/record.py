# SPDX-License-Identifier: Apache-2.0
"""Record: frozen classes with typed fields, without what `import dataclasses` costs.

`dataclasses` pulls in inspect, re, copy and ast: 15 ms, more than the interpreter itself takes to start,
and every `pyrun-oci` command would pay it. Type checkers treat a Record exactly as a frozen dataclass
(PEP 681), so `mypy --strict` still checks every constructor call.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):  # typing costs 10 ms to import; only checkers need the real one
        return lambda cls: cls


@dataclass_transform(frozen_default=True, eq_default=True)
class Record:
    """A frozen value: fields are the annotated names of the class, in order; defaults are class attributes.

    >>> class Point(Record):
    ...     x: int
    ...     y: int = 0
    >>> Point(1)
    Point(x=1, y=0)

    Raises TypeError for a missing or unknown field, AttributeError on assignment.
    Defaults are shared between instances, so they must be immutable (tuples, not lists).
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = cls.__dict__.get("__annotations__", {})
        fields = [name for name, kind in own.items() if not str(kind).startswith(("ClassVar", "typing.ClassVar"))]
        inherited = tuple(name for name in cls._fields if name not in fields)
        cls._fields = inherited + tuple(fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = self._fields
        values = self.__dict__
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, got {len(args)}")
        for name, value in zip(fields, args, strict=False):
            values[name] = value
        for name, value in kwargs.items():
            if name not in fields or name in values:
                raise TypeError(f"{type(self).__name__}: unknown or repeated field {name!r}")
            values[name] = value
        if len(values) < len(fields):
            for name in fields:
                if name not in values and not hasattr(type(self), name):
                    raise TypeError(f"{type(self).__name__}: missing field {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot delete {name!r}")

    def asdict(self) -> dict[str, Any]:
        """The fields by name, in order; nested values are not converted."""
        return {name: getattr(self, name) for name in self._fields}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, as dataclasses.replace()."""
        return type(self)(**{**self.asdict(), **changes})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.asdict() == other.asdict()

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.asdict().items())})"
