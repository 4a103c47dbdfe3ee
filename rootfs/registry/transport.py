# SPDX-License-Identifier: Apache-2.0
"""Requests to a registry: authentication, redirects, retries. What they are about is in the siblings.

    with Registry(endpoints, credentials, scopes=["repository:library/busybox:pull"]) as registry:
        reply = registry.first(lambda host: host.get("/v2/library/busybox/manifests/latest"))

A Host is one endpoint; Registry.first() asks them in order, mirrors first. No credentials leave for another origin than
the endpoint's (scheme, host and port), and no redirect leads to anything but http and https, nor from https to http.
"""

from __future__ import annotations

import time

from pyrun.runtime.errors import NotFound, PyrunError
from pyrun.runtime.events import step

from .auth import Auth
from .errors import RegistryError, Unreachable, printable, refusal
from .sockets import CHUNK, Lost, Origin, Patience, Sockets, TlsRefused, described, origin_of, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from urllib3 import BaseHTTPResponse

    from .config import Endpoint
    from .credentials import Credentials

    T = TypeVar("T")
    Body = bytes | Callable[[], Iterable[bytes]] | None

MAX_REDIRECTS = 5
MIRROR_ATTEMPTS = 2  # there is somebody else to ask
REDIRECTS = (301, 302, 303, 307, 308)
MAX_ERROR = 1 << 16  # bytes of an error's body that are looked at
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed
LOOPBACK = ("localhost", "::1")


class Registry:
    """The hosts that serve one registry's repositories, mirrors first; closes its connections as a `with` block.

    credentials: what to answer a host's challenge with; called at most once for each host, and only when it asks.
    scopes: what tokens are wanted for from the start; a challenge may add to them.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        credentials: Callable[[Endpoint], Credentials | None],
        *,
        scopes: Iterable[str] = (),
        patience: Patience | None = None,
        connections: int = 4,
    ) -> None:
        patience = Patience() if patience is None else patience
        wanted = tuple(scopes)
        few = patience.replace(attempts=min(patience.attempts, MIRROR_ATTEMPTS))
        self.hosts = tuple(
            Host(item, credentials, wanted, few if item.mirror else patience, connections) for item in endpoints
        )
        self.cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.cancel() if cause is not None else self.close()

    def first(self, attempt: Callable[[Host], T]) -> T:
        """What `attempt` returns for the first host that can serve it; what mirrors said becomes notes on the error.

        Raises the last host's PyrunError: that is the registry itself.
        """
        said: list[str] = []
        for host in self.hosts[:-1]:
            if host.down:
                continue
            try:
                return attempt(host)
            except PyrunError as error:
                if self.cancelled:
                    raise
                host.down = isinstance(error, Unreachable)
                said.append(f"mirror: {error}")
        try:
            return attempt(self.hosts[-1])
        except PyrunError as error:
            for text in said:
                error.add_note(text)
            raise

    def cancel(self) -> None:
        """Ends every transfer at once, from any thread: whoever waits for the network gets an error."""
        self.cancelled = True
        for host in self.hosts:
            host.cancel()

    def close(self) -> None:
        """Closes the idle connections."""
        for host in self.hosts:
            host.close()


class Reply:
    """An answer whose body is read bit by bit; close() it, or read it to its end."""

    def __init__(self, host: Host, response: BaseHTTPResponse, url: str, origin: Origin) -> None:
        self.host = host
        self.status = response.status
        self.headers = response.headers
        self.url = url
        self._response = response
        self._origin = origin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def length(self) -> int | None:
        """Content-Length, None if there is none that makes sense."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None

    def read(self, size: int = CHUNK) -> bytes:
        """Up to `size` bytes, as soon as there are some; b"" at the end. Raises Lost."""
        from urllib3 import exceptions

        try:
            return self._response.read1(size, decode_content=False) or b""
        except exceptions.HTTPError as error:
            raise described(error, self._origin, self.host.patience.read_s) from error
        except (OSError, ValueError, AttributeError) as error:  # cancel() closed it under our hands
            raise Lost(f"registry {self._origin.netloc}", f"the connection broke: {reason_of(error)}") from error

    def document(self, cap: int, what: str) -> bytes:
        """The whole body, which may have `cap` bytes. Raises RegistryError for more, Lost for less than announced."""
        parts: list[bytes] = []
        size = 0
        expected = self.length() if self.status != 204 else 0
        end = time.monotonic() + self.host.patience.document_s
        if expected is not None and expected > cap:
            raise RegistryError(what, f"{expected} bytes, more than the {cap} that are allowed")
        while part := self.read():
            parts.append(part)
            size += len(part)
            if size > cap:
                raise RegistryError(what, f"larger than the {cap} bytes that are allowed")
            if time.monotonic() > end:
                raise Unreachable(what, f"the registry did not finish it in {self.host.patience.document_s:g} s")
        if expected is not None and size < expected:
            raise Lost(what, f"cut off after {size} of {expected} bytes")
        return b"".join(parts)

    def close(self) -> None:
        """Gives the connection back if the body is at its end, else closes it."""
        self.host.forget(self._response)
        self._response.close() if not _at_end(self._response) else self._response.release_conn()

    def refusal(self, what: str = "") -> PyrunError:
        """The error for this status, with the registry's own words; the reply is closed then."""
        try:
            body = self.document(MAX_ERROR, "error")
        except PyrunError:
            body = b""
        self.close()
        return refusal(self.host.name, self.status, body, what)


