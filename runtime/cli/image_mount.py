# SPDX-License-Identifier: Apache-2.0
"""pyrun image mount: a command, or a shell, that sees an image's files."""

from __future__ import annotations

import os
import sys

from pyrun.runtime.cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context


def run(args: Args, ctx: Context) -> int:
    """Its exit code is the command's."""
    from pyrun.runtime.engine.image_mount import mounted

    image, *argv = args.arguments

    def announce(directory: str) -> None:
        if not argv and sys.stdin.isatty():
            ctx.stderr.write(f"{image} is at {directory}, read-only, for this shell alone; leave it with exit\n")
            ctx.stderr.flush()

    return mounted(ctx.paths, image, argv or [os.environ.get("SHELL") or "/bin/sh"], announce)


MOUNT = Command(
    "image mount",
    "IMAGE [COMMAND] [ARG...]",
    "Run a command, or a shell, that sees an image's files",
    run,
    least=1,
    stops_at_argument=True,
    fault=125,
    details="The command of the host starts in a directory where the image is mounted read-only, and which\n"
    "$PYRUN_IMAGE_ROOT names. Only the command sees it: nothing is mounted on the host, nothing is to be unmounted.\n\n"
    "  pyrun image mount flask-app ls -l app\n"
    "  pyrun image mount flask-app sh -c 'diff -r $PYRUN_IMAGE_ROOT/etc /etc'",
)
