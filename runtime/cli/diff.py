# SPDX-License-Identifier: Apache-2.0
"""pyrun diff and pyrun image diff: what a container, or an image, has changed."""

from __future__ import annotations

from pyrun.runtime.cli.context import printable
from pyrun.runtime.cli.flags import Args, Command, Flag
from pyrun.runtime.cli.values import one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrun.rootfs.changeset import Change
    from pyrun.runtime.cli.context import Context

WORDS = {"A": "added", "C": "changed", "D": "deleted"}
FORMAT = Flag("format", help="json instead of lines", metavar="FORMAT", parse=one_of("json"))


def container(args: Args, ctx: Context) -> int:
    """One line per path: A added, C changed, D deleted."""
    from pyrun.runtime.engine.containers import ContainerStore
    from pyrun.runtime.engine.written import diff

    return show(args, ctx, diff(ctx.paths, ContainerStore(ctx.paths).lookup(args.arguments[0])))


def image(args: Args, ctx: Context) -> int:
    """The same for images: the top layer over those below, or the image over another one."""
    from pyrun.rootfs.compare import changes
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    with images.hold():
        found = images.unpacked(images.resolve(args.arguments[0]))
        base = images.unpacked(images.resolve(args.arguments[1])) if len(args.arguments) > 1 else found[:-1]
        return show(args, ctx, changes(base, found))


def show(args: Args, ctx: Context, changes: Iterable[Change]) -> int:
    """Prints changes as lines, or as podman's JSON."""
    if args.text("format") != "json":
        for change in changes:
            ctx.print(f"{change.kind} {printable(ctx, '/' + _text(change.path))}")
        return 0
    import json

    found: dict[str, list[str]] = {}
    for change in changes:
        found.setdefault(WORDS[change.kind], []).append("/" + _text(change.path))
    ctx.print(json.dumps(found, indent=4))
    return 0


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


DIFF = Command(
    "diff",
    "CONTAINER",
    "Show what a container changed in its image's files",
    container,
    (FORMAT,),
    least=1,
    most=1,
    aliases=("container diff",),
    details="A added, C changed, D deleted.",
)
IMAGE_DIFF = Command(
    "image diff",
    "IMAGE [BASE]",
    "Show what an image changed in its base's files",
    image,
    (FORMAT,),
    least=1,
    most=2,
    details="BASE is another image; without it, what lies below IMAGE's last layer. A added, C changed, D deleted.",
)
