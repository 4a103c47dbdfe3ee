# SPDX-License-Identifier: Apache-2.0
"""pyrun tag: gives an image a further name."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """An image that had the new name loses it."""
    from pyrun.rootfs.store import ImageStore

    ImageStore(ctx.paths).tag(args.arguments[0], args.arguments[1])
    return 0


TAG = Command("tag", "IMAGE NAME[:TAG]", "Give an image a further name", run, least=2, most=2, aliases=("image tag",))
