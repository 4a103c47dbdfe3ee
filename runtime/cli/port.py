# SPDX-License-Identifier: Apache-2.0
"""pyrun port: shows where a container's ports are published."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command
from pyrun.runtime.engine.ports import published

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """All mappings, or the host addresses of one port; that one not being published is an error."""
    ctx.print(*published(ctx.paths, args.arguments[0], args.arguments[1] if len(args.arguments) > 1 else ""))
    return 0


PORT = Command(
    "port",
    "CONTAINER [PORT[/PROTOCOL]]",
    "Show where a container's ports are published",
    run,
    least=1,
    most=2,
    aliases=("container port",),
)
