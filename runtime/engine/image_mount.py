# SPDX-License-Identifier: Apache-2.0
"""mounted(): a command that sees an image's files at a directory. Nobody else does, and nothing is left to unmount.

The host gets no mount (docs/architecture.md): the image is mounted in a mount namespace of the command's own, which
goes with its last process. No Python runs in there; pyrun-init mounts, then becomes the command.
"""

from __future__ import annotations

import contextlib
import os
import signal

from pyrun.runtime import files
from pyrun.runtime.errors import EXIT_NOT_FOUND, PyrunError, StartError
from pyrun.runtime.events import step
from pyrun.runtime.oci import plan as plans
from pyrun.runtime.oci import steps as s
from pyrun.runtime.oci.launch import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrun.runtime.paths import Paths

CLONE_NEWNS = 0x00020000
READONLY_NOSUID_NODEV = 0x1 | 0x2 | 0x4  # MOUNT_ATTR_*: the image's set-user-id programs and devices are not the host's
OVERLAY_OPTIONS = "redirect_dir=nofollow,metacopy=off"  # as containers have it
VARIABLE = "PYRUN_IMAGE_ROOT"  # tells the command where the image is; it starts there, too
FORWARDED = (signal.SIGTERM, signal.SIGHUP)  # what is meant for the command; a terminal's ^C reaches it anyway


def mounted(
    paths: Paths, image: str, argv: Sequence[str], announce: Callable[[str], None] = lambda directory: None
) -> int:
    """Runs `argv` with the image's files read-only at a directory, its working directory; gives the exit code.

    announce(directory) is called before the command starts. Raises NotFound for the image or the command, StartError,
    OSError. While the command runs its layers stay, also when the image is removed.
    """
    from pyrun.rootfs.store import ImageStore

    if os.geteuid() != 0:
        raise PyrunError("image mount", "only root may mount", hint="sudo pyrun image mount …")
    images = ImageStore(paths)
    with images.ingest() as ingest:  # keeps the layers as long as this process lives, and no longer
        with images.hold():
            found = images.resolve(image)
            layers = images.unpacked(found)
            ingest.keep_layers(found.chain_ids)
        with _directory(paths) as directory:
            announce(f"{directory}/image")
            return _run(plan(directory, tuple(reversed(layers)), argv, os.environ))


def plan(directory: str, layers: tuple[str, ...], argv: Sequence[str], environ: os._Environ[str]) -> plans.Plan:
    """The steps: `layers`, topmost first, below <directory>/image, and the command there."""
    target, place = f"{directory}/image", f"{directory}/place"
    env = {**environ, VARIABLE: target}
    return plans.Plan(
        clone_flags=CLONE_NEWNS,
        joined=(),
        steps=(
            s.Propagation("/", plans.PROPAGATION["rslave"]),  # mounts of the host still come in, none goes out
            s.RootHere(),
            s.BindTree(place, layers or (place,), "", "", OVERLAY_OPTIONS, "/", target, READONLY_NOSUID_NODEV),
            s.Chdir(target),
            s.Lookup(argv[0], env.get("PATH", plans.DEFAULT_PATH)),
            s.Exec(tuple(argv), tuple(f"{name}={value}" for name, value in env.items())),
        ),
    )


def _run(plan: plans.Plan) -> int:
    from pyrun.runtime.kernel.syscalls import pidfd_send_signal, wait_pidfd

    launch = Launch(plan, {})
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT, *FORWARDED)}
    try:
        try:
            launch.run({})
        except StartError as error:
            if error.code == EXIT_NOT_FOUND:
                error.hint = "the command is one of the host's, not of the image"
            raise
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # the terminal sends it to the command too, which decides
        for number in FORWARDED:
            signal.signal(number, lambda number, _: pidfd_send_signal(launch.pidfd, number))
        with step("process", f"wait for {launch.pid}"):
            status = wait_pidfd(launch.pidfd)
        assert status is not None  # it was waited for
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if launch.pidfd >= 0:
            os.close(launch.pidfd)


@contextlib.contextmanager
def _directory(paths: Paths) -> Iterator[str]:
    """An empty directory for the mount point and one for the overlay; both empty on the host all the time."""
    top = f"{paths.run}/mounts"
    files.private_dir(top)
    path = f"{top}/{os.urandom(6).hex()}"
    os.mkdir(path, 0o700)
    try:
        for name in ("image", "place"):
            os.mkdir(f"{path}/{name}", 0o755)
        yield path
    finally:
        for name in ("image", "place", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(f"{path}/{name}")
        with contextlib.suppress(OSError):
            os.rmdir(top)  # unless somebody else has one
