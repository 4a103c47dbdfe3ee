# SPDX-License-Identifier: Apache-2.0
"""pyrun ps: lists containers."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.context import render
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine import listing
from pyrun.runtime.engine.containers import ContainerStore
from pyrun.runtime.engine.humanize import signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """One line per container; a damaged one is reported and does not stop the others."""
    store = ContainerStore(ctx.paths)
    filters = output.by_name(args.many("filter"), listing.FILTER_NAMES)
    found, problems = store.all()
    last = 1 if args.on("latest") else args.value("last")
    chosen = listing.select(
        [(container, store.settle(container.id, state)) for container, state in found],
        filters,
        lambda name: store.load(store.lookup(name)).created,
        everything=args.on("all"),
        last=last if last > 0 else -1,
    )
    shorten = not args.on("no-trunc")
    if args.on("quiet") and not args.given("format"):
        ctx.print(*(container.short_id if shorten else container.id for container, _ in chosen))
    else:
        size = args.on("size") or ".Size" in args.text("format")
        rows = [listing.row(ctx.paths, container, state, shorten=shorten, size=size) for container, state in chosen]
        default = (*listing.DEFAULT, "Size") if args.on("size") else listing.DEFAULT
        output.print_rows(ctx, rows, args.text("format"), listing.COLUMNS, default)
    for problem in problems:
        render(problem, ctx.stderr)
    return 1 if problems else 0


PS = Command(
    "ps",
    "",
    "List containers",
    run,
    (
        Flag("all", "a", SWITCH, "stopped ones too"),
        output.filter_flag("status=exited, name=web, label=team=a, publish=80"),
        output.FORMAT,
        Flag("last", "n", help="the last NUMBER created", metavar="NUMBER", default=-1, parse=signed),
        Flag("latest", "l", SWITCH, "the last one created"),
        output.NO_TRUNC,
        output.QUIET,
        Flag("size", "s", SWITCH, "how much each has written"),
    ),
    most=0,
    aliases=("container ls", "container list"),
    details=f"Filters: {', '.join(listing.FILTER_NAMES)}\nFields of --format: {', '.join(listing.COLUMNS)}, Label",
)
