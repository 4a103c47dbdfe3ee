# SPDX-License-Identifier: Apache-2.0
"""What all listings share: --format (table, table TEMPLATE, json, TEMPLATE), --quiet, and filters of name=value."""

from __future__ import annotations

import os

from pyrun.runtime.cli.context import one_line
from pyrun.runtime.cli.flags import LIST, SWITCH, Flag
from pyrun.runtime.engine.templates import Map, parse, render, table
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pyrun.runtime.cli.context import Context

FORMAT = Flag("format", help="table, table TEMPLATE, json, or a Go template of one line", metavar="FORMAT")
INSPECT_FORMAT = Flag("format", "f", help="json, or a Go template such as {{.State.Status}}", metavar="FORMAT")
QUIET = Flag("quiet", "q", SWITCH, "only the ids")
NO_TRUNC = Flag("no-trunc", kind=SWITCH, help="do not shorten anything")
FORCE = Flag("force", "f", SWITCH, "do not ask")


def name_value(text: str) -> tuple[str, str]:
    """One --filter. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError("expected NAME=VALUE")
    return name.strip().lower(), value.strip()


def filter_flag(example: str) -> Flag:
    """--filter, with an example for the help."""
    return Flag("filter", "f", LIST, f"show only what fits, such as {example}", "NAME=VALUE", parse=name_value)


PRUNE_FILTER = Flag(
    "filter",
    "",
    LIST,
    "only what fits: until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]",
    "NAME=VALUE",
    parse=name_value,
)


def by_name(pairs: Iterable[tuple[str, str]], known: Sequence[str]) -> dict[str, list[str]]:
    """The filters' values by name. Raises UsageError for one that there is not."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            from pyrun.runtime.oci.nearest import did_you_mean

            hint = did_you_mean(name, known) or f"one of {', '.join(known)}"
            raise UsageError(f"--filter {name}={value}", f"unknown filter '{name}'", hint=hint)
        found.setdefault(name, []).append(value)
    return found


def labels_fit(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether the labels have every `NAME` or `NAME=VALUE` wanted."""
    for text in wanted:
        name, equals, value = text.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def print_rows(
    ctx: Context, rows: Iterable[dict[str, Any]], form: str, columns: Mapping[str, str], default: Sequence[str]
) -> None:
    """Prints rows as --format asks: a table of the `default` columns if it says nothing.

    An image's author chose much of what is in them. In a table, and for a terminal, control characters are made
    visible: they could forge rows, or steer the terminal.

    Args:
        ctx: where to.
        rows: one dict per line, field -> value (or templates.Lazy, or a method).
        form: the text of --format.
        columns: field -> heading, for every field that can stand in a table.
        default: the fields of the plain table, in order.
    """
    form = form.replace(r"\t", "\t").replace(r"\n", "\n")
    if form in ("", "table"):
        form = "table " + "\t".join(f"{{{{.{name}}}}}" for name in default)
    if form == "json":
        form = "{{json .}}"
    if not form.startswith("table "):
        nodes = parse(form)
        for row in rows:
            ctx.print(render(nodes, row, one_line if ctx.stdout.isatty() else None))
        return
    nodes = parse(form.removeprefix("table ").lstrip(" "))
    rows = list(rows)
    if not rows and os.geteuid() != 0 and not os.environ.get("PYRUN_DATA_ROOT"):
        ctx.warn("this is what you have as an ordinary user; what root has: sudo pyrun …")
    headings = Map({**columns, "Label": _heading_of_label})
    ctx.print(*table([render(nodes, headings), *(render(nodes, row, one_line) for row in rows)]))


def print_objects(ctx: Context, objects: Sequence[dict[str, Any]], form: str) -> None:
    """Prints what inspect found: an indented JSON array, or each object through --format."""
    if form in ("", "json"):
        import json

        from pyrun.runtime.engine.template_functions import plain

        values = [plain(value) for value in objects]
        text = json.dumps(values, indent=4 if not form else None, ensure_ascii=False)
        ctx.print(_json_for(ctx, text))
        return
    nodes = parse(form)
    for value in objects:
        ctx.print(render(nodes, value, one_line if ctx.stdout.isatty() else None))


def _json_for(ctx: Context, text: str) -> str:
    """JSON escapes most control characters, but not those from U+0080 to U+009F, and some terminals obey these."""
    if text.isascii() or not ctx.stdout.isatty():
        return text
    return "".join(f"\\u{ord(char):04x}" if "\x80" <= char <= "\x9f" else char for char in text)


def _heading_of_label(name: str) -> str:
    return name


def confirm(ctx: Context, question: str) -> bool:
    """Asks on the terminal; only y or yes is a yes. Raises PyrunError at the end of input: that is no answer."""
    import sys

    from pyrun.runtime.errors import PyrunError

    ctx.stdout.write(f"{question} [y/N] ")
    ctx.stdout.flush()
    answer = sys.stdin.readline()
    if not answer:
        ctx.stdout.write("\n")
        ctx.stdout.flush()
        raise PyrunError("nothing was removed", "the input ended without an answer", hint="--force does not ask")
    return answer.strip().lower() in ("y", "yes")
