# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes: fetched, verified, and the one for the wanted platform chosen.

What a document is must be said in one voice by its Content-Type, its mediaType and its fields: a document that can be
read as an index and as a manifest means one thing to one client and another to the next (CVE-2021-41190).
"""

from __future__ import annotations

import hashlib

from pyrun.rootfs import media, refs
from pyrun.rootfs.image import array, obj, string
from pyrun.rootfs.layout import parse_json
from pyrun.runtime.errors import NotFound, Unsupported, UsageError
from pyrun.runtime.record import Record

from .errors import RegistryError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from .host import Host

ACCEPT = ", ".join((*media.MANIFESTS, *media.INDEXES))
MAX_DEPTH = 3  # indexes in indexes
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
DIGEST_HEADER = "Docker-Content-Digest"

# uname's and other tools' words -> GOARCH and variant, as containerd/platforms normalises them
ARCHITECTURES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""), "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"), "i386": ("386", ""), "i686": ("386", ""),
}  # fmt: skip
WITH_VARIANTS = ("amd64", "arm", "arm64", "x86_64", "aarch64")  # no systems: "arm/v7" is "linux/arm/v7"
# The variants that run on one, best first; "" is an entry without a variant.
RUNS = {
    ("amd64", ""): ("", "v1"),
    ("amd64", "v1"): ("", "v1"),
    ("amd64", "v2"): ("v2", "", "v1"),
    ("amd64", "v3"): ("v3", "v2", "", "v1"),
    ("amd64", "v4"): ("v4", "v3", "v2", "", "v1"),
    ("arm64", ""): ("v8", ""),
    ("arm64", "v8"): ("v8", ""),
    ("arm", ""): ("v7", "", "v6", "v5"),
    ("arm", "v8"): ("v8", "v7", "", "v6", "v5"),
    ("arm", "v7"): ("v7", "", "v6", "v5"),
    ("arm", "v6"): ("v6", "v5", ""),
    ("arm", "v5"): ("v5",),
}


class Platform(Record):
    """os/architecture[/variant] in Go's words."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def rank(self, other: Platform) -> int | None:
        """How well an image for `other` fits this platform: 0 is best, None is not at all."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return None
        runs = RUNS.get((self.architecture, self.variant), (self.variant, ""))
        return runs.index(other.variant) if other.variant in runs else None


class Document(Record):
    """A manifest or an index as the registry has it: `data` hashes to `digest`."""

    digest: str
    media_type: str
    data: bytes
    value: Any

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests."""
        return self.media_type in media.INDEXES


def host_platform() -> Platform:
    """This machine's."""
    return Platform(*media.host_platform())


def parse_platform(text: str) -> Platform:
    """The platform in `text`: os/arch[/variant], or without the system. "" is this machine's. Raises UsageError."""
    if not text:
        return host_platform()
    parts = text.lower().split("/")
    usable = all(part and part.isascii() and part.replace("_", "").replace("-", "").isalnum() for part in parts)
    if not usable or len(parts) > 3:
        raise UsageError(f"platform '{text}'", "not a platform", hint="such as linux/amd64 or linux/arm/v7")
    if len(parts) == 2 and parts[0] in WITH_VARIANTS:  # arm/v7: the system is left out
        parts = ["linux", *parts]
    if len(parts) == 1:
        parts = ["linux", *parts] if parts[0] != "linux" else ["linux", host_platform().architecture]
    architecture, variant = ARCHITECTURES.get(parts[1], (parts[1], ""))
    return Platform(parts[0], architecture, parts[2] if len(parts) == 3 else variant)


def fetch(host: Host, repository: str, target: str, what: str, cap: int, *, accept: str = ACCEPT) -> Document:
    """The manifest or index `target` (a tag or a digest) of a repository at this host, its digest verified.

    what: the image, for messages. Raises NotFound, RegistryError, Unsupported, ArchiveError.
    """
    path = path_of(host, repository, "manifests", target)
    reply, data = host.document(path, cap, f"manifest of {what}", headers={"Accept": accept})
    if reply.status == 404:
        reply.close()
        raise NotFound(f"no such image '{what}'", f"the registry {host.name} does not have it")
    if reply.status != 200:
        raise reply.refusal(what)
    kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    claimed = reply.headers.get(DIGEST_HEADER, "")
    wanted = target if ":" in target else claimed if refs.is_digest(claimed) else ""
    if wanted:
        check_digest(data, wanted, f"manifest of {what}")
    digest = sha256(data)
    return read(data, digest, kind, what)


