# SPDX-License-Identifier: Apache-2.0
"""run(): create and start."""

from __future__ import annotations

import os

from pyrun.runtime.engine.attach import Attach
from pyrun.runtime.engine.create import create
from pyrun.runtime.engine.start import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.runtime.engine.containers import Container
    from pyrun.runtime.engine.options import RunOptions
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths


def run(paths: Paths, options: RunOptions, link: WorkerLink) -> Container:
    """Creates and starts a container, in a worker of the monitor; unless options.detach, its client is attached.

    When the start fails, the container is removed again, with or without options.rm: of a mistyped command nothing is
    left, and its name is free for the next try. (docker leaves such a container behind.)
    """
    container = create(paths, options)
    try:
        return start(paths, container.id, link, attach=wanted_streams(options))
    except BaseException:
        from pyrun.runtime.engine.remove import remove

        remove(paths, container.id, force=True, volumes=True, link=link)
        if options.cidfile:
            os.unlink(options.cidfile)
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
