# SPDX-License-Identifier: Apache-2.0
"""login() and logout(): credentials are tried at the registry before they are kept."""

from __future__ import annotations

from pyrun.rootfs import refs
from pyrun.rootfs.registry import credentials as store
from pyrun.rootfs.registry.config import Registries
from pyrun.rootfs.registry.credentials import HUB_NAMES, Credentials
from pyrun.runtime.errors import UsageError

__all__ = ["Credentials", "known", "login", "logout", "registry_of", "shown"]


def registry_of(text: str) -> str:
    """The registry that an argument of login means: a host, an address with https:// and a path, or "" for docker.io.

    Raises UsageError for what is none.
    """
    host = (text.partition("://")[2] or text).partition("/")[0]
    if not text or host in HUB_NAMES:
        return refs.DEFAULT_DOMAIN
    try:
        refs.parse(f"{host if ':' in host or '.' in host or host.startswith('[') else f'{host}:443'}/x")
    except UsageError:
        raise UsageError(f"registry '{text}'", "not a host[:port]", hint="such as localhost:5000") from None
    return host


def shown(domain: str) -> str:
    """What docker calls the registry in its messages."""
    return store.HUB_KEY if domain == refs.DEFAULT_DOMAIN else domain


def known(domain: str) -> Credentials | None:
    """What is kept for a registry already."""
    return store.lookup(domain)


def login(domain: str, credentials: Credentials, *, registries: Registries | None = None, keep: bool = True) -> str:
    """Tries the credentials and keeps them; gives where: a file, or the name of a credential helper.

    Raises PyrunError when the registry refuses them or cannot be reached; nothing is kept then.
    """
    from pyrun.rootfs.registry.transport import ping

    endpoint = (registries or Registries.load()).endpoints(domain, push=True)[-1]
    ping(endpoint, credentials)
    return store.store(domain, credentials) if keep else ""


def logout(domain: str) -> bool:
    """Forgets the credentials of a registry; whether there were any."""
    return store.erase(domain)
