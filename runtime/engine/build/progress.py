# SPDX-License-Identifier: Apache-2.0
"""What a build tells while it runs: vertices (the work items that BuildKit numbers #1, #2 …), their output and end.

    vertex = progress.vertex("[2/3] RUN make")
    vertex.start(); vertex.log("stdout", b"hello\n"); vertex.done()          # or .cached(), .error("…")

Progress      says nothing: --quiet, and the Python API's default
Plain         BuildKit's plain form, a line at a time: `#5 [2/3] RUN make`, `#5 0.312 hello`, `#5 DONE 3.2s`
RawJson       one JSON object per event, in the shape of BuildKit's client.SolveStatus
Live          a view on a terminal that is drawn anew (engine/build/live.py: needs rich, loaded only there)

All methods may be called from several threads.
"""

from __future__ import annotations

import time
from threading import RLock

from pyrun.rootfs.build.giturl import masked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINE = 1 << 16  # bytes of one line of output that are kept waiting for its end
MAX_OUTPUT = 2 << 20  # bytes of a vertex's output that are shown, as BuildKit's default: logs of a CI are kept
LAST_LINES = 25  # of a vertex's output, for the message when it fails
LAST_BYTES = 1 << 16  # of what is not shown any more, where those lines are taken from


class Vertex:
    """One work item. Made by Progress.vertex(); its number is given when it is first heard of."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress = progress
        self.name = masked(name)
        self.number = 0
        self.started = 0.0
        self.ended = 0.0
        self.is_cached = False
        self.failure = ""
        self.canceled = False
        self.left_out = 0  # bytes of output that were not shown
        self._taken = 0
        self._shown: list[str] = []  # the last lines that were
        self._last = b""  # the end of what was left out
        self._rest = {"stdout": bytearray(), "stderr": bytearray()}

    @property
    def tail(self) -> list[str]:
        """The last lines of its output, those that were left out too."""
        if not self.left_out:
            return self._shown
        return [*self._shown, *map(_text, self._last.removesuffix(b"\n").split(b"\n"))][-LAST_LINES:]

    def start(self) -> None:
        """Work on it begins."""
        self.progress._started(self)

    def log(self, stream: str, data: bytes) -> None:
        """Output of what it runs: stream is "stdout" or "stderr". Only the first MAX_OUTPUT bytes are shown."""
        if not self.started:
            self.start()
        room = max(MAX_OUTPUT - self._taken, 0)
        self._taken += len(data)
        if room:
            self._lines(stream, data[:room])
        if len(data) <= room:
            return
        if not self.left_out:
            self._end_lines()
            self.progress._status(self, f"output clipped, {MAX_OUTPUT >> 20} MiB reached")
        # no line is looked for here: whoever writes without end costs no more than the copying
        self._last = (self._last + data[room:])[-LAST_BYTES:]
        self.left_out += len(data) - room

    def _lines(self, stream: str, data: bytes) -> None:
        rest = self._rest.setdefault(stream, bytearray())
        *ended, last = data.split(b"\n")
        for part in ended:
            rest += part
            self._pieces(stream, rest)
            self._line(stream, bytes(rest))
            rest.clear()
        rest += last
        self._pieces(stream, rest)

    def _pieces(self, stream: str, rest: bytearray) -> None:
        """Says what is longer than a line is allowed to be."""
        while len(rest) > MAX_LINE:
            self._line(stream, bytes(rest[:MAX_LINE]))
            del rest[:MAX_LINE]

    def _end_lines(self) -> None:
        """Says what has not been ended by a newline."""
        for stream, rest in self._rest.items():
            if rest:
                self._line(stream, bytes(rest))
                rest.clear()

    def status(self, text: str) -> None:
        """A line of our own about it: `exporting layers`, `sha256:… done`."""
        if not self.started:
            self.start()
        self.progress._status(self, text)

    def cached(self) -> None:
        """Nothing had to be done."""
        self.is_cached = True
        self._end()

    def done(self) -> None:
        """It went well."""
        self._end()

    def error(self, text: str) -> None:
        """It failed."""
        self.failure = text or "failed"
        self._end()

    def broken(self, error: BaseException) -> None:
        """It ended with this: an interruption (^C, SIGTERM) is no failure of its own."""
        if isinstance(error, Exception):
            self.error(str(error))
        else:
            self.cancel()

    def cancel(self) -> None:
        """Something else failed while it ran, or the user interrupted it."""
        self.canceled = True
        self._end()

    def _end(self) -> None:
        if self.ended:
            return
        if not self.started:
            self.start()
        self._end_lines()
        if self.left_out:
            from pyrun.runtime.engine.humanize import binary_size

            self.progress._status(self, f"{binary_size(self.left_out)} of output left out")
        self.ended = time.time()
        self.progress._ended(self)

    def _line(self, stream: str, line: bytes) -> None:
        text = _text(line)
        self._shown = [*self._shown[1 - LAST_LINES :], text]
        self.progress._line(self, stream, text)


class Progress:
    """Takes everything and says nothing. Subclasses override what begins with an underscore."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.vertices: list[Vertex] = []

    def vertex(self, name: str) -> Vertex:
        """A new work item; not yet begun."""
        return Vertex(self, name)

    def warn(self, text: str) -> None:
        """A remark about the Dockerfile."""

    def close(self) -> None:
        """Nothing more comes."""

    def _started(self, vertex: Vertex) -> None:
        with self.lock:
            if not vertex.started:
                vertex.started = time.time()
                self.vertices.append(vertex)
                vertex.number = len(self.vertices)

    def _line(self, vertex: Vertex, stream: str, line: str) -> None:
        pass

    def _status(self, vertex: Vertex, text: str) -> None:
        pass

    def _ended(self, vertex: Vertex) -> None:
        pass


