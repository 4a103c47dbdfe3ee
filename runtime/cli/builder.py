# SPDX-License-Identifier: Apache-2.0
"""pyrun builder: the build cache, failed steps, and what scripts ask buildx. `builder build` is build itself."""

from __future__ import annotations

from pyrun.runtime.cli import output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.engine.humanize import ago, rfc3339, size
from pyrun.runtime.engine.templates import table
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context
    from pyrun.runtime.engine.build.debug import FailedState


def prune(args: Args, ctx: Context) -> int:
    """Removes cached steps that no image stands on; with -a all of them, cache mounts and failed steps too."""
    from pyrun.runtime.engine import prune as engine

    chosen = engine.parse_filters(args.many("filter"))
    kind = "cached steps, cache mounts and failed steps" if args.on("all") else "cached steps that no image stands on"
    if not args.on("force") and not output.confirm(ctx, f"This removes all {kind}. Go on?"):
        return 0
    done = engine.build_cache(ctx.paths, chosen, unused=args.on("all"))
    if done.records:
        ctx.print(*table(["ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED", *map(_line, done.records)]))
    ctx.print(f"Total:\t{size(done.bytes)}")
    if not args.on("all") and chosen == engine.EVERYTHING:
        _say_what_stays(ctx)
    return 0


def _line(record: tuple[str, int, float]) -> str:
    name, taken, used_at = record
    return f"{name}\ttrue\t{size(taken)}\t{ago(rfc3339(int(used_at * 10**9)))}"


def _say_what_stays(ctx: Context) -> None:
    from pyrun.runtime.engine.disk_usage import disk_usage

    left = disk_usage(ctx.paths).sums[-1]
    if left.count or left.reclaimable:
        ctx.stdout.flush()
        ctx.stderr.write(f"pyrun builder prune -a removes the rest: {size(left.reclaimable)}\n")


def du(args: Args, ctx: Context) -> int:
    """Every cached step and cache mount with its size."""
    from pyrun.runtime.cli import system_df
    from pyrun.runtime.engine.disk_usage import disk_usage

    found = disk_usage(ctx.paths)
    rows = system_df.cache_rows(found)
    form = args.text("format")
    output.print_rows(ctx, rows, form, system_df.CACHE, tuple(system_df.CACHE))
    if not form:
        total = found.sums[-1]
        ctx.print("", f"Reclaimable:\t{size(total.reclaimable)}", f"Total:\t\t{size(total.size)}")
    return 0


def debug(args: Args, ctx: Context) -> int:
    """A shell (or COMMAND) in the state that the last failed step left."""
    return shell(ctx, "builder debug", tuple(args.arguments))


def shell(ctx: Context, typed: str, command: tuple[str, ...] = ()) -> int:
    """builder debug, and what `build --debug-shell` does; `typed` is which of them, for messages."""
    import os

    from pyrun.runtime.engine.build import debug as engine
    from pyrun.runtime.errors import NotFound

    state = engine.last_failed(ctx.paths)
    if state is None:
        raise NotFound(typed, "no failed step is remembered")
    if not os.isatty(0):
        raise UsageError(typed, "standard input is not a terminal")
    for what in state.left_out:
        ctx.warn(f"not there any more: {what}")
    ctx.stderr.write(f"a shell where {described(state)}; nothing you do in it changes the build\n")
    ctx.stderr.flush()
    engine.shell(ctx.paths, ctx.link, state, command)
    return 0


def described(state: FailedState) -> str:
    """Which step failed, where and when: after a failure that is no RUN's, the newest state is an older one."""
    from time import time_ns

    from pyrun.runtime.cli.context import one_line
    from pyrun.runtime.engine.humanize import age

    title = state.title.partition("\n")[0]
    title = title if len(title) <= 60 else f"{title[:60]}…"
    of = f" of {state.context}" if state.context else ""
    old = age(max(0, time_ns() - int(state.created_at * 10**9))).lower()
    return one_line(f"{title or 'a step'} failed {old} ago ({state.where}{of})")


def version(args: Args, ctx: Context) -> int:
    """For scripts that look whether there is a buildx."""
    from pyrun.runtime import __version__

    ctx.print(f"pyrun build {__version__}")
    return 0


def ls(args: Args, ctx: Context) -> int:
    """For scripts that look for builders."""
    ctx.print("default: the only builder, pyrun build itself on this machine")
    return 0


PRUNE = Command(
    "builder prune",
    "",
    "Remove what builds have cached",
    prune,
    (
        Flag("all", "a", SWITCH, "also what images stand on, cache mounts and the state of failed steps"),
        output.PRUNE_FILTER,
        output.FORCE,
        Flag("keep-storage", refused="give a time: --filter until=48h"),
        Flag("reserved-space", refused="give a time: --filter until=48h"),
    ),
    most=0,
    aliases=("buildx prune",),
)
DU = Command("builder du", "", "Show the build cache", du, (output.FORMAT,), most=0, aliases=("buildx du",))
DEBUG = Command(
    "builder debug",
    "[COMMAND] [ARG...]",
    "Open a shell where the last build failed",
    debug,
    (),
    stops_at_argument=True,
)
VERSION = Command("buildx version", "", "Print the version of pyrun build", version, (), most=0)
LS = Command("buildx ls", "", "Say that there is one builder", ls, (), most=0)
