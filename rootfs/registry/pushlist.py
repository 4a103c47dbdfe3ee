# SPDX-License-Identifier: Apache-2.0
"""`manifest push`: the images of a list into the repository of the list, then the index under its tag.

A blob that is not there yet is mounted from the repository where the image is, or, where that cannot be, copied through
this machine, without touching its disk.
"""

from __future__ import annotations

from pyrun.rootfs import refs
from pyrun.rootfs.image import array, obj, string
from pyrun.rootfs.layout import parse_json
from pyrun.runtime.errors import PyrunError

from . import lists, manifests
from .errors import RegistryError
from .progress import Progress, key_of
from .pull import SILENT, credentials_of
from .sockets import CHUNK
from .transport import Registry
from .upload import BINARY, Blobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .config import Registries
    from .host import Host
    from .lists import Member


def push_list(
    target: refs.Reference, found: list[Member], *, registries: Registries, progress: Progress = SILENT
) -> str:
    """Pushes the images of a list and the list itself; gives its digest. progress gets docker's lines.

    Raises UsageError when an image's platform is not known, NotFound, Unreachable, AccessDenied, RegistryError.
    """
    lists.check_platforms(found)
    endpoint = registries.endpoints(target.domain, push=True, path=target.path)[-1]
    sources = {refs.parse(one.ref).path for one in found if refs.parse(one.ref).domain == target.domain}
    scopes = [f"repository:{endpoint.repository(target.path)}:pull,push"]
    scopes += [f"repository:{endpoint.repository(path)}:pull" for path in sorted(sources - {target.path})]
    with Registry([endpoint], credentials_of(target), scopes=scopes) as registry:
        host = registry.hosts[0]
        for one in found:
            source = refs.parse(one.ref)
            if source.repository != target.repository:
                _bring(host, target, source, one, registries, progress)
            _put(host, target, one.digest, one.data, one.media_type)
            progress.line(f"Pushed ref {target.repository}@{one.digest} with digest: {one.digest}")
        data, kind = lists.index_of(found)
        _put(host, target, target.tag, data, kind)
    return manifests.sha256(data)


def _bring(
    host: Host, target: refs.Reference, source: refs.Reference, one: Member, registries: Registries, progress: Progress
) -> None:
    """The blobs of an image into the repository of the list."""
    blobs = Blobs(host, target.path, progress)
    endpoints = registries.endpoints(source.domain, path=source.path, by_digest=True)
    scopes = [f"repository:{endpoints[-1].repository(source.path)}:pull"]
    neighbour = host.endpoint.repository(source.path) if source.domain == target.domain else ""
    with Registry(endpoints, credentials_of(source), scopes=scopes) as registry:
        for digest in _blobs(one):
            if not blobs.has(digest) and not (neighbour and _mount(host, blobs, neighbour, digest)):
                _copy(registry, source, blobs, digest)


def _blobs(one: Member) -> Iterator[str]:
    """Config and layers, but for those that must be fetched from elsewhere (docker's foreign layers)."""
    where = f"manifest of {refs.familiar(one.ref)}"
    value = obj(parse_json(one.data, where), where)
    for item in (value.get("config"), *array(value.get("layers"), f"{where}: layers")):
        descriptor = obj(item, where)
        digest = string(descriptor.get("digest"), f"{where}: digest")
        if not refs.is_digest(digest):
            raise RegistryError(where, "a blob has no digest")
        if not descriptor.get("urls"):
            yield digest


def _mount(host: Host, blobs: Blobs, neighbour: str, digest: str) -> bool:
    from urllib.parse import urlencode

    query = urlencode({"mount": digest, "from": neighbour})
    try:
        with host.post(f"{blobs.path}/uploads/?{query}", headers=BINARY) as reply:
            return reply.status == 201
    except PyrunError:
        return False  # it can still be copied


def _copy(registry: Registry, source: refs.Reference, blobs: Blobs, digest: str) -> None:
    def chunks() -> Iterator[bytes]:
        host = registry.hosts[-1]
        with host.get(manifests.path_of(host, source.path, "blobs", digest)) as reply:
            if reply.status != 200:
                raise reply.refusal(f"blob {digest} of {source.familiar}")
            while chunk := reply.read(CHUNK):
                yield chunk

    sent, _ = blobs.stream(key_of(digest), chunks)
    if sent != digest:
        raise RegistryError(f"blob {digest} of {source.familiar}", f"its content has another digest: {sent}")


def _put(host: Host, target: refs.Reference, name: str, data: bytes, kind: str) -> None:
    path = manifests.path_of(host, target.path, "manifests", name)
    with host.put(path, data, headers={"Content-Type": kind}) as reply:
        if reply.status not in (200, 201, 202):
            raise reply.refusal(f"push {target.familiar}")
