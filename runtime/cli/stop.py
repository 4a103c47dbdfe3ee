# SPDX-License-Identifier: Apache-2.0
"""pyrun stop, restart and kill: what ends a container's process."""

from __future__ import annotations

from pyrun.runtime.cli.flags import Args, Command, Flag
from pyrun.runtime.cli.values import between, signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context

TIMEOUT = Flag(
    "timeout",
    "t",
    help="seconds until SIGKILL; -1 waits for ever",
    metavar="SECONDS",
    parse=between(-1, 2**31 - 1),
    aliases=("time",),
)


FIRST = Flag(
    "signal",
    "s",
    help="send this first, instead of the container's stop signal",
    metavar="SIGNAL",
    parse=signal_number,
)
SIGKILL = 9


def stop(args: Args, ctx: Context) -> int:
    """Sends the stop signal, waits, then SIGKILL; a container that has ended already is fine."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.stop import stop as engine_stop

    store = ContainerStore(ctx.paths)

    def one(name: str) -> str:
        engine_stop(
            ctx.paths,
            store.lookup(name),
            timeout_s=args.value("timeout"),
            signal=args.value("signal"),
            link=ctx.link,
        )
        return name

    return ctx.each(args.arguments, one)


def restart(args: Args, ctx: Context) -> int:
    """Stops, if it runs, and starts."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.start import start
    from pyrun.runtime.engine.stop import stop as engine_stop

    store = ContainerStore(ctx.paths)

    def one(name: str) -> str:
        container_id = store.lookup(name)
        engine_stop(
            ctx.paths, container_id, timeout_s=args.value("timeout"), signal=args.value("signal"), link=ctx.link
        )
        start(ctx.paths, container_id, ctx.link)
        return name

    return ctx.each(args.arguments, one)


def kill(args: Args, ctx: Context) -> int:
    """Sends a signal; a container that does not run is an error."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.stop import kill as engine_kill

    store = ContainerStore(ctx.paths)

    def one(name: str) -> str:
        engine_kill(ctx.paths, store.lookup(name), args.value("signal") or SIGKILL, ctx.link)
        return name

    return ctx.each(args.arguments, one)


MANY = "CONTAINER [CONTAINER...]"
STOP = Command(
    "stop",
    MANY,
    "Stop running containers",
    stop,
    (TIMEOUT, FIRST),
    least=1,
    aliases=("container stop",),
)
RESTART = Command(
    "restart",
    MANY,
    "Stop and start containers",
    restart,
    (TIMEOUT, FIRST),
    least=1,
    aliases=("container restart",),
)
KILL = Command(
    "kill",
    MANY,
    "Send a signal to running containers",
    kill,
    (Flag("signal", "s", help="the signal, by name or number (KILL)", metavar="SIGNAL", parse=signal_number),),
    least=1,
    aliases=("container kill",),
)
