# SPDX-License-Identifier: Apache-2.0
"""Archives for tests: tars with anything in them, layers, and images around them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def member(name: str, kind: str = "file", data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry: fields are TarInfo's (mode, uid, gid, mtime, linkname, devmajor, devminor, pax_headers …)."""
    info = tarfile.TarInfo(name)
    info.type = KINDS.get(kind, kind.encode())
    info.size = len(data)
    info.mode = 0o755 if kind == "dir" else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], form: Any = tarfile.PAX_FORMAT, end: bool = True) -> bytes:
    """The archive of the members, in order, duplicates and all."""
    out = io.BytesIO()
    for info, data in members:
        out.write(info.tobuf(form, "utf-8", "surrogateescape"))
        out.write(data + bytes(-len(data) % 512))
    if end:
        out.write(bytes(1024))
    return out.getvalue()


def sha256(data: bytes) -> str:
    """ "sha256:<hex>" of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(layers: list[bytes], **runtime: Any) -> bytes:
    """An image config for these uncompressed layers; `runtime` is its `config` object (Cmd, Env …)."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": runtime,
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": f"step {n}"} for n in range(len(layers))],
    }
    return json.dumps(document).encode()


def docker_archive(
    layers: list[bytes], tags: list[str] | None, *, image_config: bytes | None = None, compressed: bool = False
) -> bytes:
    """What `docker save` wrote before version 25."""
    document = config(layers) if image_config is None else image_config
    members = []
    names = []
    for number, layer in enumerate(layers):
        names.append(f"layer{number}/layer.tar")
        members.append(member(names[-1], data=gzip.compress(layer, 1, mtime=0) if compressed else layer))
    members.append(member("config.json", data=document))
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": names}]
    members.append(member("manifest.json", data=json.dumps(manifest).encode()))
    return tar(*members)


class Oci:
    """An OCI image layout being put together: blobs by digest, descriptors in its index."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Adds a blob; its descriptor."""
        self.blobs[sha256(data)] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def manifest(self, layers: list[bytes], image_config: bytes | None = None, *, gz: bool = False) -> dict[str, Any]:
        """Adds an image's blobs; the descriptor of its manifest, which is not in the index yet."""
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if gz else "")
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(
                config(layers) if image_config is None else image_config, "application/vnd.oci.image.config.v1+json"
            ),
            "layers": [self.blob(gzip.compress(data, 1, mtime=0) if gz else data, kind) for data in layers],
        }
        return self.blob(json.dumps(document).encode(), document["mediaType"])  # type: ignore[arg-type]

    def name(self, descriptor: dict[str, Any], name: str) -> None:
        """Puts a descriptor into the index, under a name if there is one."""
        notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        self.manifests.append({**descriptor, **notes})

    def files(self) -> dict[str, bytes]:
        """The layout's files by path."""
        index = {"schemaVersion": 2, "manifests": self.manifests}
        blobs = {f"blobs/sha256/{digest[7:]}": data for digest, data in self.blobs.items()}
        return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}

    def archive(self) -> bytes:
        """The layout as an oci-archive."""
        return tar(*(member(path, data=data) for path, data in self.files().items()))
