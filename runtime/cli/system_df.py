# SPDX-License-Identifier: Apache-2.0
"""pyrun system df: what takes how much of the disk."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine import humanize
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.cli.context import Context
    from pyrun.runtime.engine.disk_usage import DiskUsage, Sum

COLUMNS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
IMAGES = {
    "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
    "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
}  # fmt: skip
CONTAINERS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE",
    "RunningFor": "CREATED", "Status": "STATUS", "Names": "NAMES",
}  # fmt: skip
VOLUMES = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
CACHE = {
    "ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
    "LastUsedSince": "LAST USED", "Shared": "SHARED", "Description": "DESCRIPTION",
}  # fmt: skip


def run(args: Args, ctx: Context) -> int:
    """Four sums, or with -v every image, container, volume and cache entry."""
    from pyrun.runtime.engine.disk_usage import disk_usage

    form = args.text("format")
    if args.on("verbose") and form not in ("", "json"):
        raise UsageError("system df -v", f"cannot use --format '{form}'", hint="json, or --format without -v")
    found = disk_usage(ctx.paths)
    if not args.on("verbose"):
        output.print_rows(ctx, [row(one) for one in found.sums], form, COLUMNS, tuple(COLUMNS))
        return 0
    sections = tables(ctx, found)
    if form == "json":
        import json

        keys = ("Images", "Containers", "Volumes", "BuildCache")
        from pyrun.runtime.engine.template_functions import plain

        ctx.print(json.dumps({key: plain(rows) for key, (_, rows, _) in zip(keys, sections, strict=True)}))
        return 0
    for title, rows, columns in sections:
        ctx.print(title, "")
        output.print_rows(ctx, rows, "", columns, tuple(columns))
        ctx.print("")
    return 0


def row(one: Sum) -> dict[str, Any]:
    """The fields of a sum."""
    share = f" ({100 * one.reclaimable // one.size}%)" if one.size else ""
    return {
        "Type": one.kind,
        "TotalCount": str(one.count),
        "Active": str(one.active),
        "Size": humanize.size(one.size),
        "Reclaimable": f"{humanize.size(one.reclaimable)}{share}",
    }


def tables(ctx: Context, found: DiskUsage) -> list[tuple[str, list[dict[str, Any]], dict[str, str]]]:
    """(title, rows, columns) of each part of -v."""
    from pyrun.runtime.cli import images
    from pyrun.runtime.engine import listing

    image_rows = []
    for image in found.images:
        for fields in images.rows(image.image, shorten=True):
            sizes = {"SharedSize": humanize.size(image.shared), "UniqueSize": humanize.size(image.unique)}
            image_rows.append({**fields, **sizes, "Containers": str(image.containers)})
    container_rows = [
        {**listing.row(ctx.paths, one.container, one.state), "Size": humanize.size(one.size, 3)}
        for one in found.containers
    ]
    volume_rows = [
        {"Name": one.volume.name, "Links": str(one.links), "Size": humanize.size(one.size)} for one in found.volumes
    ]
    total = found.sums[-1].size
    return [
        ("Images space usage:", image_rows, IMAGES),
        ("Containers space usage:", container_rows, CONTAINERS),
        ("Local Volumes space usage:", volume_rows, VOLUMES),
        (f"Build cache usage: {humanize.size(total)}", cache_rows(found), CACHE),
    ]


def cache_rows(found: DiskUsage) -> list[dict[str, Any]]:
    """The build cache's lines: layers, then cache mounts."""
    rows = [
        {
            "ID": one.keep.name.partition("-")[2][:12] or one.keep.name,
            "CacheType": str(one.keep.data.get("kind", "")),
            "Size": humanize.size(one.size),
            "CreatedSince": humanize.ago(str(one.keep.data.get("created", ""))),
            "LastUsedSince": _ago(one.keep.used_at),
            "Shared": str(one.shared).lower(),
            "Description": _cut(str(one.keep.data.get("description", ""))),
        }
        for one in found.kept
    ]
    return rows + [
        {
            "ID": mount.name[:12],
            "CacheType": "exec.cachemount",
            "Size": humanize.size(mount.size),
            "CreatedSince": _ago(mount.created_at),
            "LastUsedSince": _ago(mount.used_at),
            "Shared": "false",
            "Description": _cut(mount.id),
        }
        for mount in found.cache_mounts
    ]


def _ago(seconds: float) -> str:
    return humanize.ago(humanize.rfc3339(int(seconds * 10**9)))


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


DF = Command(
    "system df",
    "",
    "Show what takes how much of the disk",
    run,
    (
        Flag("verbose", "v", SWITCH, "every image, container, volume and cache entry"),
        output.FORMAT,
    ),
    most=0,
    details="Images are on the disk twice: their layers unpacked, and as they came, for push and save.\n"
    f"Fields of --format: {', '.join(COLUMNS)}",
)
