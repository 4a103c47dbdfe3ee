# SPDX-License-Identifier: Apache-2.0
"""JSON as RFC 8259 and a runtime need it: strict to read, cheap to import.

`import json` costs 7 to 9 ms, nearly all of it for `re` and for compiling patterns that only the pure-Python fallback
uses: as much as the interpreter itself takes to start. The C scanner and string encoder below it (`_json`) need none
of that, have had the same interface from CPython 3.11 to 3.14, and cost 0.3 ms; an interpreter without them gets the
`json` package. What is stricter than json.loads(): duplicate keys (two readers could see two different values), NaN
and Infinity, byte order marks and other encodings than UTF-8, numbers no machine type holds, and nesting without end.
"""

from __future__ import annotations

from pyrun.runtime.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\n\r"
_INFINITY = float("inf")
_MAX_DIGITS = 24  # more than any 64-bit number; bounds the work that int() does for one token


class _Refused:
    """Stands where a refused thing was, so that a second pass can say where in the document that is."""

    def __init__(self, why: str) -> None:
        self.why = why


def loads(data: bytes, where: str) -> Any:
    """The value of the JSON text `data`; objects are dicts, arrays lists, integers exact.

    `where` names the text in messages ("config.json"). Raises SpecError, with the line and column of a syntax
    error or the JSON path of what is well-formed and refused all the same.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SpecError(where, f"not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
    if text.startswith("\ufeff"):
        raise SpecError(where, "starts with a byte order mark, which JSON forbids")
    try:
        return _scan(text, _strict_object, _refuse_constant)
    except _Syntax as error:
        raise SpecError(where, str(error)) from None
    except _Odd:
        path, why = _locate(text)
        raise SpecError(f"{where}: {path}" if path else where, why) from None
    except RecursionError:
        raise SpecError(where, "arrays or objects are nested too deeply") from None


def dumps(value: Any, *, indent: int = 0) -> str:
    """`value` (dict, list, tuple, str, int, bool, None) as JSON text; `indent` > 0 puts one item on a line.

    Raises TypeError for any other type, ValueError for NaN and Infinity.
    """
    parts: list[str] = []
    _write(value, parts.append, "\n" if indent else "", " " * indent)
    return "".join(parts)


class _Syntax(ValueError):
    """Not JSON; the text says what and where."""


class _Odd(ValueError):
    """JSON, but refused; raised from inside the scanner, which does not know the path."""


def _strict_object(pairs: list[tuple[str, Any]]) -> Any:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Odd
    return made


def _refuse_constant(_name: str) -> Any:
    raise _Odd


def _number(digits: str) -> Any:
    if len(digits) > _MAX_DIGITS:
        raise _Odd
    return int(digits)


def _float(digits: str) -> Any:
    value = float(digits)
    if value in (_INFINITY, -_INFINITY):  # 1e999
        raise _Odd
    return value


def _scan(
    text: str,
    make_object: Callable[[list[tuple[str, Any]]], Any],
    make_constant: Callable[[str], Any],
    make_int: Callable[[str], Any] = _number,
    make_float: Callable[[str], Any] = _float,
) -> Any:
    """The one value in `text`. Raises _Syntax, RecursionError, and what the hooks raise."""
    start = len(text) - len(text.lstrip(_SPACE))
    scan = _scanner(make_object, make_constant, make_int, make_float)
    try:
        try:
            value, end = scan(text, start)
        except SystemError:
            # CPython 3.11 looks for the class of its errors in sys.modules, and fails without an error if it is not
            # there; 3.12 and later import it. Only a wrong document comes here, so now the import may cost something.
            import json.decoder  # noqa: F401

            value, end = scan(text, start)
    except StopIteration as error:
        raise _Syntax(f"not JSON: {_position(text, error.value)}: expected a value") from None
    except _Odd:
        raise
    except ValueError as error:  # json.JSONDecodeError, which the C scanner imports only now
        at = getattr(error, "pos", None)
        if at is None:
            raise
        raise _Syntax(f"not JSON: {_position(text, at)}: {_plain(error)}") from None
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise _Syntax(f"not JSON: {_position(text, len(text) - len(rest))}: more text after the end")
    return value


def _scanner(
    make_object: Callable[[list[tuple[str, Any]]], Any],
    make_constant: Callable[[str], Any],
    make_int: Callable[[str], Any],
    make_float: Callable[[str], Any],
) -> Callable[[str, int], tuple[Any, int]]:
    class Context:  # the attributes that json.decoder.JSONDecoder offers to the scanner
        strict = True  # control characters in strings are refused
        object_hook = None
        object_pairs_hook = staticmethod(make_object)
        parse_float = staticmethod(make_float)
        parse_int = staticmethod(make_int)
        parse_constant = staticmethod(make_constant)

    try:
        from _json import make_scanner
    except ImportError:  # not CPython: the pure-Python scanner wants more attributes, so take the whole decoder
        import json

        decoder = json.JSONDecoder(
            object_pairs_hook=make_object, parse_constant=make_constant, parse_int=make_int, parse_float=make_float
        )
        scan: Any = decoder.scan_once  # type: ignore[attr-defined]
    else:
        scan = make_scanner(Context)  # type: ignore[arg-type]
    return scan  # type: ignore[no-any-return]


def _locate(text: str) -> tuple[str, str]:
    """The path and the reason of the first refused thing in `text`, by a second, slower pass."""

    def keep_object(pairs: list[tuple[str, Any]]) -> Any:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                return {key: _Refused("this key occurs twice")}
            seen[key] = value
        return seen

    def keep_int(digits: str) -> Any:
        return int(digits) if len(digits) <= _MAX_DIGITS else _Refused(f"a number of {len(digits)} digits")

    def keep_constant(name: str) -> Any:
        return _Refused(f"{name} is not a JSON number")

    def keep_float(digits: str) -> Any:
        value = float(digits)
        return _Refused(f"{digits[:30]} is too large") if value in (_INFINITY, -_INFINITY) else value

    value = _scan(text, keep_object, keep_constant, keep_int, keep_float)
    pending = [("", value)]
    while pending:
        path, item = pending.pop()
        if isinstance(item, _Refused):
            return path, item.why
        if isinstance(item, dict):
            pending += reversed([(member(path, key), child) for key, child in item.items()])
        elif isinstance(item, list):
            pending += reversed([(f"{path}[{index}]", child) for index, child in enumerate(item)])
    return "", "refused"


def member(path: str, key: str) -> str:
    """The JSON path of `key` in the object at `path`: a.b, or a["x.y"] where a dot would mislead."""
    if key and key.isascii() and key.replace("_", "").isalnum():
        return f"{path}.{key}" if path else key
    return f"{path}[{_quoted(key)}]"


def _position(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f"line {line} column {at - text.rfind(chr(10), 0, at)}"


def _plain(error: ValueError) -> str:
    said = str(getattr(error, "msg", error))
    return said[:1].lower() + said[1:]


def _quoted(text: str) -> str:
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    made: str = encode_basestring_ascii(text)
    return made


def _write(value: Any, put: Callable[[str], object], newline: str, indent: str) -> None:
    """Recursive writer; `newline` is "" or a line break with the indentation that now holds."""
    kind = type(value)
    if kind is str:
        put(_quoted(value))
    elif value is None or kind is bool:
        put("null" if value is None else "true" if value else "false")
    elif kind is int:
        put(str(value))
    elif kind is float:
        if value != value or value in (_INFINITY, -_INFINITY):
            raise ValueError(f"{value} is not a JSON number")
        put(repr(value))
    elif kind is dict:
        inner = newline and newline + indent
        put("{")
        for index, (key, item) in enumerate(value.items()):
            if type(key) is not str:
                raise TypeError(f"JSON keys are strings, not {type(key).__name__}")
            put(f"{',' if index else ''}{inner}{_quoted(key)}:{' ' if inner else ''}")
            _write(item, put, inner, indent)
        put(f"{newline if value else ''}}}")
    elif kind is list or kind is tuple:
        inner = newline and newline + indent
        put("[")
        for index, item in enumerate(value):
            put(f"{',' if index else ''}{inner}")
            _write(item, put, inner, indent)
        put(f"{newline if value else ''}]")
    else:
        raise TypeError(f"{kind.__name__} has no JSON form")
