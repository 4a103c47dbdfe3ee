# SPDX-License-Identifier: Apache-2.0
"""pyrun attach: connects the terminal to a running container."""

from __future__ import annotations

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.values import detach_keys
from pyrun.runtime.engine.options import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """The exit code is the container's, or 0 after the detach keys."""
    from pyrun.runtime.engine.attach import Attach, attach
    from pyrun.runtime.engine.containers import ContainerStore

    wanted = Attach(stdin=not args.on("no-stdin"), sig_proxy=args.on("sig-proxy"), detach_keys=args.text("detach-keys"))
    attach(ctx.paths, ContainerStore(ctx.paths).lookup(args.arguments[0]), ctx.link, wanted)
    return 0


ATTACH = Command(
    "attach",
    "CONTAINER",
    "Connect to a running container's standard streams",
    run,
    (
        Flag("detach-keys", help="keys that leave it running", metavar="KEYS", default=DETACH_KEYS, parse=detach_keys),
        Flag("no-stdin", "", SWITCH, "do not connect stdin"),
        Flag("sig-proxy", "", SWITCH, "pass signals on to the process", default=True),
    ),
    least=1,
    most=1,
    aliases=("container attach",),
)
