# SPDX-License-Identifier: Apache-2.0
"""Image references: `flask-app` is docker.io/library/flask-app:latest.

The grammar and the rules of normalisation are those of github.com/distribution/reference, which docker, podman and
containerd share:

    reference  name [":" tag] ["@" digest]          name       [domain "/"] component ("/" component)*
    component  [a-z0-9]+ joined by . _ __ or -…     tag        [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
    domain     host [":" port]                      digest     sha256: and 64 hex digits, or sha512: and 128

What comes before the first slash is a domain only if it has a dot, a colon or a capital letter, or is "localhost".
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
OFFICIAL = "library/"  # where Docker Hub keeps the images whose name has no slash
MAX_NAME = 255  # distribution/reference: RepositoryNameTotalLengthMax
SHORT_ID = 12  # hex digits in the ids that docker prints

_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdef")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TAG_FIRST = _LETTERS | {"_"}
_TAG = _TAG_FIRST | frozenset(".-")
_DIGEST_LENGTH = {"sha256": 64, "sha512": 128}


class Reference(Record):
    """A parsed reference; `tag` and `digest` are "" where the text had none. `str()` gives the full form."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """docker.io/library/flask-app"""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: flask-app, user/app, localhost:5000/app."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        rest = self.path.removeprefix(OFFICIAL)
        return self.path if "/" in rest else rest

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: flask-app:latest."""
        return self.familiar_name + self._suffix()

    def tagged(self) -> Reference:
        """The same reference with the tag "latest" if it has neither tag nor digest."""
        return self if self.tag or self.digest else self.replace(tag=DEFAULT_TAG)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._suffix()


def parse(text: str) -> Reference:
    """The reference in `text`, its domain filled in but no tag added. Raises UsageError that says what is wrong."""
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"'{digest}' is not a digest", "write sha256: and 64 hex digits after the @")
    name, tag = _split_tag(name)
    if tag is not None and not is_tag(tag):
        raise _invalid(text, f"bad tag '{tag}'", "a tag has at most 128 letters, digits, '_', '.' and '-'")
    if not name:
        raise _invalid(text, "the name is empty")
    if is_hex_id(name):
        raise _invalid(text, "64 hex digits are an image id, not a name")
    domain, path = _split_domain(name)
    if not _is_domain(domain):
        raise _invalid(text, f"bad registry name '{domain}'")
    if path != path.lower() and all(map(_is_component, path.lower().split("/"))):  # else that is not all that is wrong
        start = len(name) - len(path.removeprefix(OFFICIAL))
        hint = f"write '{text[:start]}{name[start:].lower()}{text[len(name) :]}'"
        raise _invalid(text, "the repository name must be lower case", hint)
    for component in path.split("/"):
        if not _is_component(component):
            raise _invalid(
                text, f"bad name component '{component}'", "use a-z and 0-9, joined by '.', '_', '__' or '-'"
            )
    if len(domain) + 1 + len(path) > MAX_NAME:
        raise _invalid(text[:40] + "…", f"the name is longer than {MAX_NAME} characters")
    return Reference(domain, path, tag or "", digest)


def normalise(text: str) -> Reference:
    """parse() with the tag "latest" where the text has neither tag nor digest: what a name on a command line means."""
    return parse(text).tagged()


def familiar(text: str) -> str:
    """The familiar form of a full reference; a text that is no reference comes back as it is."""
    try:
        return parse(text).familiar
    except UsageError:
        return text


def is_digest(text: str) -> bool:
    """Whether `text` is <algorithm>:<hex> of an algorithm that the OCI image spec registers, at its exact length."""
    algorithm, colon, digits = text.partition(":")
    return bool(colon) and len(digits) == _DIGEST_LENGTH.get(algorithm, -1) and _HEX.issuperset(digits)


def is_tag(text: str) -> bool:
    """Whether `text` can stand after the colon of a reference."""
    return 0 < len(text) <= 128 and text[0] in _TAG_FIRST and _TAG.issuperset(text)


def is_hex_id(text: str) -> bool:
    """Whether `text` is a full id (64 hex digits, no "sha256:")."""
    return len(text) == 64 and _HEX.issuperset(text)


def id_prefix(text: str) -> str:
    """The hex digits of `text` if it can be an id or the beginning of one, with or without "sha256:"; else ""."""
    digits = text.removeprefix("sha256:")
    return digits if 0 < len(digits) <= 64 and _HEX.issuperset(digits) else ""


def short_id(image_id: str) -> str:
    """The 12 hex digits that docker prints for "sha256:…"."""
    return image_id.removeprefix("sha256:")[:SHORT_ID]


def _split_tag(name: str) -> tuple[str, str | None]:
    """A colon after the last slash begins a tag; one before it belongs to a port."""
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail or (tail.endswith("]") and name.startswith("[")):
        return name, None
    return head, tail


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":  # what docker 1.0 called it; distribution/reference still maps it
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL + path
    return domain, path


def _is_domain(domain: str) -> bool:
    if domain.startswith("["):
        address, bracket, port = domain[1:].partition("]")
        host_ok = bool(bracket) and len(address) > 1 and (_HEX | set("ABCDEF:")).issuperset(address)
        return host_ok and (not port or (port[0] == ":" and _is_port(port[1:])))
    host, colon, port = domain.partition(":")
    if colon and not _is_port(port):
        return False
    parts = host.split(".")
    return all(p and (_LETTERS | {"-"}).issuperset(p) and p[0] != "-" and p[-1] != "-" for p in parts)


def _is_port(text: str) -> bool:
    return bool(text) and _DIGITS.issuperset(text)


def _is_component(text: str) -> bool:
    """Runs of a-z0-9 joined by one dot, one or two underscores, or any number of dashes."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    separator = ""
    for char in text:
        if char in _LOWER:
            if separator and separator not in (".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
        elif char in "._-":
            separator += char
        else:
            return False
    return True


def _invalid(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(f"invalid reference '{text}'", why, hint=hint)
