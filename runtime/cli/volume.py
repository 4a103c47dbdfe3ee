# SPDX-License-Identifier: Apache-2.0
"""pyrun volume ls, create, rm, inspect, prune."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import LIST, SWITCH, Args, Command, Flag
from pyrun.runtime.cli.values import assignment, one_of, pair
from pyrun.runtime.engine import humanize
from pyrun.runtime.engine.listing import disk_usage
from pyrun.runtime.engine.templates import Lazy, Map
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.volumes import Volume
    from pyrun.runtime.cli.context import Context

COLUMNS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Labels": "LABELS",
    "Mountpoint": "MOUNTPOINT",
    "Scope": "SCOPE",
    "Size": "SIZE",
    "Links": "LINKS",
}
DEFAULT = ("Driver", "Name")
FILTERS = ("name", "label", "driver", "dangling")


def users(ctx: Context) -> dict[str, list[str]]:
    """volume -> names of the containers that have it."""
    from pyrun.runtime.engine.containers import ContainerStore

    found, _ = ContainerStore(ctx.paths).all()
    using: dict[str, list[str]] = {}
    for container, _ in found:
        for mount in container.mounts:
            if mount.type == "volume":
                using.setdefault(mount.name, []).append(container.name)
    return using


def shown(ctx: Context, name: str) -> dict[str, Any]:
    """One volume in docker's shape. Raises NotFound."""
    from pyrun.rootfs.volumes import VolumeStore

    store = VolumeStore(ctx.paths)
    found: dict[str, Any] = store.inspect(store.get(name))
    return {**found, "Labels": Map(found["Labels"])}


def _row(volume: Volume, using: dict[str, list[str]]) -> dict[str, Any]:
    labels = dict(volume.labels)
    return {
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "Links": str(len(using.get(volume.name, ()))),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": "local",
        "Size": Lazy(lambda: humanize.size(disk_usage(volume.mountpoint), 3)),
        "Status": "N/A",
        "Label": lambda name: labels.get(name, ""),
    }


def _fits(volume: Volume, filters: dict[str, list[str]], using: dict[str, list[str]]) -> bool:
    if not output.labels_fit(volume.labels, filters.get("label", ())):
        return False
    dangling = [value.lower() in ("true", "1") for value in filters.get("dangling", ())]
    if dangling and (volume.name not in using) not in dangling:
        return False
    if "driver" in filters and "local" not in filters["driver"]:
        return False
    wanted = filters.get("name", [])
    return not wanted or any(text in volume.name for text in wanted)


def ls(args: Args, ctx: Context) -> int:
    """One line per volume, by name."""
    from pyrun.rootfs.volumes import VolumeStore

    filters, using = output.by_name(args.many("filter"), FILTERS), users(ctx)
    chosen = [volume for volume in VolumeStore(ctx.paths).list() if _fits(volume, filters, using)]
    if args.on("quiet"):
        ctx.print(*(volume.name for volume in chosen))
        return 0
    output.print_rows(ctx, [_row(volume, using) for volume in chosen], args.text("format"), COLUMNS, DEFAULT)
    return 0


def create(args: Args, ctx: Context) -> int:
    """Makes a volume and prints its name; one of that name that is there already is fine."""
    from pyrun.rootfs.volumes import VolumeStore

    name = args.text("name") or (args.arguments[0] if args.arguments else "")
    if args.many("opt"):
        raise UsageError("flag --opt", "the local driver of pyrun has no options", hint="see --mount type=tmpfs")
    volume = VolumeStore(ctx.paths).create(name, dict(args.many("label")))
    ctx.print(volume.name)
    return 0


def rm(args: Args, ctx: Context) -> int:
    """Removes volumes that no container has."""
    from pyrun.rootfs.volumes import VolumeStore

    store = VolumeStore(ctx.paths)

    def one(name: str) -> str:
        store.remove(name, force=args.on("force"), in_use=lambda volume: users(ctx).get(volume, []))
        return name

    return ctx.each(args.arguments, one)


def inspect(args: Args, ctx: Context) -> int:
    """The volumes that are found, then the errors."""
    found: list[dict[str, Any]] = []
    code = ctx.each(args.arguments, lambda name: found.append(shown(ctx, name)))
    if found or not args.text("format"):
        output.print_objects(ctx, found, args.text("format"))
    return code


def prune(args: Args, ctx: Context) -> int:
    """Anonymous volumes that no container has; with -a named ones too."""
    from pyrun.runtime.engine import prune as engine

    chosen = engine.parse_filters(args.many("filter"))
    if chosen.until_ns is not None:
        raise UsageError("volume prune", "there is no filter until for volumes", hint="label=NAME or label!=NAME")
    kind = "volumes" if args.on("all") else "anonymous volumes"
    if not args.on("force") and not output.confirm(ctx, f"This removes all {kind} that no container has. Go on?"):
        return 0
    done = engine.volumes(ctx.paths, chosen, named=args.on("all"))
    if done.lines:
        ctx.print("Deleted Volumes:", *done.lines, "")
    ctx.print(f"Total reclaimed space: {humanize.size(done.bytes)}")
    return 0


LS = Command(
    "volume ls",
    "",
    "List volumes",
    ls,
    (output.filter_flag("dangling=true, name=db, label=team"), output.FORMAT, output.QUIET),
    most=0,
    aliases=("volume list",),
    details=f"Filters: {', '.join(FILTERS)}\nFields of --format: {', '.join(COLUMNS)}, Label",
)
CREATE = Command(
    "volume create",
    "[NAME]",
    "Make a volume",
    create,
    (
        Flag("driver", "d", help="only local", metavar="NAME", default="local", parse=one_of("local")),
        Flag("label", "", LIST, "a label", "NAME[=VALUE]", parse=pair),
        Flag("name", hidden=True),
        Flag("opt", "o", LIST, hidden=True, parse=assignment),
    ),
    most=1,
)
RM = Command(
    "volume rm",
    "VOLUME [VOLUME...]",
    "Remove volumes that no container has",
    rm,
    (Flag("force", "f", SWITCH, "do not mind if there is none"),),
    least=1,
    aliases=("volume remove",),
)
INSPECT = Command(
    "volume inspect",
    "VOLUME [VOLUME...]",
    "Show everything about volumes",
    inspect,
    (output.INSPECT_FORMAT,),
    least=1,
)
PRUNE = Command(
    "volume prune",
    "",
    "Remove volumes that nothing needs",
    prune,
    (
        Flag("all", "a", SWITCH, "named ones too"),
        output.FORCE,
        Flag(
            "filter",
            "",
            LIST,
            "only what fits: label=NAME[=VALUE], label!=NAME[=VALUE]",
            "NAME=VALUE",
            parse=output.name_value,
        ),
    ),
    most=0,
)
