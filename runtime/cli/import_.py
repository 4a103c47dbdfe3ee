# SPDX-License-Identifier: Apache-2.0
"""pyrun import: makes an image of a root file system's tar."""

from __future__ import annotations

import sys

from pyrun.runtime.cli.flags import LIST, Args, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Reads a tar, plain or compressed, from a file or from stdin ("-"); prints the image's id."""
    from pyrun.rootfs.store import ImageStore

    name = args.arguments[1] if len(args.arguments) > 1 else ""
    source = sys.stdin.buffer if args.arguments[0] == "-" else args.arguments[0]
    image = ImageStore(ctx.paths).import_rootfs(source, name, args.many("change"), args.text("message"))
    ctx.print(image.id)
    return 0


IMPORT = Command(
    "import",
    "FILE|- [NAME[:TAG]]",
    "Make an image of a root file system's tar",
    run,
    (
        Flag(
            "change",
            "c",
            LIST,
            "a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, USER, WORKDIR …",
            "INSTRUCTION",
        ),
        Flag("message", "m", help="a comment for the history", metavar="TEXT"),
        Flag("platform", hidden=True),
    ),
    least=1,
    most=2,
    aliases=("image import",),
)
