# SPDX-License-Identifier: Apache-2.0
"""Requests to one endpoint: its scheme, authentication, redirects, retries. What they are about is in the siblings.

No credentials leave for another origin than the endpoint's (scheme, host and port), and no redirect leads to anything
but http and https, nor from https to http.
"""

from __future__ import annotations

import time

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.events import step

from .auth import Auth
from .errors import RegistryError, Unreachable, printable
from .reply import MAX_ERROR, Reply, retry_after
from .sockets import Lost, Origin, Patience, Sockets, TlsRefused, origin_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from urllib3 import BaseHTTPResponse

    from .config import Endpoint
    from .credentials import Credentials

    Body = bytes | Callable[[], Iterable[bytes]] | None

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
LOOPBACK = ("localhost", "::1")


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
        retry: again after a lost connection or a passing status, with growing pauses; else it is tried once, and Lost
        raised. Raises Unreachable, AccessDenied, RegistryError.
        """
        for attempt in range(1, self.patience.attempts + 1):
            last = not retry or attempt == self.patience.attempts
            try:
                reply = self._answered(method, target, headers or {}, body, anonymous)
            except Lost as error:
                if not retry:
                    raise
                if last or self.cancelled:
                    raise _tried(error, attempt) from None
                self.pause(attempt)
                continue
            if not reply.is_passing or last:
                return reply
            wait = retry_after(reply.headers.get("Retry-After", ""))
            if wait is not None and wait > self.patience.longest_delay_s:
                return reply
            reply.close()
            self.pause(attempt, wait)
        raise AssertionError("unreachable")

    def document(
        self, target: str, cap: int, what: str, *, headers: Mapping[str, str] | None = None
    ) -> tuple[Reply, bytes]:
        """A closed reply to GET and its whole body of at most `cap` bytes; again if the connection breaks meanwhile.

        `what` is the document's name for messages. A status that is no 200 has no body here: see Reply.refusal().
        """
        for attempt in range(1, self.patience.attempts + 1):
            reply = self.get(target, headers=headers)
            try:
                if reply.status != 200:
                    return reply, b""
                with reply:
                    return reply, reply.document(cap, what)
            except Lost as error:
                if attempt == self.patience.attempts or self.cancelled:
                    raise _tried(error, attempt) from None
            self.pause(attempt)
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
                    again = reply.is_passing and attempt < self.patience.attempts
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


def _tried(error: Lost, attempts: int) -> Unreachable:
    why = f"{error.why} (tried {attempts} times)" if attempts > 1 else error.why
    return Unreachable(error.what, why, hint=error.hint)


def _is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")