class Host:
    """One endpoint: knows which scheme it speaks and who we are to it."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Callable[[Endpoint], Credentials | None],
        scopes: Iterable[str],
        patience: Patience,
        connections: int,
    ) -> None:
        import threading

        self.endpoint = endpoint
        self.name = endpoint.host
        self.login_name = "" if endpoint.host == "registry-1.docker.io" else endpoint.host
        self.patience = patience
        self.cancelled = False
        self.down = False  # did not answer: a mirror that is down is asked once
        self._auth = Auth(lambda: credentials(endpoint), scopes)
        self._sockets = Sockets(endpoint, patience, connections)
        self._lock = threading.Lock()
        self._origin: Origin | None = None
        self._open: set[BaseHTTPResponse] = set()

    # Requests -----------------------------------------------------------------------------------------------------

    def get(self, target: str, *, headers: Mapping[str, str] | None = None, anonymous: bool = False) -> Reply:
        """GET of a path or a URL; see request()."""
        return self.request("GET", target, headers=headers, anonymous=anonymous)

    def head(self, target: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        """HEAD of a path or a URL; see request()."""
        return self.request("HEAD", target, headers=headers)

    def put(self, target: str, body: Body, *, headers: Mapping[str, str] | None = None, retry: bool = True) -> Reply:
        """PUT to a path or a URL; see request()."""
        return self.request("PUT", target, headers=headers, body=body, retry=retry)

    def post(self, target: str, body: Body = b"", *, headers: Mapping[str, str] | None = None) -> Reply:
        """POST to a path or a URL; see request()."""
        return self.request("POST", target, headers=headers, body=body)

    def patch(self, target: str, body: Body, *, headers: Mapping[str, str] | None = None, retry: bool = False) -> Reply:
        """PATCH of a path or a URL; see request()."""
        return self.request("PATCH", target, headers=headers, body=body, retry=retry)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        retry: bool = True,
        anonymous: bool = False,
    ) -> Reply:
        """The answer, whatever its status, once authentication, redirects and retries are done with.

        target: "/v2/…", or a URL (an upload's Location): credentials go there only if it is of the same origin.
        body: a callable returns a fresh iterable of chunks each time it is called; give Content-Length with it.
        anonymous: credentials are sent to nobody.
        retry: again after a lost connection or a status in AGAIN, with growing pauses; else each is tried once.
        Raises Unreachable, AccessDenied, RegistryError.
        """
        for attempt in range(1, self.patience.attempts + 1):
            last = not retry or attempt == self.patience.attempts
            try:
                reply = self._answered(method, target, headers or {}, body, anonymous)
            except Lost as error:
                if last or self.cancelled:
                    raise _tried(error, attempt) from None
                self.pause(attempt)
                continue
            if reply.status not in AGAIN or last:
                return reply
            wait = retry_after(reply.headers.get("Retry-After", ""))
            if wait is not None and wait > self.patience.longest_delay_s:
                return reply
            reply.close()
            self.pause(attempt, wait)
        raise AssertionError("unreachable")

    def ask(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cap: int = MAX_ERROR,
    ) -> tuple[int, bytes]:
        """(status, body) of a request to a token server: nothing is sent there but what is given here."""
        origin = origin_of(url)
        if origin is None:
            raise RegistryError(f"registry {self.name}", "its token server's address cannot be used")
        for attempt in range(1, self.patience.attempts + 1):
            try:
                with self._send(method, url, origin, headers or {}, body) as reply:
                    again = reply.status in AGAIN and attempt < self.patience.attempts
                    if not again:
                        return reply.status, reply.document(cap, f"token server of {self.name}")
                    wait = retry_after(reply.headers.get("Retry-After", ""))
            except Lost as error:
                if attempt == self.patience.attempts or self.cancelled:
                    raise _tried(error, attempt) from None
                wait = None
            self.pause(attempt, min(wait, self.patience.longest_delay_s) if wait is not None else None)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, seconds: float | None = None) -> None:
        """Waits before the next attempt: what the server asked for, else twice as long each time, with some chance."""
        if seconds is None:
            import random

            seconds = self.patience.first_delay_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
        end = time.monotonic() + min(seconds, self.patience.longest_delay_s)
        with step("registry", f"wait {seconds:.1f} s for {self.name}"):
            while not self.cancelled and (left := end - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))

    def url(self, target: str, base: str = "") -> str:
        """The absolute URL of a path at this host, or of a Location that came in the answer to `base`."""
        from urllib.parse import urljoin

        origin = self.origin()
        return urljoin(base or f"{origin.scheme}://{origin.netloc}/", target)

    def owns(self, url: str) -> bool:
        """Whether a URL is of this endpoint's own origin."""
        return origin_of(url) == self.origin()

    def check_realm(self, realm: str) -> None:
        """Refuses a token server that is reached less safely than the registry itself. Raises RegistryError.

        A plain registry's may be plain too if it is on the same host: that way holds its secrets anyway.
        """
        own, origin = self.origin(), origin_of(realm)
        where = f"registry {self.name}"
        if origin is None:
            raise RegistryError(where, f"its token server '{printable(realm)}' is no http or https address")
        near = origin.host == own.host or (_is_loopback(origin.host) and _is_loopback(own.host))
        if origin.scheme == "http" and (own.scheme == "https" or not near):
            raise RegistryError(
                where, f"its token server {origin.scheme}://{origin.netloc} is not encrypted: nothing was sent there"
            )

    def origin(self) -> Origin:
        """Where the endpoint is. With several schemes the first that answers is taken, once and for all."""
        with self._lock:
            if self._origin is None:
                self._origin = self._settle()
            return self._origin

    def _settle(self) -> Origin:
        schemes = self.endpoint.schemes
        for number, scheme in enumerate(schemes):
            origin = origin_of(f"{scheme}://{self.endpoint.host}")
            if origin is None:
                raise RegistryError(f"registry {self.name}", "not a host name")
            if len(schemes) == 1:
                return origin
            try:
                url = f"{scheme}://{origin.netloc}/v2/"
                with step("registry", f"GET {url}"):
                    self._sockets.send("GET", url, origin, self._headers({}), None, own=True).close()
                return origin
            except TlsRefused:
                raise
            except Unreachable:
                if number == len(schemes) - 1:
                    raise
        raise AssertionError("an endpoint without schemes")

    # One request --------------------------------------------------------------------------------------------------

    def _answered(self, method: str, target: str, headers: Mapping[str, str], body: Body, anonymous: bool) -> Reply:
        """One attempt: follows redirects and answers challenges."""
        url = self.url(target)
        challenged = 0
        hops = 0
        while True:
            origin = origin_of(url)
            if origin is None:
                raise RegistryError(
                    f"registry {self.name}", f"it leads to '{printable(url)}', which is no http or https address"
                )
            own = origin == self.origin() and not anonymous
            sent = self._auth.header(self) if own else ""
            full = {**headers, "Authorization": sent} if sent else headers
            reply = self._send(method, url, origin, full, body() if callable(body) else body)
            if reply.status in REDIRECTS and method in ("GET", "HEAD") and "Location" in reply.headers:
                hops += 1
                url = self._redirected(reply, origin, hops)
            elif reply.status == 401 and own and challenged < 2:
                challenged += 1
                header = ", ".join(reply.headers.getlist("WWW-Authenticate"))
                self._drop(reply)
                self._auth.answer(self, header, sent)
            else:
                return reply

    def _redirected(self, reply: Reply, origin: Origin, hops: int) -> str:
        """The URL that a redirect leads to, checked."""
        url = self.url(reply.headers["Location"], reply.url)
        self._drop(reply)
        target = origin_of(url)
        where = f"registry {self.name}"
        if target is None:
            raise RegistryError(where, f"it redirects to '{printable(url)}', which is no http or https address")
        if origin.scheme == "https" and target.scheme == "http" and self.endpoint.verify:
            raise RegistryError(where, f"it redirects to http://{target.netloc}, which is not encrypted")
        if hops > MAX_REDIRECTS:
            raise RegistryError(where, f"it redirects more than {MAX_REDIRECTS} times")
        return url

    def _send(
        self, method: str, url: str, origin: Origin, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None
    ) -> Reply:
        if self.cancelled:
            raise Unreachable(f"registry {self.name}", "interrupted")
        with step("registry", f"{method} {url.partition('?')[0]}"):  # a query may hold a signature
            own = origin == self.origin()
            response = self._sockets.send(method, url, origin, self._headers(headers), body, own=own)
        self._open.add(response)
        return Reply(self, response, url, origin)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        from pyrun.runtime import __version__

        return {"User-Agent": f"pyrun/{__version__}", "Accept-Encoding": "identity", **headers}

    def _drop(self, reply: Reply) -> None:
        """Reads what little a redirect or challenge says, so that the connection can be used again."""
        try:
            reply.document(MAX_ERROR, "answer")
        except PyrunError:
            pass
        reply.close()

    # The end ------------------------------------------------------------------------------------------------------

    def forget(self, response: BaseHTTPResponse) -> None:
        """A reply was closed."""
        self._open.discard(response)

    def cancel(self) -> None:
        """Ends what is going on; nothing can be asked any more."""
        self.cancelled = True
        for response in tuple(self._open):
            shutdown = getattr(response, "shutdown", None)  # urllib3 2.3: wakes a thread that waits in read()
            try:
                shutdown() if shutdown else response.close()
            except (OSError, ValueError, AttributeError):
                pass
        self.close()

    def close(self) -> None:
        """Closes the idle connections."""
        self._sockets.close()


def retry_after(text: str) -> float | None:
    """The seconds of a Retry-After header; None if there is none (a date is rounded to what is left until then)."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def pages(host: Host, target: str, cap: int, what: str, limit: int = 10_000) -> Iterator[Any]:
    """The JSON documents of a list that goes on under its Link header (distribution spec, Listing Tags)."""
    from pyrun.rootfs.layout import parse_json

    seen: set[str] = set()
    while target:
        with host.get(target) as reply:
            if reply.status != 200:
                raise reply.refusal(what)
            data = reply.document(cap, what)
            url = next_page(reply.headers.get("Link", ""))
            target = host.url(url, reply.url) if url else ""
        yield parse_json(data, what)
        if target and (not host.owns(target) or target in seen or len(seen) > limit):
            raise RegistryError(what, "the list's next page is not to be trusted: another host, or one seen before")
        seen.add(target)


def next_page(link: str) -> str:
    """The target of `<…>; rel="next"` in a Link header (RFC 8288), "" for none."""
    for part in link.split(","):
        address, _, parameters = part.partition(";")
        if "next" in parameters and address.strip().startswith("<") and address.strip().endswith(">"):
            return address.strip()[1:-1]
    return ""


def ping(endpoint: Endpoint, credentials: Credentials | None, *, patience: Patience | None = None) -> None:
    """Asks a registry whether it is one, and whether it knows these credentials (None: anonymous).

    Raises AccessDenied, Unreachable, RegistryError, NotFound with the reason.
    """
    with (
        Registry([endpoint], lambda _: credentials, patience=patience) as registry,
        registry.hosts[0].get("/v2/") as reply,
    ):
        if reply.status == 404:
            raise NotFound(
                f"registry {endpoint.host}", "it is a web server, and no registry", hint="is the port right?"
            )
        if reply.status != 200:
            raise reply.refusal()


def _tried(error: Lost, attempts: int) -> Unreachable:
    why = f"{error.why} (tried {attempts} times)" if attempts > 1 else error.why
    return Unreachable(error.what, why, hint=error.hint)


def _is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def _at_end(response: BaseHTTPResponse) -> bool:
    fp = getattr(response, "_fp", None)
    return fp is None or getattr(fp, "closed", False) is True or fp.isclosed()
