# SPDX-License-Identifier: Apache-2.0
"""search(): which repositories a registry has. Docker Hub and few others search; most can only list (_catalog)."""

from __future__ import annotations

from pyrun.rootfs import refs
from pyrun.rootfs.registry import credentials
from pyrun.rootfs.registry.config import DOCKER_HUB, Registries
from pyrun.runtime.engine.login import registry_of
from pyrun.runtime.errors import PyrunError, UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.rootfs.registry.host import Host

HUB_INDEX = "index.docker.io"  # answers searches for docker.io
MAX_ANSWER = 4 << 20  # bytes of one page of results
NO_SEARCH = (404, 405, 501)


class Hit(Record):
    """One repository that was found."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


def search(text: str, limit: int) -> list[Hit]:
    """At most `limit` repositories of Docker Hub, or of the registry that `text` begins with ("localhost:5000/py").

    Raises UsageError for an empty text, and PyrunError with the registry's reason.
    """
    from pyrun.rootfs.registry.transport import Registry

    domain, term = _split(text)
    endpoint = Registries.load().endpoints(domain, push=True)[-1]
    if endpoint.host == DOCKER_HUB:
        endpoint = endpoint.replace(host=HUB_INDEX)
    with Registry([endpoint], lambda _: credentials.lookup(domain), scopes=["registry:catalog:*"]) as registry:
        host = registry.hosts[-1]
        found = _by_search(host, term, limit)
        if found is None:
            found = _by_catalog(host, term, limit)
    return [hit if domain == refs.DEFAULT_DOMAIN else hit.replace(name=f"{domain}/{hit.name}") for hit in found]


def _split(text: str) -> tuple[str, str]:
    """(registry, term), by the same rule as in image names."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        domain, term = registry_of(first), rest
    else:
        domain, term = refs.DEFAULT_DOMAIN, text
    if not term.strip() and domain == refs.DEFAULT_DOMAIN:
        raise UsageError("search", "the term is empty")
    return domain, term


def _by_search(host: Host, term: str, limit: int) -> list[Hit] | None:
    """The old search call; None where a registry does not have it."""
    from urllib.parse import urlencode

    from pyrun.rootfs.layout import parse_json

    what = f"search of {host.name}"
    with host.get(f"/v1/search?{urlencode({'q': term, 'n': limit})}") as reply:
        if reply.status in NO_SEARCH and host.name != HUB_INDEX:
            return None
        if reply.status != 200:
            raise reply.refusal(what)
        value = parse_json(reply.document(MAX_ANSWER, what), what)
    results = value.get("results") if isinstance(value, dict) else None
    if not isinstance(results, list):
        raise PyrunError(what, "its answer has no list of results")
    return [_hit(item) for item in results[:limit] if isinstance(item, dict)]


def _hit(item: dict[str, Any]) -> Hit:
    stars = item.get("star_count")
    return Hit(
        _plain(item.get("name")),
        _plain(item.get("description")),
        stars if isinstance(stars, int) else 0,
        item.get("is_official") is True,
        item.get("is_automated") is True,
    )


def _by_catalog(host: Host, term: str, limit: int) -> list[Hit]:
    """The repositories whose name has the term in it (distribution: GET /v2/_catalog)."""
    from pyrun.rootfs.registry.transport import pages

    what = f"the list of repositories of {host.name}"
    found: list[Hit] = []
    for page in pages(host, "/v2/_catalog?n=1000", MAX_ANSWER, what):
        names = page.get("repositories") if isinstance(page, dict) else None
        if names is not None and not isinstance(names, list):
            raise PyrunError(what, "it is no list")
        found += [Hit(_plain(name)) for name in names or () if term.lower() in str(name).lower()]
        if len(found) >= limit:
            break
    return found[:limit]


def _plain(value: object) -> str:
    """A server's text on one line, with nothing that steers a terminal."""
    text = value if isinstance(value, str) else ""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
