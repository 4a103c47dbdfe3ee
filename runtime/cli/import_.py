# SPDX-License-Identifier: Apache-2.0
"""pyrun import: makes an image of a root file system's tar."""

from __future__ import annotations

import sys

from pyrun.runtime.cli.flags import LIST, Args, Command, Flag
from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Reads a tar, plain or compressed, from a file, a URL or stdin ("-"); prints the image's id."""
    from pyrun.rootfs.disk import writing
    from pyrun.rootfs.importing import import_rootfs
    from pyrun.rootfs.limits import ArchiveError
    from pyrun.rootfs.store import ImageStore

    origin = args.arguments[0]
    name = args.arguments[1] if len(args.arguments) > 1 else ""
    if origin == "-" and sys.stdin.isatty():
        raise UsageError("import", "no archive", hint="pyrun import - < FILE")
    source = sys.stdin.buffer if origin == "-" else origin
    try:
        with writing("import image"):
            image = import_rootfs(
                ImageStore(ctx.paths), source, name, args.many("change"), args.text("message"), args.text("platform")
            )
    except ArchiveError as error:
        raise PyrunError(f"import {'from stdin' if origin == '-' else origin}", str(error), hint=error.hint) from error
    ctx.print(image.id)
    return 0


IMPORT = Command(
    "import",
    "FILE|URL|- [NAME[:TAG]]",
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
        Flag("platform", help="what the files are for, if not this machine", metavar="OS/ARCH"),
    ),
    least=1,
    most=2,
    aliases=("image import",),
)
