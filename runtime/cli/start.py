# SPDX-License-Identifier: Apache-2.0
"""pyrun start: starts containers that were created or have ended."""

from __future__ import annotations

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.values import detach_keys
from pyrun.runtime.engine.options import DETACH_KEYS
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Starts each container and prints what it was called; with -a or -i stays connected to the only one."""
    from pyrun.runtime.engine.attach import Attach
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.start import start

    attached = args.on("attach") or args.on("interactive")
    if attached and len(args.arguments) > 1:
        raise UsageError("start", "only one container can be attached", hint="leave out -a and -i, or name one")
    store = ContainerStore(ctx.paths)
    if attached:
        wanted = Attach(stdin=args.on("interactive"), detach_keys=args.text("detach-keys"))
        start(ctx.paths, store.lookup(args.arguments[0]), ctx.link, attach=wanted)
        return 0

    def one(name: str) -> str:
        start(ctx.paths, store.lookup(name), ctx.link)
        return name

    return ctx.each(args.arguments, one)


START = Command(
    "start",
    "CONTAINER [CONTAINER...]",
    "Start stopped containers",
    run,
    (
        Flag("attach", "a", SWITCH, "connect stdout and stderr, and pass signals on"),
        Flag("interactive", "i", SWITCH, "connect stdin too"),
        Flag("detach-keys", help="keys that leave it running", metavar="KEYS", default=DETACH_KEYS, parse=detach_keys),
    ),
    least=1,
    aliases=("container start",),
)
