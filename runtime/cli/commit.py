# SPDX-License-Identifier: Apache-2.0
"""pyrun commit: makes an image of a container."""

from __future__ import annotations

from pyrun.runtime.cli.flags import LIST, SWITCH, Args, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Prints the image's id."""
    from pyrun.runtime.engine.commit import commit
    from pyrun.runtime.engine.containers import ContainerStore

    image = commit(
        ctx.paths,
        ContainerStore(ctx.paths).lookup(args.arguments[0]),
        args.arguments[1] if len(args.arguments) > 1 else "",
        author=args.text("author"),
        message=args.text("message"),
        changes=args.many("change"),
        pause=args.on("pause") and not args.on("no-pause"),
    )
    ctx.print(image.id)
    return 0


COMMIT = Command(
    "commit",
    "CONTAINER [NAME[:TAG]]",
    "Make an image of a container",
    run,
    (
        Flag("author", "a", help="who made it", metavar="NAME"),
        Flag("change", "c", LIST, "a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, USER …", "INSTRUCTION"),
        Flag("message", "m", help="a comment for the history", metavar="TEXT"),
        Flag("pause", "p", SWITCH, "freeze a running container meanwhile", default=True),
        Flag("no-pause", "", SWITCH, "do not", hidden=True),  # docker 29's word for --pause=false
    ),
    least=1,
    most=2,
    aliases=("container commit",),
    details="What is in volumes and other mounts is not in the image.",
)
