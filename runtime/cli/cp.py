# SPDX-License-Identifier: Apache-2.0
"""pyrun cp: copies files between a container and the host."""

from __future__ import annotations

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def split(text: str) -> tuple[str, str]:
    """("web", "/etc/hosts") of web:/etc/hosts; ("", path) of a path of the host, which begins with / or ."""
    if text.startswith(("/", ".")) or ":" not in text:
        return "", text
    name, _, path = text.partition(":")
    return name, path


def run(args: Args, ctx: Context) -> int:
    """One side is CONTAINER:PATH; the other a path of the host, or "-" for a tar stream."""
    from pyrun.runtime.engine.containers import ContainerStore

    (source_name, source), (target_name, target) = (split(text) for text in args.arguments)
    if bool(source_name) == bool(target_name):
        why = "both sides are containers" if source_name else "neither side is a container"
        raise UsageError("cp", why, hint="pyrun cp web:/etc/hosts . or pyrun cp ./file web:/tmp/")
    if not (source if source_name else target):
        raise UsageError("cp", "the path in the container is empty")
    from pyrun.runtime.engine.copy import copy_in, copy_out

    store = ContainerStore(ctx.paths)
    if source_name:
        copy_out(
            ctx.paths,
            store.lookup(source_name),
            source,
            target,
            archive=args.on("archive"),
            follow=args.on("follow-link"),
        )
    else:
        copy_in(
            ctx.paths,
            store.lookup(target_name),
            source,
            target,
            archive=args.on("archive"),
            follow=args.on("follow-link"),
        )
    return 0


CP = Command(
    "cp",
    "CONTAINER:PATH PATH|-  or  PATH|- CONTAINER:PATH",
    "Copy files between a container and the host",
    run,
    (
        Flag("archive", "a", SWITCH, "keep owners"),
        Flag("follow-link", "L", SWITCH, "follow a symbolic link in SOURCE"),
        Flag("quiet", "q", SWITCH, "no progress output"),
    ),
    least=2,
    most=2,
    aliases=("container cp",),
)
