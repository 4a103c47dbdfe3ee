# SPDX-License-Identifier: Apache-2.0
"""The monitor's program: joins the server to the command line and the engine. Started by runtime/monitor/spawn.py."""

from __future__ import annotations

import sys

from pyrun.runtime.cli import dispatch
from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.runtime.monitor.handlers import Relay
    from pyrun.runtime.monitor.loop import Loop
    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths

#: imported before the first request, so that a worker is a fork with everything at hand
WARM = (
    "pyrun.cgroups.devices", "pyrun.cgroups.group", "pyrun.cgroups.oom", "pyrun.cgroups.recover",
    "pyrun.netns.attach", "pyrun.netns.bridge", "pyrun.netns.firewall", "pyrun.netns.hostports", "pyrun.netns.relay",
    "pyrun.netns.udprelay", "pyrun.netns.watch", "pyrun.netns.mode",
    "pyrun.runtime.kernel._nftables", "pyrun.netns.files",
    "pyrun.rootfs.store", "pyrun.rootfs.users", "pyrun.rootfs.layered", "pyrun.rootfs.volumes",
    "pyrun.runtime.engine.check", "pyrun.runtime.engine.exec", "pyrun.runtime.engine.finish",
    "pyrun.runtime.engine.remove", "pyrun.runtime.engine.run", "pyrun.runtime.engine.seccomp_profile",
    "pyrun.runtime.engine.stop", "pyrun.runtime.cli.run", "pyrun.runtime.cli.start", "pyrun.runtime.cli.stop",
    "pyrun.runtime.cli.rm", "pyrun.runtime.cli.exec", "pyrun.runtime.cli.attach", "pyrun.runtime.cli.pause",
    "pyrun.runtime.cli.steps", "signal", "calendar",
    # build: a rebuild in which everything is cached takes as long as its imports
    "pyrun.runtime.cli.build", "pyrun.runtime.engine.build.solve", "pyrun.runtime.engine.build.runs",
    "pyrun.runtime.engine.build.copies", "pyrun.runtime.engine.build.output", "pyrun.runtime.engine.build.execute",
    "pyrun.rootfs.build.context", "pyrun.rootfs.build.contents", "pyrun.rootfs.build.place", "pyrun.rootfs.changeset",
    "pyrun.rootfs.build.hashes", "pyrun.rootfs.build.ignore", "pyrun.rootfs.registry.manifests",
    "pyrun.rootfs.unpacker",
    "isal.isal_zlib", "pyrun.rootfs.build.lint",
    # what those import late, for the sake of others
    "encodings.ascii", "pyrun.cgroups.waiting", "pyrun.runtime.engine.signals", "pyrun.runtime.monitor.client",
)  # fmt: skip


REPAIR_EVERY_S = 5.0


class EngineHandlers:
    """handlers.Handlers by the engine: everything but make_relay() runs in a worker."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def run_command(self, argv: list[str], link: WorkerLink) -> int:
        """A command line of the client's."""
        return dispatch.run_command(argv, link, self.paths)

    def call(self, name: str, args: dict[str, Any], link: WorkerLink) -> Any:
        """Calls of the Python API, the restart policy's and timers'."""
        if name == "sweep":
            from pyrun.runtime.engine.network import sweep

            return sweep(self.paths, link)
        if name == "repair":
            from pyrun.netns.watch import repair

            return list(repair(self.paths))
        if name != "start":
            raise PyrunError(f"call {name}", "no such call")
        from pyrun.runtime.engine.start import start

        return start(self.paths, args["id"], link, restart=bool(args.get("restart"))).id

    def exited(self, session_id: str, returncode: int | None, link: WorkerLink) -> dict[str, Any]:
        """A container has ended."""
        from pyrun.runtime.engine.finish import finish

        return finish(self.paths, session_id, returncode, link)

    def recover(self, link: WorkerLink) -> None:
        """Puts right what a crash left; the containers that the monitor knows are its own business."""
        from pyrun.runtime.engine.finish import recover

        known = frozenset(str(one["id"]) for one in link.request("sessions"))
        recover(self.paths, link, known)

    def begin(self, loop: Loop, later: Callable[[str, float, str, dict[str, Any]], None]) -> None:
        """Watches for others' changes of the firewall, and repairs what they break for running containers."""
        from time import monotonic

        from pyrun.netns.watch import Watch

        last = -REPAIR_EVERY_S

        def broken() -> None:
            nonlocal last
            now = monotonic()
            # a repair that does not help must not keep the machine busy: its own changes are noticed too
            later("repair", max(0.0, last + REPAIR_EVERY_S - now), "repair", {})
            last = now

        try:
            Watch(self.paths, loop, broken)
        except OSError:
            pass  # a kernel without nftables: there is nothing to watch

    def make_relay(self, fd: int, target: Any, loop: Loop) -> Relay | None:
        """A relay for a published port that nftables cannot lead, such as [::1]."""
        if target is None:
            return None
        from pyrun.netns import relay

        return relay.make(fd, target, loop)


def main() -> None:
    """The monitor of the roots in sys.argv; returns when it has been idle for a minute."""
    from importlib import import_module

    for module in WARM:
        try:
            import_module(module)
        except ImportError:
            pass  # such as libnftables, which --network none can do without: whoever needs it says so
    from pyrun.runtime.kernel.spawn import program_fd
    from pyrun.runtime.monitor import server, spawn

    paths, ready_fd = spawn.arguments(sys.argv)
    program_fd()  # the sealed memfd of pyrun-init, once for all workers
    server.serve(paths, EngineHandlers(paths), ready_fd)
