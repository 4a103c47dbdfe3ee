# SPDX-License-Identifier: Apache-2.0
"""pyrun wait: blocks until containers end, and prints their exit codes."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """One exit code per line, in the order of the arguments; "unknown" when nobody could see it."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.stop import wait

    store = ContainerStore(ctx.paths)

    def one(name: str) -> str:
        code = wait(ctx.paths, store.lookup(name), ctx.link)
        return "unknown" if code is None else str(code)

    return ctx.each(args.arguments, one)


WAIT = Command(
    "wait",
    "CONTAINER [CONTAINER...]",
    "Wait until containers end, and print their exit codes",
    run,
    least=1,
    aliases=("container wait",),
)
