# SPDX-License-Identifier: Apache-2.0
"""Where a registry is reached, and how: mirrors, plain HTTP, certificates, and short names.

Read, the later ones over the earlier ones, entry by entry:

    /etc/containers/registries.conf and registries.conf.d/*.conf    podman's: containers-registries.conf(5), version 2
    ~/.config/containers/…                                          an ordinary user's, in place of those
    /etc/pyrun/registries.toml                                      pyrun's own (registries_toml.py has its keys)
    $XDG_CONFIG_HOME/pyrun/registries.toml                          an ordinary user's

$PYRUN_REGISTRIES names a file that is read instead of all of them, and $CONTAINERS_REGISTRIES_CONF one that stands for
podman's. Certificates are in certs.d/<host[:port]>/{*.crt,*.cert,*.key} below /etc/pyrun, /etc/containers and
/etc/docker, as docker and podman have it.
"""

from __future__ import annotations

import os

from pyrun.rootfs import refs
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

DOCKER_HUB = "registry-1.docker.io"  # the host that speaks the protocol for docker.io
HTTPS, HTTP, EITHER = ("https",), ("http",), ("https", "http")


class Endpoint(Record):
    """One host to ask for the images of a registry."""

    host: str  # "registry-1.docker.io", "localhost:5001"
    schemes: tuple[str, ...] = HTTPS  # tried in order
    verify: bool = True  # the certificate
    ca_files: tuple[str, ...] = ()  # trusted besides the system's
    client_certs: tuple[tuple[str, str], ...] = ()  # (certificate, key)
    mirror: bool = False
    namespace: str = ""  # the registry that a mirror stands for: `?ns=` of a pull-through cache
    prefix: str = ""  # of the repository's path there; no slash at its ends
    strip: str = ""  # what is taken off the front of the path before the prefix is put there

    def repository(self, path: str) -> str:
        """What the repository `path` of the registry is called at this host.

        >>> Endpoint("mirror.example", prefix="hub").repository("library/busybox")
        'hub/library/busybox'
        """
        if self.strip:
            path = path.removeprefix(self.strip).lstrip("/")
        return "/".join(part for part in (self.prefix, path) if part)


class Mirror(Record):
    """A mirror as a file names it."""

    location: str  # host[:port][/path]
    insecure: bool | None = None  # None: as its own entry has it
    plain: bool = False  # http:// was written: nothing else is tried
    only: str = ""  # "digest" or "tag": what it is asked for; "" is both


class Entry(Record):
    """What the files say about a registry, or about a part of it."""

    prefix: str  # "docker.io", "quay.io/team", "*.example.com"
    source: str = ""  # the file that says it
    location: str = ""  # where it really is: host[:port][/path]; "" is the prefix itself
    mirrors: tuple[Mirror, ...] = ()
    insecure: bool | None = None
    blocked: bool = False
    ca_files: tuple[str, ...] = ()
    client_certs: tuple[tuple[str, str], ...] = ()

    def fits(self, name: str) -> bool:
        """Whether `name`, a domain with or without a path, is the prefix or below it."""
        if self.prefix.startswith("*."):
            domain = name.partition("/")[0].rpartition(":")[0] or name.partition("/")[0]
            return domain.endswith(self.prefix[1:])
        return name == self.prefix or name.startswith(f"{self.prefix}/")


