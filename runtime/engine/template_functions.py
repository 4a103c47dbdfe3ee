# SPDX-License-Identifier: Apache-2.0
"""The values and functions of templates, with Go's ways of printing and comparing."""

from __future__ import annotations

from pyrun.runtime.errors import EXIT_FAULT, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class TemplateError(UsageError):
    """A template is wrong, or asks for what is not there."""

    def __init__(self, why: str, *, hint: str = "", code: int = EXIT_FAULT) -> None:
        super().__init__("--format", why, hint=hint, code=code)


class Thing(dict[str, "Any"]):
    """The fields of something that has a name for messages: "container", "image"."""

    def __init__(self, fields: dict[str, Any], called: str) -> None:
        super().__init__(fields)
        self.called = called


class Map(dict[str, "Any"]):
    """A dict whose keys are data: a missing one is "<no value>" instead of an error."""


class Lazy:
    """A value that is computed, once, when a template asks for it."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute: Callable[[], Any] | None = compute
        self._value: Any = None

    def get(self) -> Any:
        """The value."""
        if self._compute is not None:
            self._value = self._compute()
            self._compute = None
        return self._value


class _NoValue:
    """What a missing key of a Map gives: false, and printed as Go prints it."""

    def __bool__(self) -> bool:
        return False


NO_VALUE = _NoValue()


def truth(value: Any) -> bool:
    """Go's truth: false is what is zero or empty."""
    return bool(value)


def show(value: Any) -> str:
    """`value` as Go's fmt %v prints it: [a b], map[k:v], {v1 v2} for a struct."""
    if value is NO_VALUE:
        return "<no value>"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Lazy):
        return show(value.get())
    if isinstance(value, Map):
        return f"map[{' '.join(f'{key}:{show(item)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, dict):
        return f"{{{' '.join(show(item) for item in value.values() if not _is_method(item))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(show(item) for item in value)}]"
    return str(value)


def plain(value: Any) -> Any:
    """`value` as json.dumps can take it: lazy values computed, methods left out."""
    if value is NO_VALUE:
        return None
    if isinstance(value, Lazy):
        return plain(value.get())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if not _is_method(item)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _is_method(value: Any) -> bool:
    return callable(value) and not isinstance(value, Lazy)


def to_json(value: Any) -> str:
    """One line of JSON."""
    import json

    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    """Elements by key or number, one level per key. A key that a map has not gives "", as Go's zero value prints."""
    for key in keys:
        if value is None:
            value = ""  # a nil map
        elif isinstance(value, dict):
            value = value.get(key, "")
            value = value.get() if isinstance(value, Lazy) else value
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"index {key} is out of range: there are {len(value)}")
            value = value[key]
        else:
            raise TemplateError(f"cannot index {show(value)!r} with {show(key)!r}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, (str, list, tuple)):
        raise TemplateError(f"cannot slice {show(value)!r}")
    return value[slice(*bounds)] if len(bounds) == 2 else value[bounds[0] :] if bounds else value


def _printf(form: Any, *values: Any) -> str:
    """fmt.Sprintf with %s %v %d %q %t %x %o %c %f %g %e %%, flags, width and precision."""
    out, at, queue = "", 0, list(values)
    text = show(form)
    while at < len(text):
        if text[at] != "%":
            out += text[at]
            at += 1
            continue
        end = at + 1
        while end < len(text) and text[end] in "+-# 0123456789.":
            end += 1
        flags, verb = text[at + 1 : end], text[end : end + 1]
        at = end + 1
        out += "%" if verb == "%" else _format(flags, verb, queue)
    if queue:
        raise TemplateError("printf: there are more values than verbs")
    return out


def _format(flags: str, verb: str, queue: list[Any]) -> str:
    if not queue:
        raise TemplateError(f"printf: no value for %{verb}")
    value = queue.pop(0)
    value = value.get() if isinstance(value, Lazy) else value
    if verb in ("s", "v", "t"):
        return f"%{flags.lstrip('+#')}s" % show(value)
    if verb == "q":
        import json

        return f"%{flags}s" % json.dumps(show(value), ensure_ascii=False)
    if verb in ("d", "x", "X", "o", "c") and isinstance(value, int):
        return f"%{flags}{verb}" % value
    if verb in ("f", "g", "e") and isinstance(value, (int, float)):
        return f"%{flags}{verb}" % value
    raise TemplateError(f"printf: %{verb} does not fit {show(value)!r}")


def _join(values: Any, separator: str = "") -> str:
    if isinstance(values, str):  # docker's join takes the list first; forgive the other order
        raise TemplateError(f"join wants a list, not {values!r}")
    return separator.join(show(value) for value in values or ())


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq needs two arguments")
    for other in others:
        if isinstance(first, (str, bool)) != isinstance(other, (str, bool)) and None not in (first, other):
            raise TemplateError(f"cannot compare {show(first)!r} with {show(other)!r}: they are of different types")
    return any(first == other for other in others)


def _order(first: Any, second: Any) -> int:
    """Negative, 0 or positive. Raises TemplateError for values of different types, and those that have no order."""
    numbers = isinstance(first, (int, float)) and isinstance(second, (int, float))
    if not numbers and not (isinstance(first, str) and isinstance(second, str)):
        raise TemplateError(f"cannot order {show(first)!r} and {show(second)!r}")
    return int(first > second) - int(first < second)


def _print(*values: Any) -> str:
    """fmt.Sprint: a space between two values when neither is a string."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += show(value)
    return out


def _truncate(text: Any, length: int) -> str:
    return show(text)[:length]


def _pad(text: Any, before: int, after: int) -> str:
    return f"{' ' * before}{show(text)}{' ' * after}" if text else ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "join": _join,
    "split": lambda text, separator: show(text).split(separator) if separator else list(show(text)),
    "upper": lambda text: show(text).upper(),
    "lower": lambda text: show(text).lower(),
    "title": lambda text: show(text).title(),
    "pad": _pad,
    "truncate": _truncate,
    "printf": _printf,
    "print": _print,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "len": lambda value: len(value if value is not None else ()),
    "index": _index,
    "slice": _slice,
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": lambda first, second: _order(first, second) < 0,
    "le": lambda first, second: _order(first, second) <= 0,
    "gt": lambda first, second: _order(first, second) > 0,
    "ge": lambda first, second: _order(first, second) >= 0,
    "and": lambda *values: next((value for value in values if not truth(value)), values[-1]),
    "or": lambda *values: next((value for value in values if truth(value)), values[-1]),
    "not": lambda value: not truth(value),
}
