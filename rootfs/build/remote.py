# SPDX-License-Identifier: Apache-2.0
"""ADD of a URL, and contexts from one: a download into a directory of the build's, with its digest checked."""

from __future__ import annotations

import hashlib
import os
import time

from pyrun.rootfs.disk import writing
from pyrun.rootfs.inroot import remove_path
from pyrun.rootfs.limits import GIB
from pyrun.rootfs.registry.proxies import PORTS, proxy_for
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.events import step
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse
    from urllib3.util import Url

MAX_BYTES = 32 * GIB
CONNECT_S, READ_S = 30.0, 120.0
MAX_REDIRECTS = 10
TRIES = 4
PAUSE_S = 0.5  # before the second try; twice that before the next
_CHUNK = 1 << 18
_RETRIED = {408, 429, 500, 502, 503, 504}
_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}


class Fetched(Record):
    """A downloaded file: where it is, what ADD calls it ("" if the URL does not say), its Last-Modified in nanoseconds
    (0 for none), "sha256:…"."""

    path: str
    name: str
    mtime_ns: int
    digest: str
    size: int


def fetch(url: str, checksum: str, scratch: str, *, max_bytes: int = MAX_BYTES) -> Fetched:
    """Downloads `url` into a new directory of `scratch`, as a file of mode 0600 with the server's time.

    checksum: "sha256:…" that the content must have, or "".

    Raises UsageError for a bad URL or checksum, NotFound for 404, PyrunError for all else that fails; then there is no
    file.
    """
    parse_checksum(checksum)
    if not is_url(url):
        raise UsageError(f"download '{url}'", "only http and https URLs can be downloaded")
    import tempfile

    directory = tempfile.mkdtemp(prefix="url-", dir=scratch)
    try:
        with step("build", f"download {shown(url)}"):
            for attempt in range(TRIES):
                try:
                    return _once(url, checksum, directory, max_bytes)
                except _Again as again:
                    if attempt + 1 == TRIES:
                        raise again.error from again.__cause__
                    time.sleep(again.wait_s if again.wait_s >= 0 else PAUSE_S * 2**attempt)
        raise AssertionError("the last try returns or raises")
    except BaseException:
        remove_path(directory)
        raise


def is_url(text: str) -> bool:
    """Whether ADD takes `text` for a URL."""
    return text.lower().startswith(("http://", "https://"))


def parse_checksum(text: str) -> tuple[str, str]:
    """("sha256", hex digits) of --checksum, ("", "") for "". Raises UsageError."""
    if not text:
        return "", ""
    kind, _, digits = text.partition(":")
    if kind not in _DIGITS:
        raise UsageError(f"invalid checksum '{text}'", "sha256:, sha384: or sha512: and hexadecimal digits are needed")
    if len(digits) != _DIGITS[kind] or not frozenset("0123456789abcdef").issuperset(digits):
        raise UsageError(f"invalid checksum '{text}'", f"{kind} has {_DIGITS[kind]} digits, 0-9 and a-f")
    return kind, digits


class _Again(Exception):
    """A failure that may pass; wait_s is what the server asked for, or -1."""

    def __init__(self, error: PyrunError, wait_s: float = -1) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


def _once(url: str, checksum: str, directory: str, max_bytes: int) -> Fetched:
    import urllib3

    what = f"download {shown(url)}"
    path = os.path.join(directory, "content.part")
    try:
        response = _follow(url)
        try:
            _status(what, response)
            digest, size = _save(what, response, checksum, path, max_bytes)
        finally:
            response.close()
    except urllib3.exceptions.HTTPError as error:
        why, again = _reason(error)
        failure = PyrunError(what, why)
        if again:
            raise _Again(failure) from error
        raise failure from error
    name = file_name(response.headers.get("Content-Disposition", ""), url)
    mtime_ns = http_date(response.headers.get("Last-Modified", ""))
    final = os.path.join(directory, name or "content")
    with writing(what):
        os.rename(path, final)
        os.utime(final, ns=(mtime_ns, mtime_ns))
    return Fetched(final, name, mtime_ns, digest, size)


def _follow(url: str) -> BaseHTTPResponse:
    """The response at the end of the redirects. Only http and https are followed, and never from https
    back to http."""
    import urllib3

    timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
    for _ in range(MAX_REDIRECTS + 1):
        parsed = _parsed(url)
        proxy = proxy_for(parsed.scheme or "", parsed.host or "", parsed.port or PORTS[parsed.scheme or "http"])
        pool = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
        headers = {"User-Agent": "pyrun", "Accept-Encoding": "identity"}
        if parsed.auth:
            headers |= urllib3.make_headers(basic_auth=parsed.auth)
        response = pool.request(
            "GET", url, headers=headers, timeout=timeout, redirect=False, retries=False, preload_content=False
        )
        target = response.headers.get("Location", "") if response.status in (301, 302, 303, 307, 308) else ""
        if not target:
            return response
        response.close()
        from urllib.parse import urljoin

        target = urljoin(url, target)
        if not is_url(target) or (parsed.scheme == "https" and not target.lower().startswith("https://")):
            raise PyrunError(f"download {shown(url)}", f"it redirects to {shown(target)}, which is not followed")
        url = target
    raise PyrunError(f"download {shown(url)}", f"more than {MAX_REDIRECTS} redirects")


