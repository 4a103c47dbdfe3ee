# SPDX-License-Identifier: Apache-2.0
"""pyrun stats: what containers use, once or again and again."""

from __future__ import annotations

import time

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context

CLEAR = "\033[2J\033[H"  # console_codes(4): erase the display, cursor to the top left
PAUSE_S = 1.0


def run(args: Args, ctx: Context) -> int:
    """A table that is drawn again every second; --no-stream draws it once."""
    from pyrun.runtime.engine.stats import COLUMNS, DEFAULT, Reader

    reader = Reader(ctx.paths, args.arguments, everything=args.on("all"))
    reader.first(PAUSE_S)
    while True:
        rows = reader.rows(shorten=not args.on("no-trunc"))
        if not args.on("no-stream") and ctx.stdout.isatty():
            ctx.stdout.write(CLEAR)
        output.print_rows(ctx, rows, args.text("format"), COLUMNS, DEFAULT)
        ctx.stdout.flush()
        if args.on("no-stream"):
            return 0
        time.sleep(PAUSE_S)


STATS = Command(
    "stats",
    "[CONTAINER...]",
    "Show what containers use",
    run,
    (
        Flag("all", "a", SWITCH, "stopped ones too"),
        output.FORMAT,
        Flag("no-stream", "", SWITCH, "once, instead of every second"),
        output.NO_TRUNC,
    ),
    aliases=("container stats",),
)
