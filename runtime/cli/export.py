# SPDX-License-Identifier: Apache-2.0
"""pyrun export: writes a container's files as a tar."""

from __future__ import annotations

from pyrun.runtime.cli import archive_output
from pyrun.runtime.cli.flags import Args, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """To stdout unless it is a terminal."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.export import export

    container_id = ContainerStore(ctx.paths).lookup(args.arguments[0])
    with archive_output.opened("export", args.text("output"), "pyrun export -o FILE CONTAINER") as file:
        for chunk in export(ctx.paths, container_id):
            file.write(chunk)
    return 0


EXPORT = Command(
    "export",
    "CONTAINER",
    "Write a container's files as a tar",
    run,
    (Flag("output", "o", help="write this file instead of stdout", metavar="FILE"),),
    least=1,
    most=1,
    aliases=("container export",),
    details="What is in volumes and other mounts is not in it. pyrun import makes an image of it.",
)
