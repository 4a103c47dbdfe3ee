# SPDX-License-Identifier: Apache-2.0
"""pyrun logs: shows the output of a container."""

from __future__ import annotations

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine.humanize import digits, parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context


def tail(text: str) -> int | None:
    """A number of lines; all (and, as with docker, anything negative) is None."""
    return None if text == "all" or text.startswith("-") else digits(text)


def run(args: Args, ctx: Context) -> int:
    """What went to stdout goes to stdout, what went to stderr to stderr; bytes as they were written."""
    from pyrun.runtime.engine.logs import entries

    found = entries(
        ctx.paths,
        args.arguments[0],
        tail=args.value("tail"),
        since_ns=args.value("since"),
        until_ns=args.value("until"),
        follow=args.on("follow"),
    )
    streams: dict[str, Any] = {"stdout": ctx.stdout.buffer, "stderr": ctx.stderr.buffer}
    fresh = {"stdout": True, "stderr": True}  # whether the stream is at the beginning of a line
    for entry in found:
        stream = streams[entry.stream]
        if args.on("timestamps") and fresh[entry.stream]:
            stream.write(f"{entry.time} ".encode())
        fresh[entry.stream] = entry.data.endswith(b"\n")
        stream.write(entry.data)
        if args.on("follow") or entry.stream == "stderr":
            stream.flush()
    ctx.stdout.flush()
    return 0


LOGS = Command(
    "logs",
    "CONTAINER",
    "Show the output of a container",
    run,
    (
        Flag("details", "", SWITCH, "accepted, as docker does; there are none"),
        Flag("follow", "f", SWITCH, "go on until the container ends"),
        Flag("since", help="from this time on: 2026-01-31T13:45:00Z, or 10m ago", metavar="TIME", parse=parse_moment),
        Flag("tail", "n", help="only the last NUMBER entries; all", metavar="NUMBER", parse=tail),
        Flag("timestamps", "t", SWITCH, "the time in front of each line"),
        Flag("until", help="up to this time", metavar="TIME", parse=parse_moment),
    ),
    least=1,
    most=1,
    aliases=("container logs",),
)
