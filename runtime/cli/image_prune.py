# SPDX-License-Identifier: Apache-2.0
"""pyrun image prune: removes images that nothing needs."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.rmi import users
from pyrun.runtime.engine.humanize import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Images without a name, with -a also named ones, as long as no container was made from them."""
    from pyrun.rootfs.store import ImageStore

    kind = "images without a container" if args.on("all") else "images without a name"
    if not args.on("force") and not output.confirm(ctx, f"This removes all {kind}. Go on?"):
        return 0
    store, in_use = ImageStore(ctx.paths), users(ctx)
    freed = 0
    for image in store.list():
        if (image.names and not args.on("all")) or in_use(image.id):
            continue
        for name in image.names or (image.id,):
            ctx.print(*store.remove(name, in_use=in_use))
        freed += image.size
    ctx.print(f"Total reclaimed space: {size(freed)}")
    return 0


PRUNE = Command(
    "image prune",
    "",
    "Remove images that nothing needs",
    run,
    (Flag("all", "a", SWITCH, "named ones without a container too"), output.FORCE),
    most=0,
)
