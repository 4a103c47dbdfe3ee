# SPDX-License-Identifier: Apache-2.0
"""pyrun top: the processes of a container, with the host's pids."""

from __future__ import annotations

from pyrun.runtime.cli.context import one_line
from pyrun.runtime.cli.flags import Args, Command
from pyrun.runtime.engine.templates import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """A table as ps(1) makes it."""
    from pyrun.runtime.engine.top import top

    headings, rows = top(ctx.paths, args.arguments[0], args.arguments[1:])
    # a process in the container chooses its command line: no escape sequence of it reaches the terminal
    ctx.print(*table(["\t".join(map(one_line, row)) for row in (headings, *rows)]))
    return 0


TOP = Command(
    "top",
    "CONTAINER [PS OPTIONS]",
    "Show the processes of a container",
    run,
    least=1,
    stops_at_argument=True,
    aliases=("container top",),
    details="PS OPTIONS: -ef (default), aux, or -o with columns of ps, and nspid, caps, seccomp, nnp:\n"
    "  pyrun top web -o pid,nspid,user,caps,seccomp,args",
)
