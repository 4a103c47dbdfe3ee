# SPDX-License-Identifier: Apache-2.0
"""pyrun load: adds the images of an archive."""

from __future__ import annotations

import sys

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.errors import NotFound, PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Reads docker-archive and oci-archive, plain, gzip or zstd, and both as directories; prints what it loaded."""
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    path = args.text("input")
    if path in ("", "-"):
        if sys.stdin.isatty():
            raise UsageError("load", "no archive", hint="pyrun load -i FILE, or pyrun load < FILE")
        names = _named("load from stdin", lambda: images.load(sys.stdin.buffer))
    else:
        names = _named(f"load {path}", lambda: images.load(path))
    for name in names:
        ctx.print(f"Loaded image{' ID' if name.startswith('sha256:') else ''}: {name}")
    return 0


def _named(what: str, action: Callable[[], list[str]]) -> list[str]:
    """The action's value; an error gets the archive's name: what is wrong is always wrong with it."""
    try:
        return action()
    except NotFound:
        raise  # it names the file itself
    except PyrunError as error:
        raise PyrunError(what, str(error).removeprefix("load images: "), hint=error.hint) from error


LOAD = Command(
    "load",
    "",
    "Add the images of an archive (docker save, oci-archive) or directory",
    run,
    (
        Flag("input", "i", help="read this file or directory instead of stdin", metavar="FILE"),
        Flag("quiet", "q", SWITCH, "no progress output"),
    ),
    most=0,
    aliases=("image load",),
)
