# SPDX-License-Identifier: Apache-2.0
"""pyrun images: lists images."""

from __future__ import annotations

from pyrun.rootfs import refs
from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine import humanize
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.image import Image
    from pyrun.runtime.cli.context import Context

COLUMNS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
DEFAULT = ("Repository", "Tag", "ID", "CreatedSince", "Size")
FILTERS = ("dangling", "label", "reference", "before", "since", "until")
TREE_COLUMNS = {
    "Image": "IMAGE",
    "ID": "ID",
    "DiskUsage": "DISK USAGE",
    "ContentSize": "CONTENT SIZE",
    "Extra": "EXTRA",
}
NONE = "<none>"


def rows(image: Image, *, shorten: bool) -> list[dict[str, Any]]:
    """One row per name of an image; one of <none> when it has no name, as it was pulled by digest or has lost it."""
    size = humanize.size(image.size, 3)
    digests = dict(refs.familiar(text).partition("@")[::2] for text in image.repo_digests)  # repository -> digest there
    found = []
    for name in image.names or [f"{repository}:" for repository in digests] or ("",):
        repository, _, tag = name.rpartition(":")
        found.append(
            {
                "Containers": "N/A",
                "CreatedAt": humanize.local_time(image.created),
                "CreatedSince": humanize.ago(image.created) or "N/A",
                "Digest": digests.get(repository, image.digest),
                "ID": image.id.removeprefix("sha256:")[:12] if shorten else image.id,
                "Repository": repository or NONE,
                "SharedSize": "N/A",
                "Size": size,
                "Tag": tag or NONE,
                "UniqueSize": "N/A",
                "VirtualSize": size,
            }
        )
    return found


def run(args: Args, ctx: Context) -> int:
    """One line per name, newest image first."""
    from pyrun.rootfs.store import ImageStore

    store = ImageStore(ctx.paths)
    filters = output.by_name(args.many("filter"), FILTERS)
    if args.arguments:
        filters.setdefault("reference", []).append(args.arguments[0])
    chosen = [image for image in store.list() if _fits(image, filters)]
    for reference in filters.get("before", ()):
        bound = store.resolve(reference).created
        chosen = [image for image in chosen if image.created < bound]
    for reference in filters.get("since", ()):
        bound = store.resolve(reference).created
        chosen = [image for image in chosen if image.created > bound]
    for value in filters.get("until", ()):
        bound = humanize.rfc3339(_moment(value))
        chosen = [image for image in chosen if image.created < bound]
    shorten = not args.on("no-trunc")
    if args.on("tree"):
        return _tree(args, ctx, chosen)
    if args.on("quiet"):
        ctx.print(*dict.fromkeys(rows(image, shorten=shorten)[0]["ID"] for image in chosen))
        return 0
    wanted = filters.get("reference", [])
    shown = [row for image in chosen for row in rows(image, shorten=shorten) if _named(row, wanted)]
    default = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size") if args.on("digests") else DEFAULT
    output.print_rows(ctx, shown, args.text("format"), COLUMNS, default)
    return 0


def _moment(text: str) -> int:
    try:
        return humanize.parse_moment(text)
    except ValueError as error:
        raise UsageError(f"--filter until={text}", str(error)) from None


def _tree(args: Args, ctx: Context, chosen: list[Image]) -> int:
    """docker's --tree: an image's names, then its platform; U is an image that containers use."""
    from pyrun.runtime.engine.prune import image_users

    for name in ("quiet", "format", "digests", "no-trunc"):
        if args.given(name):
            raise UsageError(f"images --tree --{name}", "the two do not go together")
    in_use = image_users(ctx.paths)
    shown = []
    for image in chosen:
        content = sum(layer.size for layer in image.layers)
        sizes = {"DiskUsage": humanize.size(image.size + content, 3), "ContentSize": humanize.size(content, 3)}
        short = {"ID": image.id.removeprefix("sha256:")[:12], "Extra": "U" if in_use(image.id) else ""}
        shown += [{"Image": name, **short, **sizes} for name in image.names or ("<untagged>",)]
        shown.append({**short, **sizes, "Image": f"└─ {image.platform}", "ID": image.digest[7:19], "Extra": ""})
    output.print_rows(ctx, shown, "", TREE_COLUMNS, tuple(TREE_COLUMNS))
    return 0


def _fits(image: Image, filters: dict[str, list[str]]) -> bool:
    if not output.labels_fit(image.config.labels, filters.get("label", ())):
        return False
    dangling = [value.lower() in ("true", "1") for value in filters.get("dangling", ())]
    if dangling and (not image.names) not in dangling:
        return False
    wanted = filters.get("reference", [])
    return not wanted or any(_named(row, wanted) for row in rows(image, shorten=True))


def _named(row: dict[str, Any], patterns: list[str]) -> bool:
    """Whether a row's name, with or without its tag, fits one of the patterns.

    As docker has it, that is Go's path.Match on the familiar name (distribution/reference, FamiliarMatch): no wildcard
    stands for a slash. Raises UsageError for a pattern that cannot be read.
    """
    if not patterns:
        return True
    names = [row["Repository"], f"{row['Repository']}:{row['Tag']}"] if row["Repository"] != NONE else []
    return any(_matches(name, pattern) for pattern in patterns for name in names)


def _matches(name: str, pattern: str) -> bool:
    from pyrun.rootfs.build.wildcard import Pattern

    wanted = [Pattern(part) for part in pattern.split("/")]
    parts = name.split("/")
    return len(parts) == len(wanted) and all(one.matches(part) for one, part in zip(wanted, parts, strict=True))


IMAGES = Command(
    "images",
    "[NAME[:TAG]]",
    "List images",
    run,
    (
        Flag("all", "a", SWITCH, "accepted, as docker does; all are shown", hidden=True),
        Flag("tree", kind=SWITCH, help="with each image's platform, and both sizes: on the disk, and of its blobs"),
        Flag("digests", "", SWITCH, "the manifests' digests too"),
        output.filter_flag("dangling=true, label=team, reference='flask*'"),
        output.FORMAT,
        output.NO_TRUNC,
        output.QUIET,
    ),
    most=1,
    aliases=("image ls", "image list"),
    details=f"Filters: {', '.join(FILTERS)}\nFields of --format: {', '.join(COLUMNS)}",
)
