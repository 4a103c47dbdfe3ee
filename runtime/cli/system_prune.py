# SPDX-License-Identifier: Apache-2.0
"""pyrun system prune: removes everything that nothing needs."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.context import render
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine.humanize import size
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Containers first: what they used is then unused too."""
    from pyrun.runtime.engine import prune

    chosen = prune.parse_filters(args.many("filter"))
    if args.on("volumes") and chosen.until_ns is not None:
        raise UsageError("system prune", "--filter until does not go with --volumes", hint="pyrun volume prune")
    if not args.on("force") and not output.confirm(ctx, question(args)):
        return 0
    everything = args.on("all")
    done = {"Containers": prune.containers(ctx.paths, chosen, ctx.link)}
    if args.on("volumes"):
        done["Volumes"] = prune.volumes(ctx.paths, chosen)
    done["Images"] = prune.images(ctx.paths, chosen, unused=everything)
    done["build cache objects"] = prune.build_cache(ctx.paths, chosen, unused=everything)
    for name, freed in done.items():
        if freed.lines:
            ctx.print(f"Deleted {name}:", *freed.lines, "")
    ctx.print(f"Total reclaimed space: {size(sum(freed.bytes for freed in done.values()))}")
    problems = [problem for freed in done.values() for problem in freed.problems]
    for problem in problems:
        render(problem, ctx.stderr)
    return 1 if problems else 0


def question(args: Args) -> str:
    """What will be removed, in words."""
    lines = ["all stopped containers"]
    if args.on("volumes"):
        lines.append("all anonymous volumes that no container has")
    if args.on("all"):
        lines += ["all images that no container has", "all build cache"]
    else:
        lines += ["all images without a name", "the build cache that no image needs"]
    listed = "".join(f"\n  - {line}" for line in lines)
    return f"This removes:{listed}\nGo on?"


PRUNE = Command(
    "system prune",
    "",
    "Remove everything that nothing needs",
    run,
    (
        Flag("all", "a", SWITCH, "all images without a container, and all build cache"),
        Flag("volumes", kind=SWITCH, help="anonymous volumes that no container has, too"),
        output.PRUNE_FILTER,
        output.FORCE,
    ),
    most=0,
)
