# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a registry, each with its own words, and the texts of servers made fit for a terminal.

PyrunError
├── RegistryError          the registry answered something that cannot be used; `status` is HTTP's, 0 for none
│   ├── Unreachable        no answer: name, connection, certificate, time
│   └── AccessDenied       401 or 403
└── NotFound               404 (runtime/errors.py)
"""

from __future__ import annotations

from pyrun.runtime.errors import NotFound, PyrunError

MAX_TEXT = 200  # characters of a server's words in a message

LOGIN = "is the name right? for a private repository: pyrun login {host}"

REASONS = {  # status -> what it means here; (reason, hint)
    400: ("it refused the request (400)", ""),
    401: ("access denied", LOGIN),
    403: ("access denied (403)", LOGIN),
    405: ("it does not allow that (405)", "is it a read-only registry or a mirror?"),
    413: ("the upload is too large for it (413)", "a proxy in front of it may set a limit"),
    429: ("too many requests (429)", "wait a while; a login often raises the limit: pyrun login {host}"),
    500: ("it failed (500)", "try again later: the fault is the registry's"),
    502: ("it failed (502 bad gateway)", "try again later: the fault is the registry's"),
    503: ("it is not available (503)", "try again later"),
    504: ("it failed (504 gateway time-out)", "try again later: the fault is the registry's"),
}


class RegistryError(PyrunError):
    """The registry's answer cannot be used. `status` is the HTTP status, 0 when that was not the matter."""

    def __init__(self, what: str, why: str = "", *, hint: str = "", status: int = 0) -> None:
        super().__init__(what, why, hint=hint)
        self.status = status


class Unreachable(RegistryError):
    """No answer came from the registry."""


class AccessDenied(RegistryError):
    """The registry wants other credentials, or none would do."""


def printable(text: object) -> str:
    """A server's text as one line that cannot steer a terminal, at most MAX_TEXT characters."""
    line = "".join(char if char.isprintable() else " " for char in str(text))
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def refusal(host: str, status: int, body: bytes, what: str = "", login: str | None = None) -> PyrunError:
    """The error for an HTTP status that is not what was asked for.

    what: names the thing in question. login: what `pyrun login` calls the registry, if not by its host.
    """
    said = _said(body)
    name = f"registry {host}"
    if status == 404:
        return NotFound(what or name, f"not found in the registry {host}" if what else "not found (404)")
    reason, hint = REASONS.get(status, (f"it answered with status {status}", ""))
    if said and status != 401:
        reason += f": {said}"
    kind = AccessDenied if status in (401, 403) else RegistryError
    return kind(
        f"{what}: {name}" if what else name,
        reason,
        hint=hint.format(host=host if login is None else login).rstrip(),
        status=status,
    )


def _said(body: bytes) -> str:
    """The messages of a registry's error document (distribution spec, Error Codes); "" for anything else."""
    import json

    try:
        items = json.loads(body)["errors"]
        texts = [str(item.get("message") or item.get("code") or "") for item in items[:3]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return printable("; ".join(text for text in texts if text))
