# SPDX-License-Identifier: Apache-2.0
"""run(): create and start."""

from __future__ import annotations

import os

from pyrun.runtime.engine.attach import Attach
from pyrun.runtime.engine.containers import ContainerStore
from pyrun.runtime.engine.create import make, with_image
from pyrun.runtime.engine.finish import recover_as_worker
from pyrun.runtime.engine.remove import remove
from pyrun.runtime.engine.start import start
from pyrun.runtime.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.engine.containers import Container
    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.engine.pulling import ProgressMaker
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths


def run(paths: Paths, options: RunOptions, link: WorkerLink, *, progress: ProgressMaker | None = None) -> Container:
    """Creates and starts a container, in a worker of the monitor; unless options.detach, its client is attached.

    The image is pulled first if options.pull says so; `progress` makes what shows it.

    When the start fails or is interrupted, the container is removed again, with or without options.rm: of a mistyped
    command nothing is left, and its name is free for the next try. (docker leaves such a container behind.) When this
    process is killed, recover() does the same. Raises what create() and start() raise.
    """

    def twice(options: RunOptions) -> Container:
        try:
            return create_and_start(paths, options, link)
        except Conflict:
            # a name or a port that a killed start has left, and that nobody has cleaned up yet?
            recover_as_worker(paths, link)
            return create_and_start(paths, options, link)

    return with_image(paths, options, twice, progress)


def create_and_start(paths: Paths, options: RunOptions, link: WorkerLink) -> Container:
    """One try of run()."""
    with ContainerStore(paths).busy():
        container = make(paths, options)
        try:
            return start(paths, container.id, link, attach=wanted_streams(options))
        except BaseException as error:
            try:
                remove(paths, container.id, force=True, volumes=True, link=link)
                if options.cidfile:
                    os.unlink(options.cidfile)
            except Exception as problem:  # the cause is what the user must see
                error.add_note(f"clean-up: {problem}")
            raise


def wanted_streams(options: RunOptions) -> Attach | None:
    """What the client of `run` is attached to: -a, or all that fits; nothing with -d."""
    if options.detach:
        return None
    named = options.attach
    return Attach(
        stdin=options.interactive and (not named or "stdin" in named),
        stdout=not named or "stdout" in named,
        stderr=not named or "stderr" in named,
        sig_proxy=options.sig_proxy and not options.tty,
        detach_keys=options.detach_keys,
    )
