# SPDX-License-Identifier: Apache-2.0
"""pyrun rmi: removes images."""

from __future__ import annotations

from pyrun.runtime.cli.context import render
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.runtime.cli.context import Context


def users(ctx: Context) -> Callable[[str], list[str]]:
    """A function that gives the names of the containers made from an image."""
    from pyrun.runtime.engine.containers import ContainerStore

    def in_use(image_id: str) -> list[str]:
        found, _ = ContainerStore(ctx.paths).all()
        return [container.name for container, _ in found if container.image_id == image_id]

    return in_use


def run(args: Args, ctx: Context) -> int:
    """Takes each name away; an image goes with its last one."""
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)

    def one(name: str) -> None:
        try:
            ctx.print(*images.remove(name, force=args.on("force"), in_use=users(ctx)))
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
