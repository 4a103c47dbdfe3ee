# SPDX-License-Identifier: Apache-2.0
"""The connections to one registry: TLS, proxies, time-outs, and urllib3's errors in words.

urllib3 is imported when the first connection is made: it costs 80 ms.
"""

from __future__ import annotations

import errno

from pyrun.runtime.record import Record

from . import proxies
from .errors import RegistryError, Unreachable, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping
    from typing import Any

    from urllib3 import BaseHTTPResponse, PoolManager

    from .config import Endpoint

CHUNK = 1 << 18  # bytes read from or written to a socket at once, as in rootfs/stream.py
PORTS = proxies.PORTS
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER", "UNKNOWN_PROTOCOL")  # OpenSSL: it is no TLS at all


class Patience(Record):
    """How long to wait and how often to try. Seconds, but for `attempts`."""

    connect_s: float = 15.0  # TCP and TLS; a packet lost on the way is sent again after 1, 3 and 7 s
    read_s: float = 60.0  # without a single byte: a registry that fetches a blob from cold storage takes its time
    document_s: float = 120.0  # a whole manifest or token, so that nobody hands one out byte by byte
    attempts: int = 5  # docker's max-download-attempts; what made progress does not count
    first_delay_s: float = 0.5  # before the second attempt; then twice as long each time
    longest_delay_s: float = 60.0  # also what a Retry-After may ask for


class Lost(Unreachable):
    """A failure that another attempt may not meet."""


class TlsRefused(Unreachable):
    """The server's certificate is not accepted; no other scheme may stand in for that."""


class Origin(Record):
    """scheme://host:port of a URL; the host in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """host[:port] as one writes it: the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def origin_of(url: str) -> Origin | None:
    """The origin of an absolute URL; None for any scheme but http and https, or what is no URL."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            return None
        return Origin(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme])
    except ValueError:
        return None


class Sockets:
    """Pools of connections for one endpoint: its own, with its certificates, and others for where it redirects to."""

    def __init__(self, endpoint: Endpoint, patience: Patience, connections: int) -> None:
        import threading

        self._endpoint = endpoint
        self._patience = patience
        self._connections = connections
        self._pools: dict[tuple[str, bool], PoolManager] = {}
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        origin: Origin,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        *,
        own: bool,
    ) -> BaseHTTPResponse:
        """One request on the wire, its response's body not read yet. `own`: to the endpoint itself.

        Raises Lost for what may go better the next time, Unreachable and TlsRefused for what will not.
        """
        from urllib3 import exceptions

        pool = self._pool(origin, own)
        timeout_s = self._patience.read_s
        try:
            return pool.urlopen(
                method, url, redirect=False, retries=False, preload_content=False, decode_content=False,
                headers=dict(headers), body=body,
            )  # fmt: skip
        except exceptions.HTTPError as error:
            raise described(error, origin, timeout_s) from error
        except OSError as error:  # urllib3 lets some through while a body is being sent
            raise Lost(f"registry {origin.netloc}", reason_of(error)) from error

    def close(self) -> None:
        """Closes idle connections."""
        for pool in self._pools.values():
            pool.clear()

    def _pool(self, origin: Origin, own: bool) -> PoolManager:
        import urllib3

        proxy = proxies.proxy_for(origin.scheme, origin.host, origin.port)
        with self._lock:
            found = self._pools.get((proxy, own))
            if found is None:
                options: dict[str, Any] = {
                    "num_pools": 8,
                    "maxsize": self._connections,
                    "timeout": urllib3.Timeout(connect=self._patience.connect_s, read=self._patience.read_s),
                    "blocksize": CHUNK,
                }
                if origin.scheme == "https" or not own:
                    options["ssl_context"] = self._tls(own)
                found = _proxied(proxy, options) if proxy else urllib3.PoolManager(**options)
                self._pools[proxy, own] = found
            return found

    def _tls(self, own: bool) -> ssl.SSLContext:
        """The system's certificates and the endpoint's; client certificates are shown to the endpoint only."""
        import ssl

        endpoint = self._endpoint
        if own and not endpoint.verify:
            import urllib3

            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user said so
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        where = f"registry {endpoint.host}"
        try:
            for path in endpoint.ca_files:
                context.load_verify_locations(path)
            for certificate, key in endpoint.client_certs if own else ():
                path = certificate
                context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(where, f"cannot use the certificate {path}: {reason_of(error)}") from error
        return context


def _proxied(proxy: str, options: dict[str, Any]) -> PoolManager:
    """A pool that goes through a proxy, with the credentials that its URL may hold."""
    from urllib.parse import unquote

    import urllib3

    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


def reason_of(error: BaseException) -> str:
    """An error's text, in lower case as all messages are, without the [SSL: …] that Python puts around OpenSSL's."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return lowered(text)


