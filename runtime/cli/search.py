# SPDX-License-Identifier: Apache-2.0
"""pyrun search: repositories of Docker Hub, or of another registry."""

from __future__ import annotations

from pyrun.runtime.cli import output, values
from pyrun.runtime.cli.flags import Args, Command, Flag
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context
    from pyrun.runtime.engine.searching import Hit

COLUMNS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
DEFAULT = ("Name", "Description", "StarCount", "IsOfficial")
FILTERS = ("is-official", "is-automated", "stars")
WIDTH = 45  # of a description, as docker's


def run(args: Args, ctx: Context) -> int:
    """A table in the order of the registry's answer."""
    from pyrun.runtime.engine.searching import search

    filters = output.by_name(args.many("filter"), FILTERS)
    conditions = [condition(name, value) for name, texts in filters.items() for value in texts]
    hits = [hit for hit in search(args.arguments[0], args.value("limit")) if all(fits(hit) for fits in conditions)]
    shown = [row(hit, shorten=not args.on("no-trunc")) for hit in hits]
    output.print_rows(ctx, shown, args.text("format"), COLUMNS, DEFAULT)
    return 0


def condition(name: str, text: str) -> Any:
    """A --filter as a function of a Hit. Raises UsageError."""
    if name == "stars":
        if not (text.isascii() and text.isdecimal()):
            raise UsageError(f"--filter stars={text}", "not a number")
        return lambda hit: hit.stars >= int(text)
    if text not in ("true", "false", "1", "0"):
        raise UsageError(f"--filter {name}={text}", "it is true or false")
    wanted = text in ("true", "1")
    return lambda hit: (hit.official if name == "is-official" else hit.automated) == wanted


def row(hit: Hit, *, shorten: bool) -> dict[str, Any]:
    """docker's fields of one line."""
    description = hit.description
    if shorten and len(description) > WIDTH:
        description = description[: WIDTH - 1] + "…"
    return {
        "Name": hit.name,
        "Description": description,
        "StarCount": hit.stars,
        "IsOfficial": "[OK]" if hit.official else "",
        "IsAutomated": "[OK]" if hit.automated else "",
    }


SEARCH = Command(
    "search",
    "TERM",
    "Search for repositories on Docker Hub, or on the registry that TERM begins with",
    run,
    (
        output.filter_flag("is-official=true, stars=10"),
        Flag("limit", help="at most so many, up to 100", metavar="NUMBER", default=25, parse=values.between(1, 100)),
        output.FORMAT,
        output.NO_TRUNC,
    ),
    least=1,
    most=1,
)
