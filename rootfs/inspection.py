# SPDX-License-Identifier: Apache-2.0
"""An image in docker's words: the objects of `image inspect` and the rows of `history`."""

from __future__ import annotations

import os

from . import media, refs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .image import Image
    from .store import ImageStore

MISSING = "<missing>"  # docker's word for an id that only the builder had


def inspect(store: ImageStore, image: Image) -> dict[str, Any]:
    """The object that docker's `image inspect` prints, with what pyrun knows; empty fields as docker leaves them."""
    config = dict(image.raw_config.get("config") or {})
    for name, empty in (
        ("Env", None),
        ("Cmd", None),
        ("Entrypoint", None),
        ("Labels", None),
        ("User", ""),
        ("WorkingDir", ""),
        ("ExposedPorts", None),
        ("Volumes", None),
        ("OnBuild", None),
    ):
        config.setdefault(name, empty)
    lowers = [store.layers.fs(chain_id) for chain_id in reversed(image.chain_ids)]
    found = {
        "Id": image.id,
        "RepoTags": list(image.names),
        "RepoDigests": [refs.familiar(text) for text in image.repo_digests],
        "Parent": "",
        "Comment": image.history[-1].comment if image.history else "",
        "Created": image.created,
        "DockerVersion": str(image.raw_config.get("docker_version") or ""),
        "Author": image.author,
        "Config": config,
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay", "Data": {"LowerDir": ":".join(lowers)}},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},  # docker's word for never: nobody writes it down here
        "Descriptor": {
            "mediaType": image.raw_manifest.get("mediaType") or media.OCI_MANIFEST,
            "digest": image.digest,
            "size": _manifest_size(store, image),
        },
    }
    if image.variant:
        found["Variant"] = image.variant
    if image.raw_config.get("os.version"):
        found["OsVersion"] = str(image.raw_config["os.version"])
    return found


def _manifest_size(store: ImageStore, image: Image) -> int:
    try:
        return os.stat(store.layout.blob(image.digest)).st_size
    except FileNotFoundError:
        return 0  # removed in this moment


def history(store: ImageStore, image: Image) -> list[dict[str, Any]]:
    """Newest first: id ("<missing>" but for the first), created (RFC 3339), created_by, size (bytes), comment, tags.

    The layers of an image without history come as rows without words.
    """
    rows: list[dict[str, Any]] = []
    layers = iter(image.layers)
    for item in image.history:
        layer = None if item.empty_layer else next(layers, None)
        size = 0 if layer is None else _size(store, layer.chain_id, layer.size)
        rows.append(_row(item.created, item.created_by, size, item.comment))
    rows += [_row(image.created, "", _size(store, layer.chain_id, layer.size), "") for layer in layers]
    rows.reverse()
    if rows:
        rows[0]["id"] = image.id
        rows[0]["tags"] = list(image.names)
    return rows


def _row(created: str, created_by: str, size: int, comment: str) -> dict[str, Any]:
    return {"id": MISSING, "created": created, "created_by": created_by, "size": size, "comment": comment, "tags": []}


def _size(store: ImageStore, chain_id: str, packed: int) -> int:
    known = store.layers.size(chain_id)
    return packed if known is None else known
