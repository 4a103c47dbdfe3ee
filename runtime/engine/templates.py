# SPDX-License-Identifier: Apache-2.0
"""Go's text/template as far as docker's --format uses it.

    render(parse("{{.Name}}: {{len .Mounts}}"), data)

Data is made of dicts, lists, strings, numbers, bools and None. A plain dict is a struct: an unknown field is an error
that names it. A Map is a map: a missing key is "<no value>". A Lazy is computed when a template asks for it, any other
callable is a method: {{.Label "team"}}.

Actions: pipelines, variables, range, if, else, with, end, comments, {{- and -}}. Functions: see FUNCTIONS.
Reference: https://pkg.go.dev/text/template and docker's "Format command and log output" page.
"""

from __future__ import annotations

from pyrun.runtime.engine.template_functions import FUNCTIONS, NO_VALUE, Lazy, Map, TemplateError, Thing, show, truth
from pyrun.runtime.engine.template_parser import Chain, Command, Literal, Node, Pipeline, Variable, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["Lazy", "Map", "TemplateError", "parse", "render", "table"]

MIN_WIDTH, PADDING = 10, 3  # of a column, as docker's tabwriter has them


class _Value(str):
    """What an action printed, unlike the template's own text."""

    __slots__ = ()


def render(nodes: tuple[Node, ...], data: Any, clean: Callable[[str], str] | None = None) -> str:
    """The text that a parsed template makes of `data`, each value passed through `clean`; the template's own text is
    left as it is. Raises TemplateError (a UsageError) in one line."""
    out: list[str] = []
    _run(nodes, data, {"$": data}, out)
    if clean is None:
        return "".join(out)
    return "".join([clean(piece) if isinstance(piece, _Value) else piece for piece in out])


def table(lines: Iterable[str]) -> list[str]:
    """Lines of tab-separated cells as aligned columns."""
    rows = [line.split("\t") for line in lines]
    widths: dict[int, int] = {}
    for row in rows:
        for at, cell in enumerate(row[:-1]):
            widths[at] = max(widths.get(at, MIN_WIDTH), len(cell) + PADDING)
    return ["".join([*(cell.ljust(widths[at]) for at, cell in enumerate(row[:-1])), row[-1]]).rstrip() for row in rows]


def _run(nodes: tuple[Node, ...], dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        if node.kind == "text":
            out.append(node.text)
        elif node.kind == "print":
            assert node.pipeline is not None
            value = _pipeline(node.pipeline, dot, variables)
            if not node.pipeline.names:
                out.append(_Value(show(value)))
        elif node.kind == "range":
            _range(node, dot, variables, out)
        else:
            assert node.pipeline is not None
            inner = dict(variables)  # a variable that `if` or `with` declares ends with it
            value = _pipeline(node.pipeline, dot, inner)
            chosen = node.body if truth(value) else node.orelse
            _run(chosen, value if node.kind == "with" and truth(value) else dot, inner, out)


def _range(node: Node, dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    assert node.pipeline is not None
    value = _pipeline(Pipeline((), node.pipeline.commands), dot, variables)
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = sorted(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    elif value is None:
        pairs = []
    elif isinstance(value, int) and not isinstance(value, bool):
        pairs = [(number, number) for number in range(value)]
    else:
        raise TemplateError(f"range cannot go over {show(value)!r}")
    for key, item in pairs:
        names = node.pipeline.names
        values = (key, item) if len(names) == 2 else (item,)
        _run(node.body, item, {**variables, **dict(zip(names, values, strict=False))}, out)
    if not pairs:
        _run(node.orelse, dot, dict(variables), out)


def _pipeline(pipeline: Pipeline, dot: Any, variables: dict[str, Any]) -> Any:
    value: Any = None
    for at, command in enumerate(pipeline.commands):
        value = _command(command, dot, variables, (value,) if at else ())
    for name in pipeline.names:
        variables[name] = value
    return value


def _command(command: Command, dot: Any, variables: dict[str, Any], last: tuple[Any, ...]) -> Any:
    """A function or method with its arguments, the previous command's value being the last one; or just a value."""
    first, *rest = command.operands
    if isinstance(first, str):  # a function's name
        if first in ("and", "or") and not last:
            return _short_circuit(first, rest, dot, variables)
        arguments = [_value(operand, dot, variables) for operand in rest]
        return _call(first, FUNCTIONS[first], [*arguments, *last])
    value = _value(first, dot, variables, call=False)
    arguments = [_value(operand, dot, variables) for operand in rest]
    if callable(value) and not isinstance(value, Lazy):
        return _call(_spelled(first), value, [*arguments, *last])
    if arguments or last:
        raise TemplateError(f"{_spelled(first)} is not a function")
    return value


def _short_circuit(name: str, operands: list[Any], dot: Any, variables: dict[str, Any]) -> Any:
    value: Any = None
    if not operands:
        raise TemplateError(f"{name} needs arguments")
    for operand in operands:
        value = _value(operand, dot, variables)
        if truth(value) == (name == "or"):
            break
    return value


def _call(name: str, function: Any, arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except TemplateError:
        raise
    except TypeError as error:
        raise TemplateError(f"{name}: wrong arguments" if "argument" in str(error) else f"{name}: {error}") from None
    except (ValueError, AttributeError, IndexError, KeyError) as error:
        raise TemplateError(f"{name}: {error}") from None


def _value(operand: Any, dot: Any, variables: dict[str, Any], *, call: bool = True) -> Any:
    """What one operand stands for; `call=False` leaves a method uncalled, for its arguments to come."""
    if isinstance(operand, str):
        return _call(operand, FUNCTIONS[operand], [])
    if isinstance(operand, Literal):
        return operand.value
    if isinstance(operand, Pipeline):
        return _pipeline(operand, dot, variables)
    if isinstance(operand, Variable):
        if operand.name not in variables:
            raise TemplateError(f"undefined variable {operand.name}")
        return variables[operand.name]
    assert isinstance(operand, Chain)
    value = dot if operand.start is None else _value(operand.start, dot, variables)
    for at, name in enumerate(operand.fields):
        value = _field(value, name, operand, at)
        if callable(value) and not isinstance(value, Lazy) and (call or at + 1 < len(operand.fields)):
            value = _call(name, value, [])
    return value


def _field(value: Any, name: str, chain: Chain, at: int) -> Any:
    if isinstance(value, dict) and name in value:
        found = value[name]
        return found.get() if isinstance(found, Lazy) else found
    if isinstance(value, Map) or value is None or value is NO_VALUE:
        return NO_VALUE
    spelled = "." + ".".join(chain.fields)
    if isinstance(value, dict):
        from pyrun.runtime.oci.nearest import did_you_mean

        known = [str(key) for key in value]
        place = f" in .{'.'.join(chain.fields[:at])}" if at else ""
        if isinstance(value, Thing):
            place = f" in the {value.called}"
        hint = did_you_mean(name, known) or _some(known)
        raise TemplateError(f"there is no field {name}{place}", hint=hint, code=1)  # docker's exit code
    raise TemplateError(f"{spelled}: {show(value)!r} has no fields, so no {name}")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:12])
    return f"the fields are {shown}{', …' if len(names) > 12 else ''}" if names else ""


def _spelled(operand: Any) -> str:
    return "." + ".".join(operand.fields) if isinstance(operand, Chain) else "the value"
