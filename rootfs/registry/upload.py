# SPDX-License-Identifier: Apache-2.0
"""A blob into a registry (distribution spec, Pushing blobs): looked for, mounted from a neighbour, or sent.

HEAD  /v2/<name>/blobs/<digest>                        200: nothing to do
POST  /v2/<name>/blobs/uploads/?mount=<digest>&from=…  201: mounted; 202: a session, at Location
PUT   <location>?digest=…            the whole blob in one request; every answer's Location is where to go on
GET   <location>                     after a lost connection: how much has arrived (Range: 0-<last>)
PATCH <location>, PUT …?digest=      the rest of it; or all in pieces, where a proxy limits requests (413);
                                     or a stream whose digest is known only at its end
"""

from __future__ import annotations

import hashlib

from pyrun.runtime.errors import PyrunError

from .errors import RegistryError, Unreachable, printable
from .progress import key_of
from .sockets import CHUNK, Lost, origin_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .host import Host
    from .progress import Progress
    from .reply import Reply

PIECE = 16 << 20  # bytes of one request where the whole was too large
MAX_PIECE = 1 << 30  # what a registry may ask for with OCI-Chunk-Min-Length
STEP = 1 << 20  # bytes between two notes of progress
BINARY = {"Content-Type": "application/octet-stream"}
REFUSED_WHOLE = 413


class Blobs:
    """The blobs of one repository at a host."""

    def __init__(self, host: Host, repository: str, progress: Progress) -> None:
        self.host = host
        self.path = f"/v2/{host.endpoint.repository(repository)}/blobs"
        self.progress = progress

    def has(self, digest: str) -> bool:
        """Whether the repository has the blob. Raises AccessDenied, Unreachable, RegistryError."""
        with self.host.head(f"{self.path}/{digest}") as reply:
            if reply.status not in (200, 404):
                raise reply.refusal()
            return reply.status == 200

    def send(self, digest: str, path: str, size: int, neighbours: Sequence[str] = ()) -> str:
        """Brings the file at `path` there, unless the repository or one of its neighbours has it.

        Returns how it got there, in docker's words. Raises AccessDenied, Unreachable, RegistryError, OSError.
        """
        sending = _Sending(self, digest, path, size)
        if found := self._find(sending, neighbours):
            return found
        sending.run()
        return "Pushed"

    def find(self, digest: str, neighbours: Sequence[str] = ()) -> str:
        """How a blob is in the repository now, if nothing had to be sent for it, else "". Raises as send()."""
        return self._find(_Sending(self, digest, "", 0), neighbours)

    def _find(self, sending: _Sending, neighbours: Sequence[str]) -> str:
        if self.has(sending.digest):
            return "Layer already exists"
        for neighbour in neighbours:
            if sending.mount(neighbour):
                return f"Mounted from {neighbour}"
        return ""

    def stream(self, key: str, chunks: Callable[[], Iterator[bytes]]) -> tuple[str, int]:
        """Sends what `chunks()` yields, whose digest is not known before; returns (digest, size).

        chunks() is called again after a lost connection. Raises as send().
        """
        for attempt in range(1, self.host.patience.attempts + 1):
            try:
                return self._stream(_Counted(chunks(), lambda done: self.progress.advance(key, done)))
            except Lost as error:
                if attempt == self.host.patience.attempts or self.host.cancelled:
                    raise Unreachable(error.what, f"{error.why} (tried {attempt} times)") from None
            self.host.pause(attempt)
        raise AssertionError("unreachable")

    def _stream(self, counted: _Counted) -> tuple[str, int]:
        try:
            with self.host.patch(self.begin(), lambda: counted, headers=BINARY) as reply:
                _expect(reply, 202)
                location = self.location(reply)
            self.finish(location, counted.digest)
        finally:
            counted.close()
        return counted.digest, counted.size

    def begin(self) -> str:
        """A new upload session; its URL."""
        with self.host.post(f"{self.path}/uploads/", headers=BINARY) as reply:
            if reply.status != 202:
                raise reply.refusal()  # asked several times already
            return self.location(reply)

    def finish(self, location: str, digest: str) -> None:
        """Ends a session whose bytes are all there."""
        with self.host.put(with_digest(location, digest), b"", headers=BINARY, retry=False) as reply:
            _expect(reply, 201)

    def location(self, reply: Reply) -> str:
        """Where a session goes on, checked: http or https, and nothing less safe than the way so far.

        A registry behind a proxy that speaks TLS for it may answer with http:// and its own name: that means https.
        """
        where = f"registry {self.host.name}"
        text = reply.headers.get("Location", "")
        url = self.host.url(text, reply.url) if text else ""
        target, own = origin_of(url), self.host.origin()
        if target is None:
            raise RegistryError(where, f"it wants the upload at '{printable(text)}', which is no http or https address")
        if own.scheme == "https" and target.scheme == "http":
            if target.host != own.host:
                raise RegistryError(where, f"it wants the upload at http://{target.netloc}, which is not encrypted")
            rest = url.partition("://")[2].partition("/")[2]
            url = f"https://{own.netloc}/{rest}"
        return url