class Registries:
    """All that the files say. `load()` reads them; one object serves a command."""

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        aliases: Mapping[str, str] | None = None,
        certs_dirs: Iterable[str] | None = None,
    ) -> None:
        self.entries = {entry.prefix: entry for entry in entries}
        self.aliases = dict(aliases or {})
        self.certs_dirs = tuple(default_certs_dirs() if certs_dirs is None else certs_dirs)

    @classmethod
    def load(cls) -> Self:
        """What this user's files say. Raises PyrunError with file, line and key for one that is wrong."""
        from . import registries_toml

        found = registries_toml.read_all()
        return cls(found.entries.values(), found.aliases, (*found.certs_dirs, *default_certs_dirs()))

    def endpoints(
        self, domain: str, *, push: bool = False, path: str = "", by_digest: bool = False
    ) -> tuple[Endpoint, ...]:
        """The hosts to ask for `domain`'s repository `path`, mirrors first; for a push only the registry itself.

        Raises PyrunError when it is blocked, and for unusable certificates.
        """
        name = f"{domain}/{path}" if path else domain
        entry = self._entry(name)
        if entry.blocked:
            raise PyrunError(f"registry {domain}", "it is blocked", hint=f"{entry.source} says so")
        found = []
        for mirror in () if push else entry.mirrors:
            if mirror.only in ("", "digest" if by_digest else "tag"):
                found.append(self._mirror(mirror, domain, entry))
        host, prefix = domain, ""
        strip = ""
        if entry.location:
            host, _, prefix = entry.location.partition("/")
            strip = entry.prefix.partition("/")[2]
        return (*found, self._endpoint(host, insecure=entry.insecure, entry=entry, prefix=prefix, strip=strip))

    def short_name(self, text: str) -> str:
        """`text` with an alias at its front replaced by what it stands for; most texts come back as they are."""
        name, digest = text.partition("@")[::2]
        head, colon, tag = name.rpartition(":")
        name, tag = (head, tag) if colon and "/" not in tag else (name, "")
        full = self.aliases.get(name)
        if not full:
            return text
        return full + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")

    def _entry(self, name: str) -> Entry:
        """The entry with the longest prefix that fits."""
        fitting = [entry for entry in self.entries.values() if entry.fits(name)]
        return max(fitting, key=lambda entry: len(entry.prefix), default=Entry(name.partition("/")[0]))

    def _mirror(self, mirror: Mirror, domain: str, entry: Entry) -> Endpoint:
        host, _, prefix = mirror.location.partition("/")
        own = self._entry(mirror.location)
        insecure = own.insecure if mirror.insecure is None else mirror.insecure
        strip = entry.prefix.partition("/")[2]
        endpoint = self._endpoint(host, insecure=insecure, entry=own, prefix=prefix, strip=strip)
        if mirror.plain:
            endpoint = endpoint.replace(schemes=HTTP)
        return endpoint.replace(mirror=True, namespace=domain)

    def _endpoint(self, host: str, *, insecure: bool | None, entry: Entry, prefix: str, strip: str) -> Endpoint:
        ca_files, client_certs = self._certificates(host)
        ca_files = (*entry.ca_files, *ca_files)
        client_certs = (*entry.client_certs, *client_certs)
        if insecure is None:
            # docker: what is on this very machine may speak plain HTTP; but not where a CA says how to know it
            insecure = is_loopback(host) and not ca_files
        return Endpoint(
            DOCKER_HUB if host == refs.DEFAULT_DOMAIN else host,
            EITHER if insecure else HTTPS,
            not insecure,
            ca_files,
            client_certs,
            prefix=prefix.strip("/"),
            strip=strip,
        )

    def _certificates(self, host: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """(CA files, client certificates) of a host in the certs.d directories."""
        names = (host, DOCKER_HUB) if host == refs.DEFAULT_DOMAIN else (host,)
        authorities: list[str] = []
        pairs: list[tuple[str, str]] = []
        for directory in (f"{above}/{name}" for above in self.certs_dirs for name in names):
            try:
                files = sorted(os.listdir(directory))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise PyrunError(f"certificates of {host}", f"{(error.strerror or '').lower()}: {directory}") from None
            authorities += [f"{directory}/{name}" for name in files if name.endswith(".crt")]
            pairs += _pairs(directory, files)
        return tuple(authorities), tuple(pairs)


def is_loopback(host: str) -> bool:
    """Whether host[:port] is this machine by its name: localhost, 127.0.0.0/8, [::1]."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in ("localhost", "::1"):
        return True
    parts = name.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isascii() and part.isdecimal() for part in parts)


def config_home() -> str:
    """$XDG_CONFIG_HOME, by default ~/.config."""
    return os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")


def default_certs_dirs() -> tuple[str, ...]:
    """The certs.d directories of this user."""
    system = tuple(f"/etc/{name}/certs.d" for name in ("pyrun", "containers", "docker"))
    if os.geteuid() == 0:
        return system
    return (*(f"{config_home()}/{name}/certs.d" for name in ("pyrun", "containers", "docker")), *system)


def _pairs(directory: str, files: list[str]) -> list[tuple[str, str]]:
    """Client certificates with their keys. Raises PyrunError for one without the other."""
    pairs = []
    for name in files:
        stem, dot, kind = name.rpartition(".")
        other = {"cert": "key", "key": "cert"}.get(kind if dot else "")
        if other is None:
            continue
        if f"{stem}.{other}" not in files:
            what = "its key" if kind == "cert" else "its certificate"
            hint = "the certificate of an authority ends in .crt, a client's in .cert with its key in .key"
            raise PyrunError(f"{directory}/{name}", f"{what} {stem}.{other} is missing", hint=hint)
        if kind == "cert":
            pairs.append((f"{directory}/{name}", f"{directory}/{stem}.key"))
    return pairs
