# SPDX-License-Identifier: Apache-2.0
"""The build cache: which layer a step made of which inputs.

A step's key is the sha256 of everything that its result depends on: the chain id of the layers below (so a changed base
image changes every key above it), the instruction in a canonical form, digests of the files it takes, the variables it
sees. Equal keys mean equal inputs, whatever Dockerfile or stage they stand in. What only changes the image's config is
computed each time and has no key.

A record is `store.keep("build-<key>", …)`: one file, written when the layer and its blob are on the disk, which keeps
both from being collected. A record whose layer or blob is gone is no record.
"""

from __future__ import annotations

import hashlib
import json

from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from pyrun.rootfs.keeping import Keep
    from pyrun.rootfs.layout import Ingest
    from pyrun.rootfs.store import ImageStore

PREFIX = "build-"
FORMAT = 1  # goes into every key: a pyrun that makes layers otherwise starts with an empty cache


class BuiltLayer(Record):
    """One layer of a stage: of the base image, or made by a step. `created` is RFC 3339, "" for a base image's."""

    digest: str
    size: int
    media_type: str
    diff_id: str
    chain_id: str
    created: str = ""


def key_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """64 hex digits for a step's inputs: JSON values only, in any order of keys."""
    text = json.dumps([FORMAT, kind, inputs], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Cache:
    """The records of one data root, for one build. Safe to use from several threads."""

    def __init__(self, store: ImageStore, *, read: bool = True) -> None:
        self.store = store
        self.read = read
        # key -> (chain, kind, description): what this build stands on, for --cache-to
        self.used: dict[str, tuple[tuple[BuiltLayer, ...], str, str]] = {}
        #: where to look for what is not here (--cache-from)
        self.elsewhere: list[Callable[[str, Sequence[BuiltLayer]], BuiltLayer | None]] = []

    def find(self, key: str, below: Sequence[BuiltLayer], *, read: bool = True) -> BuiltLayer | None:
        """The layer that the step with this key made on top of `below`; None when it has to be made.

        `read=False`: not even looked for (--no-cache, --no-cache-filter).
        """
        if not (read and self.read):
            return None
        record = self.store.kept_one(PREFIX + key)
        layer = None if record is None else layer_of(record.data)
        if record is not None and layer is not None:
            data = record.data
            self.used[key] = (*below, layer), str(data.get("kind", "")), str(data.get("description", ""))
            return layer
        for look in self.elsewhere:
            layer = look(key, below)
            if layer is not None:
                return layer
        return None

    def save(
        self,
        ingest: Ingest | None,
        key: str,
        below: Sequence[BuiltLayer],
        layer: BuiltLayer,
        what: str,
        created_by: str,
    ) -> None:
        """Writes down what a step made. `ingest` holds the layer's blob; None: the blob is in the store already.

        what: "regular", "source.local" or "exec.cachemount" as docker's `du` has them. Raises OSError.
        """
        chain = (*below, layer)
        self.store.keep(
            ingest,
            PREFIX + key,
            layers=[one.chain_id for one in chain],
            blobs=[layer.digest],
            data={
                "layer": layer.asdict(),
                "parent": below[-1].chain_id if below else "",
                "kind": what,
                "created": layer.created,
                "description": readable(created_by[:1024]),
            },
        )
        self.used[key] = chain, what, created_by


def readable(text: str) -> str:
    """`text` with U+FFFD for what was no UTF-8 in a Dockerfile: JSON cannot hold it. Go does the same."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def records(store: ImageStore) -> list[Keep]:
    """Every record of the build cache."""
    return list(store.kept(PREFIX))


def layer_of(data: Mapping[str, Any]) -> BuiltLayer | None:
    """The layer in a record's data; None for one that another version wrote."""
    try:
        found = {name: data["layer"][name] for name in BuiltLayer._fields}
    except (KeyError, TypeError):
        return None
    size = found.pop("size")
    if not isinstance(size, int) or not all(isinstance(value, str) for value in found.values()):
        return None
    return BuiltLayer(size=size, **found)
