# SPDX-License-Identifier: Apache-2.0
"""pyrun pull: gets an image from its registry."""

from __future__ import annotations

from pyrun.runtime.cli import values
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.progress import Shown
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.refs import Reference
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.progress import Progress
    from pyrun.runtime.cli.context import Context


INTERRUPTED = "pyrun: pull interrupted: what came stays; pull again goes on"


def run(args: Args, ctx: Context) -> int:
    """Pulls one tag, or all of a repository; the last line is the full name, the only one with --quiet."""
    from pyrun.rootfs import refs
    from pyrun.rootfs.registry.config import Registries

    apply_trust(args)
    registries = Registries.load()
    reference = refs.parse(registries.short_name(args.arguments[0]))
    every = args.on("all-tags")
    if every and (reference.tag or reference.digest):
        raise UsageError(
            "pull", "a tag cannot be used with --all-tags/-a", hint=f"pyrun pull -a {reference.familiar_name}"
        )
    with Shown(ctx.stdout, quiet=args.on("quiet"), on_interrupt=INTERRUPTED) as progress:
        if every:
            pull_tags(ctx, reference, registries, args.text("platform"), progress)
        else:
            if reference.tagged() != reference:
                reference = reference.tagged()
                progress.line(f"Using default tag: {reference.tag}")
            pull_one(ctx, reference, registries, args.text("platform"), progress)
    ctx.print(str(reference))
    return 0


def pull_one(ctx: Context, reference: Reference, registries: Registries, platform: str, progress: Progress) -> None:
    """Pulls what one reference names, and prints docker's last lines on it."""
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.pulling import pull_image

    pull_image(ImageStore(ctx.paths), reference, registries=registries, platform=platform, progress=progress)


def pull_tags(ctx: Context, reference: Reference, registries: Registries, platform: str, progress: Progress) -> None:
    """Pulls every tag of a repository, and stops at the first that fails."""
    from pyrun.rootfs.registry.pull import tags

    found = tags(reference, registries)
    if not found:
        raise UsageError(f"pull -a {reference.familiar_name}", "the repository has no tags")
    for tag in found:
        pull_one(ctx, reference.replace(tag=tag), registries, platform, progress)


def apply_trust(args: Args) -> None:
    """docker's --disable-content-trust over its DOCKER_CONTENT_TRUST, for this process."""
    if args.given(TRUST.name):
        import os

        os.environ["DOCKER_CONTENT_TRUST"] = "0" if args.on(TRUST.name) else "1"


TRUST = Flag("disable-content-trust", kind=SWITCH, hidden=True)
PULL = Command(
    "pull",
    "NAME[:TAG|@DIGEST]",
    "Get an image from its registry",
    run,
    (
        Flag("all-tags", "a", SWITCH, "every tag of the repository"),
        Flag("quiet", "q", SWITCH, "print nothing but the image's name"),
        Flag(
            "platform",
            help="the image's, such as linux/arm64, where it is not this machine's",
            metavar="OS/ARCH[/VARIANT]",
            parse=values.platform,
        ),
        TRUST,
    ),
    least=1,
    most=1,
    aliases=("image pull",),
)
