# SPDX-License-Identifier: Apache-2.0
"""pyrun rm and pyrun container prune: remove containers."""

from __future__ import annotations

from pyrun.runtime.cli import output
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
    from pyrun.runtime.engine.containers import CREATED, DEAD, EXITED, ContainerStore
    from pyrun.runtime.engine.listing import disk_usage
    from pyrun.runtime.engine.remove import remove

    if not args.on("force") and not output.confirm(ctx, "This removes all stopped containers. Go on?"):
        return 0
    store = ContainerStore(ctx.paths)
    freed = 0

    def one(container_id: str) -> str:
        nonlocal freed
        written = disk_usage(f"{ctx.paths.container(container_id)}/upper")
        remove(ctx.paths, container_id, link=ctx.link)
        freed += written
        return container_id

    states = [(container.id, store.settle(container.id, state).status) for container, state in store.all()[0]]
    code = ctx.each([container_id for container_id, status in states if status in (CREATED, EXITED, DEAD)], one)
    ctx.print(f"Total reclaimed space: {size(freed)}")
    return code


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
PRUNE = Command("container prune", "", "Remove all stopped containers", prune, (output.FORCE,), most=0)
