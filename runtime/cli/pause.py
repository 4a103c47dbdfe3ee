# SPDX-License-Identifier: Apache-2.0
"""pyrun pause and unpause: freezes and thaws all processes of a container (cgroup.freeze)."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def pause(args: Args, ctx: Context) -> int:
    """Freezes each container."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.stop import pause as engine_pause

    store = ContainerStore(ctx.paths)

    def one(name: str) -> str:
        engine_pause(ctx.paths, store.lookup(name))
        return name

    return ctx.each(args.arguments, one)


def unpause(args: Args, ctx: Context) -> int:
    """Thaws each container."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.stop import unpause as engine_unpause

    store = ContainerStore(ctx.paths)

    def one(name: str) -> str:
        engine_unpause(ctx.paths, store.lookup(name))
        return name

    return ctx.each(args.arguments, one)


MANY = "CONTAINER [CONTAINER...]"
PAUSE = Command("pause", MANY, "Freeze containers", pause, least=1, aliases=("container pause",))
UNPAUSE = Command("unpause", MANY, "Thaw containers", unpause, least=1, aliases=("container unpause",))
