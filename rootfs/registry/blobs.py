# SPDX-License-Identifier: Apache-2.0
"""A blob from a registry into the ingest of an image: resumed after interruptions, verified by size and SHA-256."""

from __future__ import annotations

import time

from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.record import Record

from .errors import RegistryError, Unreachable, printable
from .manifests import path_of
from .partial import Partial
from .progress import key_of
from .sockets import CHUNK, Lost, origin_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.rootfs.layout import Ingest

    from .host import Host
    from .progress import Progress
    from .reply import Reply
    from .transport import Registry

STEP = 1 << 20  # bytes between two notes of progress
SLOWEST = 1 << 10  # bytes a second over a read time-out: less is a stalled connection, or somebody who plays for time
WORTH = 1 << 16  # bytes after which a connection that broke has made progress, and does not count as an attempt
MAX_URLS = 4  # of a foreign layer


class Wanted(Record):
    """A blob to fetch. urls: where else it may be had, as a foreign layer's descriptor says."""

    digest: str
    size: int
    urls: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"blob {self.digest[:19]}"


def download(registry: Registry, repository: str, wanted: Wanted, ingest: Ingest, progress: Progress) -> None:
    """Puts the blob into `ingest`, from the first host that has it; what an earlier attempt left is not fetched again.

    Raises RegistryError, Unreachable, AccessDenied, NotFound, OSError; what has come is left for the next attempt.
    """
    layout = ingest.layout
    with Partial(layout, wanted.digest, wanted.size, lambda: registry.cancelled) as partial:
        if not partial.is_right:
            if ingest.pin(wanted.digest) and ingest.sizes[wanted.digest] == wanted.size:
                return  # while we waited, another pull has finished, published it and removed its partial file
            task = _Download(wanted, partial, progress)
            registry.first(lambda host: task.take_from(host, repository))
        target = f"{ingest.path}/.partial-{wanted.digest[7:]}"
        partial.link(target)
    ingest.take(target, wanted.digest, wanted.size)


class _Download:
    """One blob on its way into its partial file."""

    def __init__(self, wanted: Wanted, partial: Partial, progress: Progress) -> None:
        self.wanted = wanted
        self.partial = partial
        self.progress = progress
        self._noted = 0

    def take_from(self, host: Host, repository: str) -> None:
        """Fetches what is missing from one host."""
        path = path_of(host, repository, "blobs", self.wanted.digest)
        try:
            self._fetch(host, lambda: host.get(path, headers=self._range()))
        except NotFound:
            for url in self.wanted.urls[:MAX_URLS]:
                if self._foreign(host, url):
                    return
            raise

    def _foreign(self, host: Host, url: str) -> bool:
        """Tries one URL of a foreign layer: http or https, without credentials; its content is verified as any."""
        if origin_of(url) is None:
            raise RegistryError(self.wanted.name, f"it is to come from '{printable(url)}': no http or https address")
        try:
            self._fetch(host, lambda: host.get(url, headers=self._range(), anonymous=True))
        except PyrunError:
            return False
        return True

    def _range(self) -> dict[str, str]:
        return {"Range": f"bytes={self.partial.position}-"} if self.partial.position else {}

    def _fetch(self, host: Host, get: Callable[[], Reply]) -> None:
        """Asks again after lost connections, from where it stands, and once from the start if the digest is wrong."""
        failures = 0
        while not self.partial.is_right:
            if self.partial.position >= self.wanted.size:
                resumed = self.partial.resumed
                self.partial.restart()
                if not resumed:
                    raise RegistryError(
                        self.wanted.name,
                        "its content has another digest",
                        hint=f"the registry {host.name}, or a proxy, is at fault",
                    )
            before = self.partial.position
            try:
                with get() as reply:
                    self._take(reply)
            except Lost as error:
                failures = 1 if self.partial.position - before >= WORTH else failures + 1
                if failures >= host.patience.attempts or host.cancelled:
                    raise Unreachable(error.what, f"{error.why} (tried {failures} times)", hint=error.hint) from None
                host.pause(failures)

    def _take(self, reply: Reply) -> None:
        """Appends the body of an answer, if it is the part that was asked for."""
        partial = self.partial
        if reply.status == 416 and partial.position:  # what is here is not of this blob
            partial.restart()
            return
        if reply.status == 404:
            raise NotFound(self.wanted.name, f"the registry {reply.host.name} does not have it")
        if reply.status not in (200, 206):
            raise reply.refusal(self.wanted.name)
        if reply.status == 200 and partial.position:  # it knows no ranges
            partial.restart()
        start, total = content_range(reply.headers.get("Content-Range", "")) if reply.status == 206 else (0, None)
        if start != partial.position or total not in (None, self.wanted.size):
            where = partial.position
            partial.restart()
            if where == 0:
                raise RegistryError(self.wanted.name, "the registry sends another part than it was asked for")
            return
        if start:
            partial.resumed = True  # two answers put together: if they do not fit, one alone may be right
        length = reply.length()
        if length is not None and length != self.wanted.size - start:
            raise RegistryError(
                self.wanted.name,
                f"the registry has {start + length} bytes, and the manifest says {self.wanted.size}",
            )
        self._append(reply)

    def _append(self, reply: Reply) -> None:
        partial, size = self.partial, self.wanted.size
        patience_s = reply.host.patience.read_s
        window = time.monotonic() + patience_s
        floor = partial.position + SLOWEST * patience_s
        while data := reply.read(CHUNK):
            if len(data) > size - partial.position:
                partial.restart()
                raise RegistryError(self.wanted.name, f"the registry sends more than the {size} bytes it must have")
            partial.append(data)
            if partial.position - self._noted >= STEP or partial.position == size:
                self._noted = partial.position
                self.progress.advance(key_of(self.wanted.digest), partial.position)
            now = time.monotonic()
            if now > window:
                if partial.position < min(floor, size):
                    raise Lost(f"registry {reply.host.name}", "the connection has stalled")
                window, floor = now + patience_s, partial.position + SLOWEST * patience_s
        if partial.position < size:
            raise Lost(self.wanted.name, f"cut off after {partial.position} of {size} bytes")


def content_range(text: str) -> tuple[int, int | None]:
    """(first byte, total size or None) of a Content-Range header (RFC 9110, 14.4); (-1, None) for nonsense."""
    unit, _, rest = text.strip().partition(" ")
    span, _, total = rest.partition("/")
    first, dash, last = span.partition("-")
    numbers = [first, last, *([] if total == "*" else [total])]
    if unit.lower() != "bytes" or not dash or not all(n.isascii() and n.isdecimal() and len(n) < 19 for n in numbers):
        return -1, None
    return int(first), None if total == "*" else int(total)
