# SPDX-License-Identifier: Apache-2.0
"""pyrun save: writes images as an archive or a directory."""

from __future__ import annotations

from pyrun.runtime.cli import archive_output
from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.cli.values import one_of
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.cli.context import Context

FORMATS = ("docker-archive", "oci-archive", "oci-dir", "docker-dir")


def run(args: Args, ctx: Context) -> int:
    """An archive that docker load and podman load read; to stdout unless it is a terminal."""
    from pyrun.rootfs import saving
    from pyrun.rootfs.store import ImageStore

    images, form, platform = ImageStore(ctx.paths), args.text("format"), args.text("platform")
    if form in saving.DIRECTORIES:
        if not args.text("output"):
            raise UsageError(f"save --format {form}", "a directory must have a name", hint="-o DIRECTORY")
        saving.save_directory(images, args.arguments, args.text("output"), form=form, platform=platform)
        return 0
    for name in args.arguments:
        images.resolve(name)  # before the file is made
    with archive_output.opened("save", args.text("output"), "pyrun save -o FILE IMAGE") as file:
        saving.save(images, args.arguments, file, form=form, platform=platform)
    return 0


SAVE = Command(
    "save",
    "IMAGE [IMAGE...]",
    "Write images as an archive",
    run,
    (
        Flag(
            "format",
            "",
            help=f"one of {', '.join(FORMATS)}",
            metavar="FORMAT",
            default=FORMATS[0],
            parse=one_of(*FORMATS),
        ),
        Flag("output", "o", help="write this file, or directory, instead of stdout", metavar="FILE"),
        Flag("platform", "", help="the image must be for this platform", metavar="OS/ARCH"),
        Flag("multi-image-archive", "m", SWITCH, hidden=True),  # podman's: it can always be several
        Flag("quiet", "q", SWITCH, hidden=True),
    ),
    least=1,
    aliases=("image save",),
    details="docker-archive is an OCI layout too: docker, podman, skopeo and containerd read it.",
)
