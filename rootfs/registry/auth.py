# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry: its challenge is answered with Basic credentials or with a token from its token server.

    registry  401, WWW-Authenticate: Bearer realm="https://auth…/token",service="…",scope="repository:x:pull"
    client    GET realm?service=…&scope=…            with Basic credentials if there are any   (token spec)
              POST realm grant_type=refresh_token    with an identity token                    (oauth spec)
    server    {"token": "…", "expires_in": 300}

Credentials are looked up only when somebody asks for them. They go to the registry itself and to the token server that
it names, if the way there is encrypted wherever the way to the registry is.
"""

from __future__ import annotations

import time

from pyrun.runtime.record import Record

from .errors import AccessDenied, RegistryError, printable, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .credentials import Credentials
    from .host import Host

CLIENT_ID = "pyrun"
MAX_TOKEN = 1 << 20  # bytes of a token server's answer; cloud registries' tokens reach some 10 KiB
MARGIN_S = 5.0  # before a token ends it is not used any more
FRESH_S = 10.0  # a token that is refused sooner will not do; one that is refused later may have been revoked
DEFAULT_LIFE_S = 60.0  # token spec: for compatibility with servers that do not say


class Challenge(Record):
    """One scheme of a WWW-Authenticate header, in lower case, with its parameters."""

    scheme: str
    parameters: dict[str, str]


def challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header (RFC 9110, 11.6.1); what cannot be read is left out."""
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        if header[position] in " ,\t":
            position += 1
            continue
        start = position
        while position < len(header) and header[position] not in " ,=\t":
            position += 1
        name = header[start:position].lower()
        if position < len(header) and header[position] == "=":
            value, position = _value(header, position + 1)
            if found and name:
                found[-1].parameters.setdefault(name, value)
        elif name:
            found.append(Challenge(name, {}))
    return found


def _value(text: str, position: int) -> tuple[str, int]:
    """A token or quoted string that starts here, and where it ends."""
    if position < len(text) and text[position] == '"':
        out = ""
        position += 1
        while position < len(text) and text[position] != '"':
            if text[position] == "\\":
                position += 1
            out += text[position : position + 1]
            position += 1
        return out, position + 1
    start = position
    while position < len(text) and text[position] not in " ,\t":
        position += 1
    return text[start:position], position