def lowered(text: str) -> str:
    """A library's sentence in the form of our messages: lower case at its beginning, no full stop."""
    first = text[:1].lower() if text[1:2].islower() or text[1:2] == " " else text[:1]  # "IP address" stays
    return printable(first + text[1:].rstrip("."))


def described(error: Exception, origin: Origin, timeout_s: float) -> Unreachable:
    """urllib3's error as one of ours."""
    from urllib3 import exceptions

    name = f"registry {origin.netloc}"
    cause = _root(error)
    if isinstance(error, exceptions.NameResolutionError):
        hint = "is the name right? else: does this machine have a DNS server (/etc/resolv.conf)?"
        return Unreachable(name, f"cannot resolve '{origin.host}': {reason_of(cause)}", hint=hint)
    if isinstance(error, exceptions.ProxyError):
        hint = "see HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
        return Unreachable(name, f"the proxy does not let us through: {reason_of(cause)}", hint=hint)
    if isinstance(error, exceptions.SSLError):
        return _tls_error(name, cause)
    if isinstance(error, exceptions.ConnectTimeoutError) and not isinstance(error, exceptions.NewConnectionError):
        hint = "is there a firewall or a proxy in between? see HTTPS_PROXY"
        return Lost(name, "no connection: it does not answer", hint=hint)
    if isinstance(error, exceptions.NewConnectionError):
        number = cause.errno if isinstance(cause, OSError) else 0
        if number == errno.ECONNREFUSED:
            return Unreachable(name, "connection refused", hint="is it running, and on this port?")
        return Unreachable(name, f"no connection: {reason_of(cause)}")
    if isinstance(error, exceptions.ReadTimeoutError):
        return Lost(name, f"no answer for {timeout_s:g} s")
    if isinstance(error, exceptions.LocationValueError):
        return Unreachable(name, f"not an address that can be used: {reason_of(error)}")
    return Lost(name, f"the connection broke: {_broken(cause)}")


def _tls_error(name: str, cause: BaseException) -> Unreachable:
    import ssl

    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted: {lowered(cause.verify_message or str(cause))}"
        hint = "put its authority's certificate into /etc/pyrun/certs.d/<host:port>/ca.crt"
        unverified = "or, to trust it unseen, insecure = true for it in /etc/pyrun/registries.toml"
        if "name" in why or "mismatch" in why:
            hint = "use the name that stands in the certificate"
        return TlsRefused(name, why, hint=f"{hint}; {unverified}")
    text = reason_of(cause)
    if "certificate required" in text.lower() or "bad certificate" in text.lower():
        hint = "put client.cert and client.key into /etc/pyrun/certs.d/<host:port>/"
        return TlsRefused(name, "it wants a client certificate", hint=hint)
    if any(word in text.upper() for word in NO_TLS):
        hint = "if it speaks plain HTTP, name it as insecure in /etc/pyrun/registries.toml"
        return Unreachable(name, "it does not speak TLS", hint=hint)
    return Unreachable(name, f"TLS failed: {text}")


def _root(error: BaseException) -> BaseException:
    """The innermost cause: urllib3 wraps the socket's error several times."""
    for _ in range(10):
        inner = error.__cause__ or error.__context__
        if inner is None:
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None or inner is error:
            break
        error = inner
    return error


def _broken(cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return reason_of(cause)
    return "it was closed in the middle of an answer" if "ncomplete" in str(cause) else reason_of(cause)
