# SPDX-License-Identifier: Apache-2.0
"""The hosts of one registry, mirrors first; lists that come page by page; what `login` asks.

with Registry(endpoints, credentials, scopes=["repository:library/busybox:pull"]) as registry:
    reply = registry.first(lambda host: host.get("/v2/library/busybox/manifests/latest"))
"""

from __future__ import annotations

from pyrun.runtime.errors import NotFound, PyrunError

from .errors import RegistryError, Unreachable
from .host import Host
from .sockets import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from .config import Endpoint
    from .credentials import Credentials

    T = TypeVar("T")

MIRROR_ATTEMPTS = 2  # there is somebody else to ask


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


def pages(host: Host, target: str, cap: int, what: str, limit: int = 10_000) -> Iterator[Any]:
    """The JSON documents of a list that goes on under its Link header (distribution spec, Listing Tags)."""
    from pyrun.rootfs.layout import parse_json

    seen: set[str] = set()
    while target:
        reply, data = host.document(target, cap, what)
        if reply.status != 200:
            raise reply.refusal(what)
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
