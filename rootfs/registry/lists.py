# SPDX-License-Identifier: Apache-2.0
"""Manifest lists made by hand: one name for the images of several platforms, put together here and pushed as an index.

The lists in the making are kept beside docker's config.json and in docker's own form, one directory for each list and
one file for each image in it, so that docker can go on with what pyrun began:

    $DOCKER_CONFIG/manifests/localhost-5000_app-1/localhost-5000_app-amd64
"""

from __future__ import annotations

import json
import os

from pyrun.rootfs import media, refs
from pyrun.rootfs.image import obj, string
from pyrun.rootfs.layout import parse_json
from pyrun.rootfs.limits import DEFAULT_LIMITS
from pyrun.runtime import files
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.record import Record

from . import credentials, manifests
from .manifests import Document, Platform
from .pull import credentials_of
from .transport import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .config import Registries
    from .host import Host

CAP = DEFAULT_LIMITS.max_json
PARSED = {media.OCI_MANIFEST: "OCIManifest", media.DOCKER_MANIFEST: "SchemaV2Manifest"}  # docker's field of each


class Member(Record):
    """One image of a list."""

    ref: str  # the full name it was taken from
    media_type: str
    digest: str
    data: bytes  # the manifest as it is in the registry
    platform: dict[str, Any]  # os, architecture, variant, os.version, os.features

    def descriptor(self) -> dict[str, Any]:
        """Its entry in the index."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.data),
            "platform": self.platform,
        }

    def to_json(self) -> dict[str, Any]:
        """docker's form: what `manifest inspect -v` prints, too."""
        import base64

        return {
            "Ref": self.ref,
            "Descriptor": self.descriptor(),
            "Raw": base64.b64encode(self.data).decode(),
            PARSED[self.media_type]: json.loads(self.data),
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Member:
        """What to_json() or docker wrote. Raises PyrunError for what is not that."""
        import base64

        try:
            found = value["Descriptor"]
            data = base64.b64decode(value["Raw"], validate=True)
            member = cls(value["Ref"], found["mediaType"], found["digest"], data, dict(found.get("platform") or {}))
            refs.parse(member.ref)
        except (KeyError, TypeError, ValueError, UsageError):
            raise PyrunError(where, "it is no entry of a manifest list", hint="remove it") from None
        if member.media_type not in PARSED:
            raise PyrunError(where, f"'{member.media_type}' is no image manifest", hint="remove it")
        manifests.check_digest(data, member.digest, where)
        return member


# ---- the lists in the making -----------------------------------------------------------------------------------------


def directory() -> str:
    """Where they are."""
    return f"{os.path.dirname(credentials.config_file())}/manifests"


def load(name: refs.Reference) -> list[Member]:
    """The members of a list, by name; [] if there is no such list. Raises PyrunError for a damaged one."""
    place = _place(name)
    try:
        entries = sorted(os.listdir(place))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for entry in entries:
        if entry.endswith(".tmp"):
            continue
        try:
            value = files.read_json(f"{place}/{entry}")
        except ValueError:
            raise PyrunError(f"{place}/{entry}", "it is no JSON", hint="remove it") from None
        found.append(Member.from_json(value, f"{place}/{entry}"))
    return found


def save(name: refs.Reference, member: Member) -> None:
    """Adds a member to a list, or replaces it; the list is made if there is none."""
    files.private_dir(_place(name))
    files.write_json(f"{_place(name)}/{_safe(member.ref)}", member.to_json())


def remove(name: refs.Reference) -> None:
    """Removes a list. Raises NotFound."""
    import shutil

    if not os.path.isdir(_place(name)):
        raise NotFound(f"no such manifest list '{name.familiar}'", hint="pyrun manifest create makes one")
    shutil.rmtree(_place(name))


def _place(name: refs.Reference) -> str:
    return f"{directory()}/{_safe(str(name))}"


def _safe(name: str) -> str:
    """docker's file name for a reference; a reference has no slash at its front and no `..` component."""
    return name.replace(":", "-").replace("/", "_")


# ---- the registry ----------------------------------------------------------------------------------------------------


def document(reference: refs.Reference, registries: Registries) -> Document:
    """The manifest or index that a name stands for in its registry, as it is there."""
    with _registry(reference, registries) as registry:
        return registry.first(lambda host: _fetch(host, reference))


def member(reference: refs.Reference, registries: Registries) -> Member:
    """One image for a list, its platform as its config has it. Raises UsageError for an index."""
    with _registry(reference, registries) as registry:
        return registry.first(lambda host: _member(host, reference))


def members(reference: refs.Reference, index: Document, registries: Registries) -> list[Member]:
    """The images of an index in a registry, for `inspect -v`; what is neither is left out."""
    found = []
    with _registry(reference, registries) as registry:
        for item in index.value.get("manifests") or ():
            if isinstance(item, dict) and item.get("mediaType") in PARSED and refs.is_digest(str(item.get("digest"))):
                one = reference.replace(tag="", digest=str(item["digest"]))
                read = registry.first(lambda host, one=one: _fetch(host, one))  # type: ignore[misc]
                platform = obj(item.get("platform") or {}, "platform")
                found.append(Member(str(one), read.media_type, read.digest, read.data, platform))
    return found


def index_of(found: list[Member]) -> tuple[bytes, str]:
    """(the index, its media type): docker's type where all its manifests are docker's, else OCI's."""
    docker = all(one.media_type == media.DOCKER_MANIFEST for one in found)
    kind = media.DOCKER_INDEX if docker else media.OCI_INDEX
    value = {"schemaVersion": 2, "mediaType": kind, "manifests": [one.descriptor() for one in found]}
    return json.dumps(value, indent=3, ensure_ascii=False).encode(), kind


def _registry(reference: refs.Reference, registries: Registries) -> Registry:
    endpoints = registries.endpoints(reference.domain, path=reference.path, by_digest=bool(reference.digest))
    scopes = [f"repository:{endpoints[-1].repository(reference.path)}:pull"]
    return Registry(endpoints, credentials_of(reference), scopes=scopes)


def _fetch(host: Host, reference: refs.Reference) -> Document:
    return manifests.fetch(host, reference.path, reference.digest or reference.tag, reference.familiar, CAP)


def _member(host: Host, reference: refs.Reference) -> Member:
    found = _fetch(host, reference)
    what = reference.familiar
    if found.is_index:
        hint = f"name the images in it by their digests: pyrun manifest inspect {what}"
        raise UsageError(f"'{what}' is a manifest list itself", hint=hint)
    manifests.check_image(found, what)
    config = obj(found.value.get("config"), f"manifest of {what}: config")
    digest = string(config.get("digest"), f"manifest of {what}: config.digest")
    if not refs.is_digest(digest):
        raise PyrunError(f"manifest of {what}", "its config has no digest")
    with host.get(manifests.path_of(host, reference.path, "blobs", digest)) as reply:
        if reply.status != 200:
            raise reply.refusal(f"config of {what}")
        data = reply.document(CAP, f"config of {what}")
    manifests.check_digest(data, digest, f"config of {what}")
    value = obj(parse_json(data, f"config of {what}"), f"config of {what}")
    keys = ("architecture", "os", "os.version", "os.features", "variant")
    platform = {key: value[key] for key in keys if isinstance(value.get(key), (str, list)) and value[key]}
    return Member(str(reference), found.media_type, found.digest, found.data, platform)


def check_platforms(found: list[Member]) -> None:
    """Every image of a list must say what it is for. Raises UsageError."""
    for one in found:
        if not one.platform.get("os") or not one.platform.get("architecture"):
            hint = "pyrun manifest annotate --os OS --arch ARCHITECTURE LIST IMAGE"
            raise UsageError(f"image {refs.familiar(one.ref)}", "its platform is not known", hint=hint)


def platform_of(one: Member) -> Platform:
    """Its platform for showing."""
    return Platform(*(str(one.platform.get(key, "")) for key in ("os", "architecture", "variant")))
