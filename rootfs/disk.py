# SPDX-License-Identifier: Apache-2.0
"""A full, read-only or forbidden disk as one line for the user, wherever the store writes."""

from __future__ import annotations

import errno
import os

from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

HINTS = {
    errno.ENOSPC: "free some space, or keep the images elsewhere: --data-root",
    errno.EDQUOT: "the disk quota of this user is used up",
    errno.EROFS: "the data root is on a read-only file system; --data-root names another",
    errno.EACCES: "run it as root (sudo), or name a data root of your own: --data-root",
    errno.EPERM: "run it as root (sudo): owners and device files of images belong to root",
    errno.EMFILE: "too many open files: see ulimit -n",
}


class writing:  # noqa: N801 - reads as a statement: `with writing("load images")`
    """Turns an OSError of the `with` block into a PyrunError: `what`, the reason, the path, and what to do about it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(cause, OSError):
            why = (cause.strerror or str(cause)).lower()
            if cause.filename is not None and not isinstance(cause.filename, int):
                why += f": {os.fsdecode(cause.filename)}"
            error = PyrunError(self.what, why, hint=HINTS.get(cause.errno or 0, ""))
            for note in getattr(cause, "__notes__", ()):
                error.add_note(note)
            raise error from cause