class _Sending:
    """One file on its way."""

    def __init__(self, blobs: Blobs, digest: str, path: str, size: int) -> None:
        self.blobs = blobs
        self.host = blobs.host
        self.digest = digest
        self.path = path
        self.size = size
        self.location = ""
        self.offset = 0  # of what the session has
        self.piece = 0  # bytes of a request; 0: all that is left

    def mount(self, neighbour: str) -> bool:
        """Takes the blob over from another repository of this registry, if it lets us."""
        from urllib.parse import urlencode

        query = urlencode({"mount": self.digest, "from": neighbour})
        try:
            with self.host.post(f"{self.blobs.path}/uploads/?{query}", headers=BINARY) as reply:
                if reply.status == 202:
                    self.location = self.blobs.location(reply)
                return reply.status == 201
        except PyrunError:
            return False  # it could not be mounted: it can still be sent

    def run(self) -> None:
        """Sends it, going on where a lost connection ended."""
        attempts = self.host.patience.attempts
        failures = 0
        while True:
            before = self.offset
            try:
                if not self.location:
                    self.location, self.offset = self.blobs.begin(), 0
                if self._step():
                    return
                failures = 0
            except Lost as error:
                self._find_offset()
                failures = 1 if self.offset > before else failures + 1
                if failures >= attempts or self.host.cancelled:
                    raise Unreachable(error.what, f"{error.why} (tried {failures} times)", hint=error.hint) from None
                self.host.pause(failures)

    def _step(self) -> bool:
        """One request; True when the blob is there."""
        if self.offset == self.size and self.offset:
            self.blobs.finish(self.location, self.digest)
            return True
        if self.offset == 0 and not self.piece:
            return self._whole()
        end = min(self.size, self.offset + self.piece) if self.piece else self.size
        headers = {**BINARY, "Content-Length": str(end - self.offset), "Content-Range": f"{self.offset}-{end - 1}"}
        with self.host.patch(self.location, lambda: self._chunks(self.offset, end), headers=headers) as reply:
            if reply.status == 416:
                raise Lost(f"registry {self.host.name}", "it has another part of the upload than it said")
            _expect(reply, 202)
            self.location = self.blobs.location(reply)
        self.offset = end
        return False

    def _whole(self) -> bool:
        """All in one PUT; if that is too large, pieces follow."""
        url = with_digest(self.location, self.digest)
        headers = {**BINARY, "Content-Length": str(self.size)}
        with self.host.put(url, lambda: self._chunks(0, self.size), headers=headers, retry=False) as reply:
            if reply.status == REFUSED_WHOLE and self.size > PIECE:
                least = reply.headers.get("OCI-Chunk-Min-Length", "")
                least_bytes = int(least) if least.isascii() and least.isdecimal() and len(least) < 12 else 0
                self.piece = min(max(PIECE, least_bytes), MAX_PIECE)
                self.location = ""
                return False
            _expect(reply, 201)
            return True

    def _find_offset(self) -> None:
        """Asks how much of the session has arrived; without an answer a new one is begun."""
        location, self.location, self.offset = self.location, "", 0
        if not location or self.host.cancelled:
            return
        try:
            with self.host.request("GET", location, retry=False) as reply:
                first, dash, last = reply.headers.get("Range", "").removeprefix("bytes=").partition("-")
                if reply.status == 204 and first == "0" and dash and last.isascii() and last.isdecimal():
                    self.location = self.blobs.location(reply) if "Location" in reply.headers else location
                    self.offset = min(int(last) + 1, self.size) if last != "0" else 0
        except PyrunError:
            return

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        key = key_of(self.digest)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            done = noted = start
            while done < end and (chunk := file.read(min(CHUNK, end - done))):
                yield chunk
                done += len(chunk)
                if done - noted >= STEP or done == end:
                    noted = done
                    self.blobs.progress.advance(key, done)


class _Counted:
    """Chunks on their way out: counted, hashed, told of."""

    def __init__(self, chunks: Iterator[bytes], told: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._told = told
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """Of what went by so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        noted = 0
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.size += len(chunk)
            if self.size - noted >= STEP:
                noted = self.size
                self._told(noted)
            if chunk:  # an empty one would end the chunked encoding
                yield chunk

    def close(self) -> None:
        """Ends whoever produces them."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


def with_digest(location: str, digest: str) -> str:
    """An upload's URL with the digest that ends it."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _expect(reply: Reply, status: int) -> None:
    """Raises for any other status: Lost where another attempt makes sense."""
    if reply.status == status:
        return
    error = reply.refusal()
    if reply.is_passing:
        raise Lost(error.what, error.why, hint=error.hint, status=reply.status)
    raise error
