# SPDX-License-Identifier: Apache-2.0
"""Where pyrun keeps things: the data root (survives a reboot) and the run root (does not).

Root uses /var/lib/pyrun and /run/pyrun; any other user $XDG_DATA_HOME/pyrun and $XDG_RUNTIME_DIR/pyrun
(XDG Base Directory Specification). PYRUN_DATA_ROOT and PYRUN_RUN_ROOT, or the global flags --data-root and
--run-root, name others: then bridges, nftables tables and cgroups get a suffix too, so that two roots on one
machine never meet.
"""

from __future__ import annotations

import os

from .record import Record

DEFAULT_DATA_ROOT = "/var/lib/pyrun"
DEFAULT_RUN_ROOT = "/run/pyrun"


class Paths(Record):
    """The two roots and what lies below them (docs/architecture.md, On disk)."""

    data: str
    run: str

    @property
    def instance(self) -> str:
        """ "" for the default roots, else 6 hex digits that tell this pair of roots from any other on the machine."""
        if self.data == DEFAULT_DATA_ROOT and self.run == DEFAULT_RUN_ROOT:
            return ""
        import zlib  # a built-in checksum: this is a name, not a secret, and hashlib costs more to import

        return f"{zlib.crc32(os.fsencode(self.data + chr(0) + self.run)):08x}"[:6]

    def container(self, container_id: str) -> str:
        """containers/<id>: container.json config.json state.json upper work rootfs log hosts resolv.conf hostname"""
        return f"{self.data}/containers/{container_id}"

    def running(self, container_id: str) -> str:
        """<run>/<id>: lock plan.json stdout stderr; gone with the container"""
        return f"{self.run}/{container_id}"

    @property
    def monitor_socket(self) -> str:
        return f"{self.run}/monitor.sock"


def default() -> Paths:
    """The roots of this user and environment; creates nothing.

    Nothing here assumes uid 0: see the module's text for which roots an ordinary user gets.
    """
    env = os.environ
    uid = os.geteuid()
    if uid == 0:
        data, run = DEFAULT_DATA_ROOT, DEFAULT_RUN_ROOT
    else:
        data = os.path.join(env.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "pyrun")
        run = os.path.join(env.get("XDG_RUNTIME_DIR") or f"/tmp/pyrun-{uid}", "pyrun")
    data = env.get("PYRUN_DATA_ROOT") or data
    run = env.get("PYRUN_RUN_ROOT") or run
    return Paths(os.path.abspath(data), os.path.abspath(run))
