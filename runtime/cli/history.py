# SPDX-License-Identifier: Apache-2.0
"""pyrun history: how an image was made."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine import humanize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context

COLUMNS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
DEFAULT = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
WIDTH = 45  # of CREATED BY


def run(args: Args, ctx: Context) -> int:
    """One line per instruction, newest first."""
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    found = images.history(images.resolve(args.arguments[0]))
    if args.on("quiet"):
        ctx.print(*(_id(row, args) for row in found))
        return 0
    output.print_rows(ctx, [_row(row, args) for row in found], args.text("format"), COLUMNS, DEFAULT)
    return 0


def _row(row: Any, args: Args) -> dict[str, Any]:
    made_by = str(row["created_by"]).replace("\t", " ")
    if not args.on("no-trunc") and len(made_by) > WIDTH:
        made_by = made_by[: WIDTH - 1] + "…"
    size = int(row["size"])
    human = args.on("human")
    return {
        "ID": _id(row, args),
        "CreatedAt": row["created"],
        "CreatedSince": (humanize.ago(row["created"]) if human else row["created"]) or "N/A",
        "CreatedBy": made_by,
        "Size": humanize.size(size, 3) if human else str(size),
        "Comment": row["comment"],
    }


def _id(row: Any, args: Args) -> str:
    found = str(row["id"])
    return found if args.on("no-trunc") or found == "<missing>" else found.removeprefix("sha256:")[:12]


HISTORY = Command(
    "history",
    "IMAGE",
    "Show how an image was made",
    run,
    (
        output.FORMAT,
        Flag("human", "H", SWITCH, "sizes and times for people", default=True),
        output.NO_TRUNC,
        output.QUIET,
    ),
    least=1,
    most=1,
    aliases=("image history",),
)
