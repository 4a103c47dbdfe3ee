# SPDX-License-Identifier: Apache-2.0
"""--output: the result as files in a directory, as a tar of them, or as an image archive, instead of in the store.

local   files and directories belong to the caller, as with docker; devices and setuid bits, which would be the host's
        own then, are left out
tar     everything as it is in the image, owners and devices too
oci, docker   one archive (or, with tar=false, directory) that podman, skopeo and docker load
"""

from __future__ import annotations

import json
import os
import sys

from pyrun.rootfs import media, refs, tarwrite
from pyrun.rootfs.entry import DIR, FILE, HARDLINK, SYMLINK
from pyrun.rootfs.layered import Stack
from pyrun.rootfs.tree import TreeWriter
from pyrun.runtime import files
from pyrun.runtime.engine.humanize import SECOND
from pyrun.runtime.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from pyrun.rootfs.entry import Entry

    from .options import Output
    from .output import Packed
    from .stage import State
    from .work import Work

CHUNK = 1 << 18
HARMLESS = 0o1777  # permission bits without setuid and setgid


def _local(work: Work, state: State, _: Packed, output: Output) -> None:
    root = os.path.abspath(output.dest)
    os.makedirs(root, exist_ok=True)
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with (
            _stack(work, state) as stack,
            TreeWriter(root_fd, owner=(os.geteuid(), os.getegid())) as writer,
        ):
            for entry, data in _entries(work, stack):
                if entry.kind not in (FILE, DIR, SYMLINK, HARDLINK) or not entry.parts:
                    continue
                entry.mode &= HARMLESS
                entry.xattrs = None
                writer.add(entry, data)
    finally:
        os.close(root_fd)


def _tar(work: Work, state: State, _: Packed, output: Output) -> None:
    with _stack(work, state) as stack, _target(output.dest) as target:
        for chunk in tarwrite.tar(_entries(work, stack)):
            target.write(chunk)


def _stack(work: Work, state: State) -> Stack:
    work.secure(state.layers)
    # FROM scratch without any file is an empty directory
    dirs = work.dirs(layer.chain_id for layer in state.layers) or (files.private_dir(f"{work.scratch()}/empty"),)
    return Stack(list(reversed(dirs)))


def _entries(work: Work, stack: Stack) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    for entry, own in stack.walk(()):
        if work.epoch is not None:
            entry.mtime_ns = min(entry.mtime_ns, work.epoch * SECOND)
        entry.mtime_ns -= entry.mtime_ns % SECOND
        yield entry, stack.data(own) if entry.kind is FILE else iter(())


class _target:  # noqa: N801 - reads as a statement
    """A file that appears when it is whole, or standard output for "-"."""

    def __init__(self, dest: str) -> None:
        self._path = "" if dest == "-" else os.path.abspath(dest)

    def __enter__(self) -> BinaryIO:
        if not self._path:
            return sys.stdout.buffer
        self._file = open(f"{self._path}.{os.getpid()}.tmp", "xb")
        return self._file

    def __exit__(self, kind: object, cause: BaseException | None, tb: object) -> None:
        if not self._path:
            sys.stdout.buffer.flush()
            return
        self._file.close()
        if cause is None:
            os.rename(self._file.name, self._path)
        else:
            os.unlink(self._file.name)


# ── image archives ───────────────────────────────────────────────────────────────────────────────────────────────


def _archive(work: Work, state: State, packed: Packed, output: Output) -> None:
    work.secure(state.layers)
    if not output.tar:
        _layout(work, packed, os.path.abspath(output.dest))
        return
    with _target(output.dest) as target:
        for name, data in _small(packed):
            _member(target, name, len(data), iter((data,)))
        for digest, size in packed.layers():
            with open(_blob(work, digest), "rb") as file:
                _member(target, f"blobs/sha256/{digest[7:]}", size, iter(lambda: file.read(CHUNK), b""))
        target.write(tarwrite.END)


def _layout(work: Work, packed: Packed, root: str) -> None:
    os.makedirs(f"{root}/blobs/sha256", exist_ok=True)
    for digest, _ in packed.layers():
        path = f"{root}/blobs/sha256/{digest[7:]}"
        with open(_blob(work, digest), "rb") as read, _target(path) as write:
            while chunk := read.read(CHUNK):
                write.write(chunk)
    for name, data in _small(packed):
        files.write_atomic(f"{root}/{name}", data, mode=0o644)


def _small(packed: Packed) -> list[tuple[str, bytes]]:
    """The files of the archive but for the layers; index.json last, so that a directory is whole when it has it."""
    config, manifest = packed.config, packed.manifest
    descriptor = {"mediaType": media.OCI_MANIFEST, "digest": packed.digest, "size": len(manifest)}
    named = [
        {**descriptor, "annotations": {media.REF_NAME: name, media.CONTAINERD_NAME: name}} for name in packed.names
    ]
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": named or [descriptor]}
    docker = {
        "Config": f"blobs/sha256/{packed.image_id[7:]}",
        "RepoTags": [refs.familiar(name) for name in packed.names] or None,
        "Layers": [f"blobs/sha256/{digest[7:]}" for digest, _ in packed.layers(every=True)],
    }
    return [
        (f"blobs/sha256/{packed.image_id[7:]}", config),
        (f"blobs/sha256/{packed.digest[7:]}", manifest),
        ("manifest.json", json.dumps([docker]).encode()),
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", json.dumps(index).encode()),
    ]


def _blob(work: Work, digest: str) -> str:
    if not work.ingest.pin(digest):
        raise PyrunError("export", f"blob {digest} is gone")
    return work.ingest.blob(digest)


def _member(target: BinaryIO, name: str, size: int, chunks: Iterator[bytes]) -> None:
    from pyrun.rootfs.entry import Entry

    entry = Entry(tuple(name.encode().split(b"/")), FILE, 0o644, size=size)
    target.write(tarwrite.header(entry))
    for chunk in chunks:
        target.write(chunk)
    target.write(bytes(-size % 512))


EXPORTERS: dict[str, Callable[[Work, State, Packed, Output], None]] = {
    "local": _local,
    "tar": _tar,
    "oci": _archive,
    "docker": _archive,
}
