# SPDX-License-Identifier: Apache-2.0
"""pyrun rmi: removes images."""

from __future__ import annotations

from pyrun.runtime.cli.context import render
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Takes each name away; an image goes with its last one."""
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.prune import image_users

    images = ImageStore(ctx.paths)
    in_use = image_users(ctx.paths)

    def one(name: str) -> None:
        try:
            ctx.print(*images.remove(name, force=args.on("force"), in_use=in_use))
        except NotFound as error:
            if not args.on("force"):
                raise
            render(error, ctx.stderr)

    return ctx.each(args.arguments, one)


RMI = Command(
    "rmi",
    "IMAGE [IMAGE...]",
    "Remove images",
    run,
    (
        Flag("force", "f", SWITCH, "although containers use it; do not mind if there is none"),
        Flag("no-prune", "", SWITCH, hidden=True),
    ),
    least=1,
    aliases=("image rm",),
)
