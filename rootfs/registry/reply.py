# SPDX-License-Identifier: Apache-2.0
"""A registry's answer: its status and headers, and its body, which is never read without a bound."""

from __future__ import annotations

import time

from pyrun.runtime.errors import PyrunError

from .errors import RegistryError, Unreachable, refusal
from .sockets import CHUNK, Lost, Origin, described, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from urllib3 import BaseHTTPResponse

    from .host import Host

MAX_ERROR = 1 << 16  # bytes of an error's body that are looked at
AGAIN = (408, 425, 429)  # besides 5xx: statuses after which the same request may succeed
NEVER = (501, 505)  # 5xx that say "not like this"


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

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in AGAIN or (self.status >= 500 and self.status not in NEVER)

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
        return refusal(self.host.name, self.status, body, what, self.host.login_name)


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


def _at_end(response: BaseHTTPResponse) -> bool:
    fp = getattr(response, "_fp", None)
    return fp is None or getattr(fp, "closed", False) is True or fp.isclosed()
