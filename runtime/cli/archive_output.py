# SPDX-License-Identifier: Apache-2.0
"""Where save and export write: a file that appears whole or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@contextlib.contextmanager
def opened(command: str, path: str, hint: str) -> Iterator[BinaryIO]:
    """The stream to write to: `path`, or stdout for "" and "-", which must be no terminal.

    A regular file, or a new one, is replaced when all is written; a device or FIFO is written to as it is. Raises
    UsageError, PyrunError for what the system says.
    """
    if path in ("", "-"):
        if sys.stdout.isatty():
            raise UsageError(command, "an archive is not for a terminal", hint=hint)
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb") as file:
                yield file
            return
        with _replacing(path) as file:
            yield file
    except OSError as error:
        raise PyrunError(f"{command} to {path}", (error.strerror or str(error)).lower()) from None


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "xb") as file:
        try:
            yield file
            file.flush()
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
