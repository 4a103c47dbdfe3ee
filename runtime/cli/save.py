# SPDX-License-Identifier: Apache-2.0
"""pyrun save: writes images as an archive."""

from __future__ import annotations

import os
import sys

from pyrun.runtime.cli.flags import Args, Command, Flag
from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """An archive that docker load and podman load read; to stdout unless it is a terminal."""
    from pyrun.rootfs.store import ImageStore

    images = ImageStore(ctx.paths)
    if not args.given("output"):
        if sys.stdout.isatty():
            raise UsageError("save", "an archive is not for a terminal", hint="pyrun save -o FILE IMAGE")
        images.save(args.arguments, sys.stdout.buffer)
        return 0
    path = args.text("output")
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            images.save(args.arguments, file)
        os.rename(temporary, path)
    except OSError as error:
        _unlink(temporary)
        raise PyrunError(f"save to {path}", error.strerror or str(error)) from None
    except BaseException:
        _unlink(temporary)
        raise
    return 0


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never made


SAVE = Command(
    "save",
    "IMAGE [IMAGE...]",
    "Write images as an archive",
    run,
    (Flag("output", "o", help="write this file instead of stdout", metavar="FILE"),),
    least=1,
    aliases=("image save",),
)
