# SPDX-License-Identifier: Apache-2.0
"""Typed reading of JSON values: a reader takes (value, where) and gives a checked Python value or raises SpecError.

    ROOT = record(Root, ("path", path), ("readonly", boolean))     # JSON key and reader of each field, in order
    ROOT({"path": "rootfs"}, "config.json: root")                   # -> Root(path='rootfs', readonly=False)

`where` is the JSON path, which every message starts with: `config.json: mounts[3].options[1]: unknown option …`.
A field whose Record has no default is required. null counts as absent, as in Go, whose programs write most specs;
unknown keys are ignored, as the runtime-spec demands (config.md, Extensibility).
"""

from __future__ import annotations

from pyrun.runtime.errors import SpecError

from .json import member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from pyrun.runtime.record import Record

    T = TypeVar("T")
    R = TypeVar("R", bound=Record)
    Reader = Callable[[Any, str], T]

_KINDS = {dict: "an object", list: "an array", tuple: "an array", str: "a string", bool: "a boolean", int: "a number"}


def wrong(where: str, why: str, *, hint: str = "") -> SpecError:
    """The error for the value at `where`."""
    return SpecError(where.removesuffix(": "), why, hint=hint)


def below(where: str, key: str) -> str:
    """The path of `key` below `where`; a document's own path ends with ": "."""
    if where.endswith(": "):
        return where + member("", key)
    return member(where, key)


def _mismatch(value: Any, wanted: str, where: str) -> SpecError:
    got = _KINDS.get(type(value), "a fraction" if type(value) is float else f"a {type(value).__name__}")
    return wrong(where, f"expected {wanted}, got {got}")


def text(value: Any, where: str) -> str:
    """A string that can be handed to the kernel: no NUL byte, no lone surrogate."""
    if type(value) is not str:
        raise _mismatch(value, "a string", where)
    if "\0" in value:
        raise wrong(where, "contains a NUL byte")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise wrong(where, "contains half of a surrogate pair, which is no character") from None
    return value


def nonempty(value: Any, where: str) -> str:
    """A string that is not empty."""
    if not text(value, where):
        raise wrong(where, "is empty")
    return str(value)


def absolute(value: Any, where: str) -> str:
    """An absolute path."""
    if not text(value, where).startswith("/"):
        raise wrong(where, f"{value!r} is not an absolute path")
    return str(value)


def optional_absolute(value: Any, where: str) -> str:
    """An absolute path, or "" for none (Go programs write an empty string for an unset one)."""
    return absolute(value, where) if value != "" else ""


def boolean(value: Any, where: str) -> bool:
    """true or false."""
    if type(value) is not bool:
        raise _mismatch(value, "a boolean", where)
    return value


def integer(low: int, high: int) -> Reader[int]:
    """The reader of whole numbers from `low` to `high`."""

    def read(value: Any, where: str) -> int:
        if type(value) is not int:
            raise _mismatch(value, "a whole number", where)
        if not low <= value <= high:
            raise wrong(where, f"{value} is not between {low} and {high}")
        return value

    return read


uint16 = integer(0, 2**16 - 1)
uint32 = integer(0, 2**32 - 1)
uint64 = integer(0, 2**64 - 1)
int32 = integer(-(2**31), 2**31 - 1)
int64 = integer(-(2**63), 2**63 - 1)
kernel_id = integer(0, 2**32 - 2)  # (uid_t)-1 means "leave it as it is" to the kernel: never an id


def choice(known: Iterable[str], what: str) -> Reader[str]:
    """The reader of one word of `known`; `what` names its kind in messages, such as "namespace type"."""
    words = tuple(known)

    def read(value: Any, where: str) -> str:
        if text(value, where) not in words:
            from .nearest import did_you_mean

            hint = did_you_mean(value, words) or (f"one of {' '.join(words)}" if words else "")
            raise wrong(where, f"unknown {what} {value!r}", hint=hint)
        return str(value)

    return read


def array(item: Reader[T]) -> Reader[tuple[T, ...]]:
    """The reader of arrays, as tuples."""

    def read(value: Any, where: str) -> tuple[T, ...]:
        if type(value) is not list and type(value) is not tuple:
            raise _mismatch(value, "an array", where)
        return tuple([item(entry, f"{where}[{index}]") for index, entry in enumerate(value)])

    return read


def texts(value: Any, where: str) -> tuple[str, ...]:
    """array(text), without building a path per item: seccomp profiles name hundreds of system calls."""
    if type(value) is not list and type(value) is not tuple:
        raise _mismatch(value, "an array", where)
    for index, entry in enumerate(value):
        if type(entry) is not str or not entry.isascii() or "\0" in entry:
            text(entry, f"{where}[{index}]")
    return tuple(value)


def mapping(item: Reader[T], key: Reader[str] = nonempty) -> Reader[dict[str, T]]:
    """The reader of objects with free keys, as dicts in the order of the document."""

    def read(value: Any, where: str) -> dict[str, T]:
        if type(value) is not dict:
            raise _mismatch(value, "an object", where)
        return {key(name, where): item(entry, below(where, name)) for name, entry in value.items()}

    return read


def raw(value: Any, where: str) -> Any:
    """The value as it is, for a parser of another module."""
    return value


def record(made: type[R], *fields: tuple[str, Reader[Any]]) -> Reader[R]:
    """The reader of objects as `made`, whose fields are `fields` (JSON key and reader) in the same order.

    Raises TypeError at import when the numbers differ, so that a field can't be forgotten on one side.
    """
    if len(fields) != len(made._fields):
        raise TypeError(f"{made.__name__} has {len(made._fields)} fields, {len(fields)} readers")
    table = [(name, key, read, hasattr(made, name)) for name, (key, read) in zip(made._fields, fields, strict=True)]

    def read(value: Any, where: str) -> R:
        if type(value) is not dict:
            raise _mismatch(value, "an object", where)
        base = where if where.endswith(": ") else f"{where}."
        found: dict[str, Any] = {}
        for name, key, read_field, has_default in table:
            item = value.get(key)
            if item is not None:
                found[name] = read_field(item, base + key)
            elif not has_default:
                raise wrong(where, f"{key!r} is missing")
        return made(**found)

    return read
