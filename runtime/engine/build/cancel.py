# SPDX-License-Identifier: Apache-2.0
"""Cancelled: how a step ends that is not wanted any more."""

from __future__ import annotations

from pyrun.runtime.errors import PyrunError


class Cancelled(PyrunError):
    """Another step failed, or the user has pressed ^C, while this one waited or ran; nothing of it is left."""

    code = 130

    def __init__(self, what: str) -> None:
        super().__init__(what, "cancelled")
