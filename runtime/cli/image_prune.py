# SPDX-License-Identifier: Apache-2.0
"""pyrun image prune: removes images that nothing needs."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine.humanize import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Images without a name, with -a also named ones, as long as no container was made from them."""
    from pyrun.runtime.engine import prune

    chosen = prune.parse_filters(args.many("filter"))
    kind = "images without a container" if args.on("all") else "images without a name"
    if not args.on("force") and not output.confirm(ctx, f"This removes all {kind}. Go on?"):
        return 0
    done = prune.images(ctx.paths, chosen, unused=args.on("all"))
    if done.lines:
        ctx.print("Deleted Images:", *done.lines, "")
    ctx.print(f"Total reclaimed space: {size(done.bytes)}")
    return 0


PRUNE = Command(
    "image prune",
    "",
    "Remove images that nothing needs",
    run,
    (
        Flag("all", "a", SWITCH, "named ones without a container too"),
        output.PRUNE_FILTER,
        output.FORCE,
    ),
    most=0,
    details="What the build cache keeps stays: pyrun builder prune.",
)
