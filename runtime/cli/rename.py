# SPDX-License-Identifier: Apache-2.0
"""pyrun rename: gives a container another name."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command
from pyrun.runtime.engine.containers import ContainerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """A running container keeps running, and its host name."""
    store = ContainerStore(ctx.paths)
    store.rename(store.lookup(args.arguments[0]), args.arguments[1].removeprefix("/"))
    return 0


RENAME = Command("rename", "CONTAINER NAME", "Rename a container", run, least=2, most=2, aliases=("container rename",))
