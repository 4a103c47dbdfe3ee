# SPDX-License-Identifier: Apache-2.0
"""What a pull or a push tells of its progress; this one keeps silent, the command line draws it."""

from __future__ import annotations

KEY = 12  # hex digits of a digest that stand for a blob on the screen


class Progress:
    """Called from several threads at once. `key` is the short digest of a blob; `current` and `total` are bytes.

    An operation on a blob is begin(), any number of advance(), done(); begin() again under the same key starts the next
    one (downloading, then unpacking).
    """

    def begin(self, key: str, text: str, total: int | None) -> None:
        """Something starts on a blob; `text` is docker's: "Downloading", "Pushing" …; total None: unknown."""

    def advance(self, key: str, current: int) -> None:
        """So much of it is done."""

    def done(self, key: str, text: str) -> None:
        """It ended well: "Pull complete", "Already exists", "Pushed", "Mounted from library/x"."""

    def line(self, text: str) -> None:
        """A line that belongs to no blob: "latest: Pulling from library/busybox"."""


def key_of(digest: str) -> str:
    """What progress calls the blob `digest`."""
    return digest.partition(":")[2][:KEY]
