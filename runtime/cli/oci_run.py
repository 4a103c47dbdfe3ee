# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci run: create, start, wait and delete in one; with --detach create and start.

Exit code: the program's, 128 and the signal that ended it, or 1 when it could not be started.
"""

from __future__ import annotations

import os

from pyrun.runtime.cli.oci import FLAGS as COMMON
from pyrun.runtime.cli.oci import SWITCH
from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {**COMMON["create"], "detach": SWITCH, "d": "detach", "keep": SWITCH}


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """run [--detach] [--keep] [create's flags] ID"""
    from pyrun.runtime import paths
    from pyrun.runtime.cli.oci import no_preserved_fds, one_id, sender
    from pyrun.runtime.cli.oci_foreground import Foreground
    from pyrun.runtime.kernel.syscalls import pidfd_open
    from pyrun.runtime.oci import lifecycle
    from pyrun.runtime.oci.create import create, load_bundle

    no_preserved_fds(values)
    container_id, detach = one_id(arguments), bool(values.get("detach"))
    bundle, socket = os.path.abspath(values.get("bundle") or "."), values.get("console-socket", "")
    if socket and not detach:
        raise UsageError("--console-socket", "cannot be used in the foreground")
    process = load_bundle(bundle).process
    ours = process is not None and process.terminal and not detach
    with Foreground() as foreground:
        pid = create(
            root, container_id, bundle, pid_file=values.get("pid-file", ""), keyring=not values.get("no-new-keyring"),
            seccomp_cache=f"{paths.default().data}/cache/seccomp",
            console=foreground.console if ours else sender(socket, "/dev/ptmx"),
            pidfd=sender(values.get("pidfd-socket", ""), "standard"),
        )  # fmt: skip
        pidfd = pidfd_open(pid)  # our child, and not reaped: the pid is still its own
        try:
            try:
                lifecycle.start(root, container_id)
                if detach:
                    return 0
                code = foreground.wait(pidfd)
            except BaseException:
                lifecycle.delete(root, container_id, force=True)
                raise
        finally:
            os.close(pidfd)
        if not values.get("keep"):
            lifecycle.delete(root, container_id, force=True)
    return code