class Auth:
    """The Authorization header for one host; asks for a token when a challenge wants one. Safe from several threads."""

    def __init__(self, credentials: Callable[[], Credentials | None], scopes: Iterable[str] = ()) -> None:
        import threading

        self._lookup = credentials
        self._credentials: Credentials | None = None
        self._looked_up = False
        self._scopes = list(scopes)
        self._lock = threading.Lock()
        self._header = ""
        self._expires = float("inf")
        self._since = 0.0
        self._bearer: Challenge | None = None

    def credentials(self) -> Credentials | None:
        """The user's credentials for this host, looked up once."""
        if not self._looked_up:
            self._credentials = self._lookup()
            self._looked_up = True
        return self._credentials

    def header(self, host: Host) -> str:
        """What to send now; "" until a challenge came. A token that is about to end is replaced first."""
        if self._header and time.monotonic() > self._expires:
            with self._lock:
                if time.monotonic() > self._expires and self._bearer is not None:
                    self._fetch(host, self._bearer)
        return self._header

    def answer(self, host: Host, header: str, sent: str) -> None:
        """Takes up a 401's WWW-Authenticate header after a request that had sent `sent`: header() has an answer then.

        Raises AccessDenied when there is none, RegistryError for a token server that cannot be used.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(challenges(header))}
        with self._lock:
            if sent != self._header:
                return  # another thread has a newer one already
            if "bearer" in offered:
                bearer = offered["bearer"]
                wanted = bearer.parameters.get("scope", "").split()
                fresh = [scope for scope in wanted if not any(_covers(known, scope) for known in self._scopes)]
                if sent.startswith("Bearer ") and not fresh and time.monotonic() < self._since + FRESH_S:
                    raise self._denied(host)  # the token was fetched for just this
                self._scopes += fresh
                self._bearer = bearer
                self._fetch(host, bearer)
            elif "basic" in offered:
                found = self.credentials()
                if found is None or not found.username or sent:
                    raise self._denied(host)
                self._header = basic(found.username, found.password)
            else:
                known = ", ".join(offered) or "none"
                raise AccessDenied(
                    f"registry {host.name}", f"it offers no way to log in that is known here: {printable(known)}"
                )

    def _denied(self, host: Host) -> AccessDenied:
        """No credentials, or wrong ones."""
        found = self.credentials()
        login = f"pyrun login {host.login_name}".rstrip()
        if found is None:
            return AccessDenied(
                f"registry {host.name}", "access denied", hint=f"is the name right? else log in: {login}", status=401
            )
        who = f"user {printable(found.username)}" if found.username else "this identity token"
        hint = f"is the name right? else log in again: {login}"
        return AccessDenied(f"registry {host.name}", f"access denied for {who}", hint=hint, status=401)

    def _fetch(self, host: Host, challenge: Challenge) -> None:
        """A token for all scopes that were wanted so far."""
        realm = challenge.parameters.get("realm", "")
        host.check_realm(realm)
        found = self.credentials()
        service = challenge.parameters.get("service", "")
        if found is not None and found.identity_token:
            answer = self._post(host, realm, service, grant_type="refresh_token", refresh_token=found.identity_token)
        else:
            answer = self._get(host, realm, service, found)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise RegistryError(f"token server of {host.name}", "its answer has no token")
        life = answer.get("expires_in")
        if not isinstance(life, int | float) or isinstance(life, bool) or life <= 0:
            life = DEFAULT_LIFE_S
        self._header = f"Bearer {token}"
        self._since = time.monotonic()
        self._expires = self._since + max(life - MARGIN_S, life / 2)

    def _get(self, host: Host, realm: str, service: str, found: Credentials | None) -> dict[str, Any]:
        from urllib.parse import urlencode

        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in self._scopes]
        headers = {}
        if found is not None and found.username:
            query.append(("account", found.username))
            headers["Authorization"] = basic(found.username, found.password)
        joint = "&" if "?" in realm else "?"
        status, body = host.ask(realm + (joint + urlencode(query) if query else ""), headers=headers, cap=MAX_TOKEN)
        if status in (404, 405) and found is not None:  # a server that knows the newer form only
            return self._post(
                host, realm, service, grant_type="password", username=found.username, password=found.password
            )
        return self._read(host, status, body)

    def _post(self, host: Host, realm: str, service: str, **form: str) -> dict[str, Any]:
        from urllib.parse import urlencode

        fields = {**form, "service": service, "client_id": CLIENT_ID, "scope": " ".join(self._scopes)}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, body = host.ask(realm, method="POST", headers=headers, body=urlencode(fields).encode(), cap=MAX_TOKEN)
        return self._read(host, status, body)

    def _read(self, host: Host, status: int, body: bytes) -> dict[str, Any]:
        from pyrun.rootfs.image import obj
        from pyrun.rootfs.layout import parse_json

        if status in (400, 401, 403):
            raise self._denied(host)
        if status != 200:
            raise refusal(host.name, status, body, "its token server")
        where = f"token server of {host.name}"
        return obj(parse_json(body, where), where)


def _covers(known: str, scope: str) -> bool:
    """Whether a token for the scope `known` will do for `scope`: repository:x:pull,push covers repository:x:pull."""
    name, _, actions = known.rpartition(":")
    wanted, _, needed = scope.rpartition(":")
    return name == wanted and set(needed.split(",")) <= set(actions.split(","))


def basic(username: str, password: str) -> str:
    """The Authorization header of RFC 7617, in UTF-8."""
    import base64

    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