def fetch_config(host: Host, repository: str, digest: str, size: int) -> bytes:
    """An image's config, verified. Raises NotFound, RegistryError."""
    what = f"config {digest[:19]}"
    reply, data = host.document(path_of(host, repository, "blobs", digest), size, what)
    if reply.status == 404:
        reply.close()
        raise NotFound(what, f"the registry {host.name} does not have it")
    if reply.status != 200:
        raise reply.refusal(what)
    check_digest(data, digest, what)
    return data


def path_of(host: Host, repository: str, part: str, target: str) -> str:
    """/v2/<repository>/<part>/<target>, with the registry's name where a mirror serves several."""
    endpoint = host.endpoint
    space = f"?ns={endpoint.namespace}" if endpoint.mirror and endpoint.namespace else ""
    return f"/v2/{endpoint.repository(repository)}/{part}/{target}{space}"


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Raises RegistryError if `data` does not hash to `digest` (sha256 or sha512)."""
    algorithm = digest.partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if found != digest:
        raise RegistryError(
            what, f"its content has another digest: {found} and not {digest}", hint="the registry or a proxy is wrong"
        )


def read(data: bytes, digest: str, content_type: str, what: str) -> Document:
    """The document, if it is an index or an image manifest and nothing else.

    Raises Unsupported for schema 1, RegistryError for what is neither or both, ArchiveError for what is no JSON.
    """
    where = f"manifest of {what}"
    value = obj(parse_json(data, where), where)
    if content_type.startswith(SCHEMA1) or value.get("schemaVersion") == 1:
        raise Unsupported(
            f"image '{what}'",
            "it has a manifest of schema 1, which no registry should hand out any more",
            hint="pull and push it with a docker of the years 2017 to 2023: that converts it",
        )
    inner = string(value.get("mediaType"), f"{where}: mediaType")
    known = (*media.MANIFESTS, *media.INDEXES)
    if inner and content_type in known and inner != content_type:
        raise RegistryError(
            where, f"the registry calls it {printable(content_type)}, and it calls itself {printable(inner)}"
        )
    looks = "index" if "manifests" in value else "manifest" if "layers" in value or "config" in value else ""
    if looks == "index" and ("layers" in value or "config" in value):
        raise RegistryError(where, "it is an index and a manifest at once")
    kind = inner or content_type
    if kind not in known:
        if inner or not looks:
            raise RegistryError(where, f"'{printable(kind)}' is no image manifest", hint="is it an image?")
        kind = media.OCI_INDEX if looks == "index" else media.OCI_MANIFEST  # a file server that knows no media types
    if (kind in media.INDEXES) != (looks == "index"):
        raise RegistryError(where, f"it says it is {printable(kind)}, and its content is something else")
    return Document(digest, kind, data, value)


def check_image(document: Document, what: str) -> None:
    """Raises Unsupported, in clear words, for a manifest of something that is no image."""
    config = obj(document.value.get("config"), f"manifest of {what}: config")
    kind = string(config.get("mediaType"), f"manifest of {what}: config.mediaType")
    artifact = string(document.value.get("artifactType"), f"manifest of {what}: artifactType")
    if kind not in media.CONFIGS or (artifact and artifact not in media.CONFIGS):
        raise Unsupported(
            f"'{what}' is no image", f"it is an artifact of type {printable(artifact or kind) or 'unknown'}"
        )
    for number, item in enumerate(array(document.value.get("layers"), f"manifest of {what}: layers")):
        layer = string(
            obj(item, f"manifest of {what}: layers[{number}]").get("mediaType"), f"layers[{number}].mediaType"
        )
        if "encrypted" in layer:
            raise Unsupported(f"image '{what}'", "its layers are encrypted")
        if layer not in media.LAYERS:
            raise Unsupported(f"image '{what}'", f"its layers[{number}] is of type '{printable(layer)}', and no layer")


def choose(document: Document, platform: Platform, what: str, *, exact: bool) -> dict[str, Any]:
    """The descriptor in an index that is for this platform, the best variant first.

    exact: the platform was asked for; else a sole image is taken whatever it is for. Raises NotFound that lists what
    there is.
    """
    where = f"index of {what}"
    found: list[tuple[dict[str, Any], Platform | None]] = []
    for number, item in enumerate(array(document.value.get("manifests"), f"{where}: manifests")):
        descriptor = obj(item, f"{where}: manifests[{number}]")
        kind = string(descriptor.get("mediaType"), f"{where}: manifests[{number}].mediaType")
        named = _platform(descriptor, f"{where}: manifests[{number}]")
        if kind in (*media.MANIFESTS, *media.INDEXES) and (named is None or named.os != "unknown"):
            found.append((descriptor, named))  # "unknown": the attestations of buildx
    ranked = [
        (rank, position)
        for position, (_, named) in enumerate(found)
        if named is not None and (rank := platform.rank(named)) is not None
    ]
    if ranked:
        return _checked(found[min(ranked)[1]][0], where)
    if len(found) == 1 and (found[0][1] is None or not exact):
        return _checked(found[0][0], where)
    nested = [item for item, named in found if named is None and item.get("mediaType") in media.INDEXES]
    if len(nested) == 1:
        return _checked(nested[0], where)
    listed = ", ".join(sorted({str(named) for _, named in found if named is not None}))
    raise NotFound(
        f"no image '{what}' for {platform}",
        f"there is one for: {printable(listed)}" if listed else "its index lists no image at all",
        hint="--platform names another" if listed and not exact else "",
    )


def _platform(descriptor: dict[str, Any], where: str) -> Platform | None:
    if descriptor.get("platform") is None:
        return None
    value = obj(descriptor["platform"], f"{where}.platform")
    parts = (string(value.get(key), f"{where}.platform.{key}") for key in ("os", "architecture", "variant"))
    return Platform(*parts)


def _checked(descriptor: dict[str, Any], where: str) -> dict[str, Any]:
    digest, size = string(descriptor.get("digest"), f"{where}: digest"), descriptor.get("size")
    if not refs.is_digest(digest):
        raise RegistryError(where, f"not a digest: '{printable(digest)}'")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RegistryError(where, "not a size in bytes")
    return descriptor


def resolve(
    host: Host, repository: str, target: str, what: str, platform: Platform, cap: int, *, exact: bool
) -> tuple[Document, Document]:
    """(what `target` names, the manifest to use): the same document unless the first is an index.

    Raises as fetch() and choose() do.
    """
    top = document = fetch(host, repository, target, what, cap)
    seen: Sequence[str] = ()
    while document.is_index:
        descriptor = choose(document, platform, what, exact=exact)
        digest = str(descriptor["digest"])
        seen = (*seen, document.digest)
        if len(seen) > MAX_DEPTH or digest in seen:
            raise RegistryError(f"index of {what}", f"indexes nested more than {MAX_DEPTH} deep, or in a circle")
        if descriptor["size"] > cap:
            raise RegistryError(f"manifest of {what}", f"{descriptor['size']} bytes, more than the {cap} allowed")
        inner = fetch(host, repository, digest, what, cap)
        if len(inner.data) != descriptor["size"] or inner.media_type != descriptor["mediaType"]:
            raise RegistryError(f"manifest of {what}", "it has another size or type than the index says")
        document = inner
    check_image(document, what)
    return top, document


def sha256(data: bytes) -> str:
    """ "sha256:<hex>" of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def missing(digest: str) -> NoReturn:
    """Raises NotFound for a blob that should be in the store."""
    raise NotFound(f"image blob {digest}", "it is missing from the store", hint="load or pull the image again")
