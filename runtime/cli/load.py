# SPDX-License-Identifier: Apache-2.0
"""pyrun load: adds the images of an archive."""

from __future__ import annotations

import sys

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Reads docker-archive and oci-archive, plain, gzip or zstd; prints the names it loaded."""
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    if args.given("input") and args.text("input") != "-":
        names = images.load(args.text("input"))
    else:
        if sys.stdin.isatty():
            raise UsageError("load", "no archive", hint="pyrun load -i FILE, or pyrun load < FILE")
        names = images.load(sys.stdin.buffer)
    for name in names:
        ctx.print(f"Loaded image{' ID' if name.startswith('sha256:') else ''}: {name}")
    return 0


LOAD = Command(
    "load",
    "",
    "Add the images of an archive (docker save, oci-archive)",
    run,
    (
        Flag("input", "i", help="read this file instead of stdin", metavar="FILE"),
        Flag("quiet", "q", SWITCH, "no progress output"),
    ),
    most=0,
    aliases=("image load",),
)
