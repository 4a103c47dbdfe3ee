# SPDX-License-Identifier: Apache-2.0
"""pyrun image tree: an image's layers, how big they are, and who shares them."""

from __future__ import annotations

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.output import NO_TRUNC
from pyrun.runtime.engine import humanize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrun.rootfs.image import Image
    from pyrun.rootfs.store import ImageStore
    from pyrun.runtime.cli.context import Context

SHORT = 12


def run(args: Args, ctx: Context) -> int:
    """As podman's, and with the other images that have each layer."""
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    image = images.resolve(args.arguments[0])
    width = None if args.on("no-trunc") else SHORT
    ctx.print(f"Image ID: {image.id.removeprefix('sha256:')[:width]}")
    ctx.print(f"Tags:     [{' '.join(image.names)}]")
    ctx.print(f"Size:     {humanize.size(image.size)}")
    if args.on("whatrequires"):
        above = [called(other) for other in images.list() if is_above(other, image)]
        _print_branches(ctx, "Images on top of it", above)
        return 0
    if not image.layers:
        ctx.print("No Image Layers")
        return 0
    _print_branches(ctx, "Image Layers", list(lines(images, image, width)))
    return 0


def lines(images: ImageStore, image: Image, width: int | None) -> Iterator[str]:
    """One line per layer, lowest first."""
    everything = images.list()
    for depth, layer in enumerate(image.layers, 1):
        known = images.layers.size(layer.chain_id)
        size = humanize.size(layer.size if known is None else known)
        line = f"ID: {layer.diff_id.removeprefix('sha256:')[:width]} Size: {size:>7}"
        sharing = [other for other in everything if layer.chain_id in other.chain_ids]
        tops = [called(other) for other in sharing if len(other.layers) == depth]
        others = [called(other) for other in sharing if len(other.layers) > depth and other.id != image.id]
        if tops:
            line += f" Top Layer of: [{' '.join(tops)}]"
        if others:
            line += f" Also in: [{' '.join(others)}]"
        yield line


def called(image: Image) -> str:
    """Its names, or its id if it has none."""
    return " ".join(image.names) or image.id.removeprefix("sha256:")[:SHORT]


def is_above(other: Image, image: Image) -> bool:
    """Whether `other` has all layers of `image`, and more on top of them."""
    count = len(image.chain_ids)
    return len(other.chain_ids) > count and other.chain_ids[:count] == image.chain_ids


def _print_branches(ctx: Context, title: str, found: list[str]) -> None:
    ctx.print(title if found else f"No {title}")
    for number, line in enumerate(found, 1):
        ctx.print(f"{'└──' if number == len(found) else '├──'} {line}")


TREE = Command(
    "image tree",
    "IMAGE",
    "Show an image's layers, and which images share them",
    run,
    (NO_TRUNC, Flag("whatrequires", kind=SWITCH, help="show the images that stand on this one instead")),
    least=1,
    most=1,
)
