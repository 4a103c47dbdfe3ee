# SPDX-License-Identifier: Apache-2.0
"""pyrun exec: runs another command in a running container."""

from __future__ import annotations

from pyrun.runtime.cli import values
from pyrun.runtime.cli.flags import LIST, SWITCH, Args, Command, Flag
from pyrun.runtime.cli.run_options import environment
from pyrun.runtime.engine.options import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """The exit code is the command's: 126 if it cannot be executed, 127 if it is not there."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.exec import ExecOptions, exec_

    env, _ = environment(args)
    options = ExecOptions(
        command=tuple(args.arguments[1:]),
        detach=args.on("detach"),
        interactive=args.on("interactive"),
        tty=args.on("tty"),
        env=env,
        user=args.text("user"),
        workdir=args.text("workdir"),
        privileged=args.on("privileged"),
        detach_keys=args.text("detach-keys"),
    )
    exec_(ctx.paths, ContainerStore(ctx.paths).lookup(args.arguments[0]), options, ctx.link)
    return 0


EXEC = Command(
    "exec",
    "CONTAINER COMMAND [ARG...]",
    "Run a command in a running container",
    run,
    (
        Flag("detach", "d", SWITCH, "run it in the background"),
        Flag(
            "detach-keys",
            help="keys that leave it running",
            metavar="KEYS",
            default=DETACH_KEYS,
            parse=values.detach_keys,
        ),
        Flag("env", "e", LIST, "set a variable, or pass on this environment's", "NAME[=VALUE]", parse=values.env),
        Flag("env-file", "", LIST, "set the variables in a file of NAME=VALUE lines", "FILE", parse=values.env_file),
        Flag("interactive", "i", SWITCH, "keep stdin open"),
        Flag("privileged", "", SWITCH, "all capabilities"),
        Flag("tty", "t", SWITCH, "give it a terminal"),
        Flag("user", "u", help="user and group, by name or number", metavar="NAME[:GROUP]", parse=values.user),
        Flag("workdir", "w", help="working directory", metavar="DIR", parse=values.workdir),
    ),
    least=2,
    stops_at_argument=True,
    aliases=("container exec",),
)
