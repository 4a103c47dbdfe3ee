# SPDX-License-Identifier: Apache-2.0
"""--build-context NAME=oci-layout://DIRECTORY[:TAG|@DIGEST]: an image of an OCI layout on the disk, in the store."""

from __future__ import annotations

import os

from pyrun.rootfs import media, refs
from pyrun.rootfs.inroot import reopen_regular
from pyrun.rootfs.layout import parse_index
from pyrun.runtime.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from pyrun.rootfs.store import ImageStore


def load(store: ImageStore, where: str) -> str:
    """Adds the image to the store, without a name, and gives its id. Raises NotFound, ArchiveError, OSError."""
    directory, digest, tag = _split(where)
    try:
        with open(f"{directory}/index.json", "rb") as file:
            index = parse_index(file.read(), f"{directory}/index.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"oci-layout://{where}", f"{directory} is no OCI image layout") from None
    for descriptor in index:
        name = str((descriptor.get("annotations") or {}).get(media.REF_NAME, ""))
        fits = descriptor["digest"] == digest if digest else not tag or name == tag or name.endswith(f":{tag}")
        if fits:
            return _add(store, directory, descriptor["digest"])
    raise NotFound(f"oci-layout://{where}", "the layout has no such image")


def _split(where: str) -> tuple[str, str, str]:
    """(directory, digest, tag)"""
    path, at, digest = where.partition("@")
    if at:
        return path, digest, ""
    head, colon, tail = where.rpartition(":")
    if colon and refs.is_tag(tail) and not os.path.isdir(where):
        return head, "", tail
    return where, "", ""


def _add(store: ImageStore, directory: str, digest: str) -> str:
    from pyrun.rootfs import image as images
    from pyrun.rootfs.layout import load_json
    from pyrun.rootfs.loading import pick_platform

    def blob(wanted: str) -> BinaryIO:
        return _regular(f"{directory}/blobs/sha256/{wanted[7:]}")

    with store.ingest() as ingest:
        while True:
            with blob(digest) as file:
                data = file.read(store.limits.max_json + 1)
            document = load_json(data, digest, store.limits)
            if not isinstance(document, dict) or "manifests" not in document:
                break
            # checked once more: a digest becomes part of a path
            digest = str(pick_platform(parse_index(data, f"index {digest}"))["digest"])
        ingest.add([data], digest=digest)
        config, layers = images.manifest_blobs(document)
        for wanted, _, _ in (config, *layers):
            if not ingest.pin(wanted):
                with blob(wanted) as file:
                    ingest.add(iter(lambda: file.read(1 << 18), b""), digest=wanted)
        return store.add(ingest, digest, exact=False).id


def _regular(path: str) -> BinaryIO:
    """A file for reading; what is none, a FIFO that would hold the build or a device, is never opened."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return open(reopen_regular(handle, path), "rb")
    finally:
        os.close(handle)