class Plain(Progress):
    """BuildKit's --progress=plain. write: takes text; it is called with whole lines."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write
        self._current: Vertex | None = None

    def warn(self, text: str) -> None:
        with self.lock:
            self._write(f" - {text}\n")

    def _started(self, vertex: Vertex) -> None:
        with self.lock:
            super()._started(vertex)
            self._switch(vertex, first=True)

    def _switch(self, vertex: Vertex, *, first: bool = False) -> None:
        """Lines of another vertex begin: the one before is broken off, and this one's name said (again)."""
        if self._current is vertex:
            return
        text = ""
        if self._current is not None and not self._current.ended:
            text = f"#{self._current.number} ...\n\n"
        self._current = vertex
        self._write(f"{text}#{vertex.number} {_one_line(vertex.name)}\n")

    def _line(self, vertex: Vertex, stream: str, line: str) -> None:
        with self.lock:
            self._switch(vertex)
            self._write(f"#{vertex.number} {time.time() - vertex.started:.3f} {line}\n")

    def _status(self, vertex: Vertex, text: str) -> None:
        with self.lock:
            self._switch(vertex)
            self._write(f"#{vertex.number} {_one_line(text)}\n")

    def _ended(self, vertex: Vertex) -> None:
        with self.lock:
            self._switch(vertex)
            if vertex.is_cached:
                how = "CACHED"
            elif vertex.canceled:
                how = "CANCELED"
            elif vertex.failure:
                how = f"ERROR: {_one_line(vertex.failure)}"
            else:
                how = f"DONE {vertex.ended - vertex.started:.1f}s"
            self._write(f"#{vertex.number} {how}\n\n")
            self._current = None


class RawJson(Progress):
    """--progress=rawjson: lines like BuildKit's client.SolveStatus, for programs."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def warn(self, text: str) -> None:
        self._say("warnings", {"short": text})

    def _started(self, vertex: Vertex) -> None:
        super()._started(vertex)
        self._say("vertexes", self._vertex(vertex))

    def _line(self, vertex: Vertex, stream: str, line: str) -> None:
        import base64

        data = base64.b64encode(line.encode("utf-8", "surrogateescape") + b"\n").decode()
        number = 2 if stream == "stderr" else 1
        log = {"vertex": _digest(vertex), "stream": number, "data": data, "timestamp": _time(time.time())}
        self._say("logs", log)

    def _status(self, vertex: Vertex, text: str) -> None:
        now = _time(time.time())
        self._say("statuses", {"id": text, "vertex": _digest(vertex), "name": text, "timestamp": now, "started": now})

    def _ended(self, vertex: Vertex) -> None:
        self._say("vertexes", self._vertex(vertex))

    def _vertex(self, vertex: Vertex) -> dict[str, object]:
        value: dict[str, object] = {
            "digest": _digest(vertex),
            "name": vertex.name,
            "started": _time(vertex.started),
        }
        if vertex.ended:
            value["completed"] = _time(vertex.ended)
        if vertex.is_cached:
            value["cached"] = True
        if vertex.failure or vertex.canceled:
            value["error"] = vertex.failure or "context canceled"
        return value

    def _say(self, kind: str, value: dict[str, object]) -> None:
        import json

        with self.lock:
            self._write(json.dumps({kind: [value]}, ensure_ascii=False) + "\n")


def _digest(vertex: Vertex) -> str:
    """What tells a vertex from the others: BuildKit's is the digest of its definition."""
    import hashlib

    return "sha256:" + hashlib.sha256(f"{vertex.number} {vertex.name}".encode("utf-8", "surrogateescape")).hexdigest()


def _time(seconds: float) -> str:
    from pyrun.runtime.engine.humanize import rfc3339

    return rfc3339(int(seconds * 10**9))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))
