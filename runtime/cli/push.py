# SPDX-License-Identifier: Apache-2.0
"""pyrun push: sends an image to its registry."""

from __future__ import annotations

from pyrun.runtime.cli import values
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.progress import Shown
from pyrun.runtime.cli.pull import TRUST, apply_trust
from pyrun.runtime.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.refs import Reference
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.cli.context import Context


INTERRUPTED = "pyrun: push interrupted: what arrived stays; push again goes on"


def run(args: Args, ctx: Context) -> int:
    """Pushes one tag, or with -a all local tags of a repository; with --quiet the name is all that is printed."""
    from pyrun.rootfs import refs
    from pyrun.rootfs.registry.config import Registries
    from pyrun.rootfs.registry.push import push
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.engine.pulling import check_trust

    apply_trust(args)
    check_trust(f"push {args.arguments[0]}")
    store = ImageStore(ctx.paths)
    registries = Registries.load()
    reference = refs.parse(args.arguments[0])
    if reference.digest:
        raise UsageError(f"push {args.arguments[0]}", "a digest cannot be pushed to", hint="name a tag")
    with Shown(ctx.stdout, quiet=args.on("quiet"), on_interrupt=INTERRUPTED) as progress:
        if args.on("all-tags"):
            chosen = local_tags(store, reference)
        else:
            chosen = [reference.tagged()]
            if not reference.tag:
                progress.line(f"Using default tag: {chosen[0].tag}")
        for one in chosen:
            check_platform(store, one, args.text("platform"))
        progress.line(f"The push refers to repository [{reference.repository}]")
        for one in chosen:
            pushed = push(store, one.familiar, one, registries=registries, progress=progress)
            progress.line(f"{one.tag}: digest: {pushed.digest} size: {pushed.size}")
    if args.on("quiet"):
        ctx.print(str(reference if args.on("all-tags") else chosen[0]))
    return 0


def local_tags(store: ImageStore, reference: Reference) -> list[Reference]:
    """Every tag that the store has in a repository. Raises UsageError, NotFound."""
    from pyrun.rootfs import refs

    if reference.tag:
        hint = f"pyrun push -a {reference.familiar_name}"
        raise UsageError("push", "a tag cannot be used with --all-tags/-a", hint=hint)
    names = [refs.parse(name) for image in store.list() for name in image.names]
    found = sorted((name for name in names if name.repository == reference.repository), key=str)
    if not found:
        raise NotFound(f"no image of the repository '{reference.familiar_name}' here", hint="pyrun images lists them")
    return found


def check_platform(store: ImageStore, reference: Reference, platform: str) -> None:
    """Raises NotFound for a name that is not here, or is for another platform than --platform says."""
    from pyrun.runtime.engine.pulling import fits

    try:
        image = store.resolve(reference.familiar)
    except NotFound:  # names that are like it belong to other registries: no advice where to push to
        hint = f"give an image this name: pyrun tag IMAGE {reference.familiar}"
        raise NotFound(f"no such image '{reference.familiar}'", "it is not here", hint=hint) from None
    if not fits(image, platform):
        raise NotFound(f"push {reference.familiar}", f"the image here is for {image.platform}, not for {platform}")


PUSH = Command(
    "push",
    "NAME[:TAG]",
    "Send an image to its registry",
    run,
    (
        Flag("all-tags", "a", SWITCH, "every local tag of the repository"),
        Flag("quiet", "q", SWITCH, "print nothing but the image's name"),
        Flag(
            "platform",
            help="refuse an image for another one",
            metavar="OS/ARCH[/VARIANT]",
            parse=values.platform,
        ),
        TRUST,
    ),
    least=1,
    most=1,
    aliases=("image push",),
    details="""\
Examples:
  pyrun tag flask-app localhost:5000/flask-app        where it goes is in its name
  pyrun push localhost:5000/flask-app""",
)
