# SPDX-License-Identifier: Apache-2.0
"""pyrun run and pyrun create; --explain and --trace for both."""

from __future__ import annotations

import os

from pyrun.runtime.cli.flags import Args, Command
from pyrun.runtime.cli.run_flags import FLAGS
from pyrun.runtime.cli.run_options import run_options
from pyrun.runtime.errors import EXIT_FAULT, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context
    from pyrun.runtime.cli.progress import Shown
    from pyrun.runtime.engine.options import RunOptions

USAGE = "IMAGE [COMMAND] [ARG...]"


def run(args: Args, ctx: Context) -> int:
    """Creates and starts a container. Attached, the client's exit code becomes the container's; -d prints the id."""
    from pyrun.runtime.cli.steps import print_plan, traced
    from pyrun.runtime.engine.run import run as engine_run

    options = run_options(args)
    if options.explain:
        return print_plan(ctx, options)
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        hint = "leave -t out when stdin is a file or a pipe"
        raise UsageError("run -it", "the input device is not a terminal", hint=hint)
    with traced(ctx, options):
        container = engine_run(ctx.paths, options, ctx.link, progress=lambda: shown(ctx, options))
    if options.detach:
        ctx.print(container.id)
    return 0


def create(args: Args, ctx: Context) -> int:
    """Creates a container and prints its id."""
    from pyrun.runtime.cli.steps import print_plan, traced
    from pyrun.runtime.engine.create import create as engine_create

    options = run_options(args)
    if options.explain:
        return print_plan(ctx, options)
    with traced(ctx, options):
        container = engine_create(ctx.paths, options, progress=lambda: shown(ctx, options))
    ctx.print(container.id)
    return 0


def shown(ctx: Context, options: RunOptions) -> Shown:
    """How the pull of a missing image is shown: on standard error, as standard output is the container's."""
    from pyrun.runtime.cli.progress import Shown

    return Shown(ctx.stderr, quiet=options.quiet)


EXAMPLES = """\
Examples:
  pyrun run --rm -it IMAGE bash                       a shell in a new container
  pyrun run -d -p 5000:5000 --name web IMAGE          a server in the background
  pyrun run --rm -v ./data:/data:ro -m 512m IMAGE     a directory of the host, and at most 512 MiB
  pyrun run --explain IMAGE                           what would be done, step by step"""

RUN = Command(
    "run",
    USAGE,
    "Create and start a container",
    run,
    FLAGS,
    least=1,
    stops_at_argument=True,
    fault=EXIT_FAULT,
    details=EXAMPLES,
    aliases=("container run",),
)
CREATE = Command(
    "create",
    USAGE,
    "Create a container without starting it",
    create,
    tuple(flag.replace(hidden=True) if flag.name == "detach" else flag for flag in FLAGS),
    least=1,
    stops_at_argument=True,
    aliases=("container create",),
)
