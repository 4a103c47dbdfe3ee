# SPDX-License-Identifier: Apache-2.0
"""The json-file log of a container: docker's line format, rotated and bounded."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Entry:
    """One log entry: `stream` ("stdout" or "stderr"), `time` (RFC 3339, UTC, nanoseconds), `data` (the exact bytes;
    without a final newline it is a part of a line that goes on in the stream's next entry)."""

    __slots__ = ("data", "stream", "time")

    def __init__(self, stream: str, time: str, data: bytes) -> None:
        self.stream = stream
        self.time = time
        self.data = data


def read(
    directory: str, *, tail: int | None = None, since_ns: int | None = None, until_ns: int | None = None,
    stdout: bool = True, stderr: bool = True, follow: Callable[[float], bool] | None = None,
) -> Iterator[Entry]:  # fmt: skip
    """The entries of the log in `directory` (<data>/containers/<id>/log), oldest first, over all rotated files.

    tail: only the last so many (0: none; None: all). since_ns/until_ns: nanoseconds since the epoch, both inclusive.
    follow: None, or a function that waits up to the given seconds and returns whether the container still runs (or,
    more precisely, is not yet finished: its last output is logged only then); entries are yielded as they come until
    it returns False. Correct while the log is being rotated; a torn last line is waited for or left out.
    """
    raise NotImplementedError
