# SPDX-License-Identifier: Apache-2.0
"""A pull during a build: its lines and blobs as statuses of the FROM that needs it."""

from __future__ import annotations

from pyrun.rootfs.registry.progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .progress import Vertex


class PullView(Progress):
    """Tells a vertex (or nobody) what is pulled: a line when a blob is there, none in between."""

    def __init__(self, vertex: Vertex | None) -> None:
        self._vertex = vertex
        self._totals: dict[str, int | None] = {}

    def begin(self, key: str, text: str, total: int | None) -> None:
        if total is not None:
            self._totals[key] = total

    def done(self, key: str, text: str) -> None:
        total = self._totals.get(key)
        from pyrun.runtime.engine.humanize import size

        self.line(f"{key}: {text}" + (f" {size(total)}" if total else ""))

    def line(self, text: str) -> None:
        if self._vertex is not None:
            self._vertex.status(text)