def _parsed(url: str) -> Url:
    import urllib3

    try:
        found = urllib3.util.parse_url(url)
    except urllib3.exceptions.HTTPError:
        raise UsageError(f"download '{shown(url)}'", "invalid URL") from None
    if not found.host or any(char <= " " or char == "\x7f" for char in url):
        raise UsageError(f"download '{shown(url)}'", "invalid URL")
    return found


def shown(url: str) -> str:
    """A URL for messages and records: without the password that may be in it."""
    scheme, divided, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{divided}{host.rpartition('@')[2]}{slash}{path}" if divided else url


def _status(what: str, response: BaseHTTPResponse) -> None:
    status = response.status
    if status == 200:
        return
    if status in (404, 410):
        raise NotFound(what, f"not found ({status})")
    if status in (401, 403):
        raise PyrunError(what, f"access denied ({status})")
    failure = PyrunError(what, f"the server answered {status} {response.reason or ''}".rstrip())
    if status in _RETRIED:
        after = response.headers.get("Retry-After", "")
        raise _Again(failure, float(after) if after.isascii() and after.isdecimal() and int(after) <= 60 else -1)
    raise failure


def _save(what: str, response: BaseHTTPResponse, checksum: str, path: str, max_bytes: int) -> tuple[str, int]:
    """Writes the body to `path`; ("sha256:…", size)."""
    kind, digits = parse_checksum(checksum)
    sha256 = hashlib.sha256()
    wanted = sha256 if kind in ("", "sha256") else hashlib.new(kind)
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdecimal() and int(length) > max_bytes:
        raise PyrunError(what, f"{length} bytes, more than the {max_bytes} that are allowed")
    size = 0
    with writing(what), open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        for chunk in response.stream(_CHUNK, decode_content=False):
            size += len(chunk)
            if size > max_bytes:
                raise PyrunError(what, f"more than the {max_bytes} bytes that are allowed")
            sha256.update(chunk)
            if wanted is not sha256:
                wanted.update(chunk)
            file.write(chunk)
    if length.isascii() and length.isdecimal() and size != int(length):
        raise _Again(PyrunError(what, f"cut short: {size} of {length} bytes"))
    if digits and wanted.hexdigest() != digits:
        raise PyrunError(what, f"its checksum is {kind}:{wanted.hexdigest()}, not {checksum}")
    return f"sha256:{sha256.hexdigest()}", size


def _reason(error: Exception) -> tuple[str, bool]:
    """What a failed transfer comes from, and whether it may work the next time."""
    import socket
    import ssl

    from urllib3 import exceptions

    chain: list[BaseException] = []
    seen: object = error
    while isinstance(seen, BaseException) and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__ or getattr(seen, "reason", None)
    for cause in reversed(chain):  # the first cause says most
        if isinstance(cause, (ssl.SSLError, exceptions.SSLError)):
            return f"TLS: {getattr(cause, 'verify_message', '') or getattr(cause, 'reason', '') or cause}", False
        if isinstance(cause, socket.gaierror):
            return "cannot resolve the host's name", False
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused", False
        if isinstance(cause, (TimeoutError, exceptions.TimeoutError)):
            return "timed out", True
    return f"the connection broke ({type(error).__name__})", True


# What ADD makes of the answer -----------------------------------------------------------------------------------------


def file_name(disposition: str, url: str) -> str:
    """The name of a downloaded file, "" for none: the last part of the URL's path, as BuildKit has it; if the path is
    empty, what Content-Disposition says. Never with a slash, never "." or ".."."""
    from urllib.parse import unquote

    path = url.partition("://")[2].partition("#")[0].partition("?")[0].partition("/")[2]
    name = _safe(unquote(path.rstrip("/").rsplit("/", 1)[-1], errors="surrogateescape"))
    if name or not disposition:
        return name
    from email.message import Message

    message = Message()
    message["Content-Disposition"] = disposition.replace("\r", " ").replace("\n", " ")
    return _safe(message.get_filename("") or "")


def _safe(name: str) -> str:
    """The last part of what may be a path, if it can be a file's name."""
    name = "".join(char for char in name.rsplit("/", 1)[-1] if char >= " " and char != "\x7f")
    return "" if name in (".", "..") or len(os.fsencode(name)) > 255 else name


def http_date(text: str) -> int:
    """Last-Modified in nanoseconds since 1970; 0 for none, one that cannot be read, or one before 1970."""
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(text).timestamp())) * 10**9 if text else 0
    except (ValueError, TypeError, OverflowError):
        return 0
