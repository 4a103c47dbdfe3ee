# SPDX-License-Identifier: Apache-2.0
"""pyrun rm and pyrun container prune: remove containers."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.context import render
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine.humanize import size
from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Removes each container; with -f a running one is killed first, and one that is not there is no failure."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.remove import remove

    store = ContainerStore(ctx.paths)
    force = args.on("force")

    def one(name: str) -> str | None:
        try:
            container_id = store.lookup(name)
        except NotFound as error:
            if not force:
                raise
            ctx.stderr.write(f"pyrun: {error}\n")
            return None
        remove(ctx.paths, container_id, force=force, volumes=args.on("volumes"), link=ctx.link)
        return name

    return ctx.each(args.arguments, one)


def prune(args: Args, ctx: Context) -> int:
    """Every container that does not run and is not about to."""
    from pyrun.runtime.engine import prune as engine

    chosen = engine.parse_filters(args.many("filter"))
    if not args.on("force") and not output.confirm(ctx, "This removes all stopped containers. Go on?"):
        return 0
    done = engine.containers(ctx.paths, chosen, ctx.link)
    if done.lines:
        ctx.print("Deleted Containers:", *done.lines, "")
    ctx.print(f"Total reclaimed space: {size(done.bytes)}")
    for problem in done.problems:
        render(problem, ctx.stderr)
    return 1 if done.problems else 0


RM = Command(
    "rm",
    "CONTAINER [CONTAINER...]",
    "Remove containers",
    run,
    (
        Flag("force", "f", SWITCH, "kill it first if it runs; do not mind if there is none"),
        Flag("volumes", "v", SWITCH, "remove its anonymous volumes too"),
        Flag("link", "l", SWITCH, refused="links between containers do not exist here"),
    ),
    least=1,
    aliases=("container rm",),
)
PRUNE = Command(
    "container prune", "", "Remove all stopped containers", prune, (output.PRUNE_FILTER, output.FORCE), most=0
)
