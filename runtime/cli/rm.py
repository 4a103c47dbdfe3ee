# SPDX-License-Identifier: Apache-2.0
"""pyrun rm: removes containers."""

from __future__ import annotations

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
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
