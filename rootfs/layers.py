# SPDX-License-Identifier: Apache-2.0
"""Unpacked layers, each once, shared by all images: layers/<chain-id hex>/{fs,done}.

    <hex>/fs      the directory that overlayfs mounts
    <hex>/done    what was unpacked (JSON), written before the rename
    <hex>.tmp/    being unpacked, new-<hex>.tmp/ being made: flock(2)ed by who does it (claims.py)
    <hex>.del/    being removed                        garbage   a layer was made that nothing may ever name
    <hex>.note    the same, flock(2)ed by who made the layer and will name it
    lock          shared: somebody is about to use layers (hold); exclusive: somebody wants to remove some

A layer becomes visible by the rename of its directory, after its digests were checked and its file system was synced.
"""

from __future__ import annotations

import fcntl
import os
import struct

from pyrun.runtime import files
from pyrun.runtime.events import step

from . import unpack as unpacking
from .claims import Claim, Note, Scratch, is_held, read_done, remove_unless_locked
from .inroot import remove_path
from .limits import DEFAULT_LIMITS, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import BinaryIO

    from .image import Layer
    from .stream import Readable

    ChainIds = list[str]  # inside the class, `list` is its method


# ioctl_iflags(2): chattr +T. The numbers are _IOR('f', 1, long) and _IOW('f', 2, long); what is read is an int.
_GETFLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_SETFLAGS = 1 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 2
_TOPDIR = 0x00020000


class Layers:
    """The layers below the directory `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def directory(self, chain_id: str) -> str:
        """layers/<hex>: there or not."""
        return f"{self.path}/{chain_id.removeprefix('sha256:')}"

    def fs(self, chain_id: str) -> str:
        """The directory to mount, there or not."""
        return f"{self.directory(chain_id)}/fs"

    def has(self, chain_id: str) -> bool:
        """Whether the layer is unpacked."""
        return os.path.exists(f"{self.directory(chain_id)}/done")

    def list(self) -> ChainIds:
        """The chain ids of all layers that are unpacked."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return sorted("sha256:" + name for name in names if len(name) == 64)

    def size(self, chain_id: str) -> int | None:
        """Bytes of file content in the layer; None when it is not unpacked."""
        size = read_done(self.directory(chain_id)).get("size")
        return size if isinstance(size, int) else None

    def create(self) -> None:
        """Makes the directory that all layers are in, if it is missing. Raises OSError."""
        files.private_dir(self.path)
        _spread(self.path)

    def hold(self) -> files.Lock:
        """While this `with` block runs no layer is removed; see ImageStore.hold()."""
        files.private_dir(self.path)
        return files.Lock(f"{self.path}/lock", shared=True)

    def lock(self, *, blocking: bool) -> files.Lock:
        """For whoever removes layers: waits for, or (BlockingIOError) gives way to, those who hold()."""
        files.private_dir(self.path)
        return files.Lock(f"{self.path}/lock", blocking=blocking)

    def ensure(
        self, layers: Sequence[Layer], open_blob: Callable[[Layer], BinaryIO], limits: Limits = DEFAULT_LIMITS
    ) -> bool:
        """Unpacks those of an image's layers (lowest first) that are missing; True if any was.

        Raises ArchiveError for a damaged or hostile layer, OSError; then nothing new is left. One syncfs(2) for all.
        """
        from .unpacker import Unpacker

        if all(self.has(layer.chain_id) for layer in layers):
            return False
        with Unpacker(self, layers, limits) as unpacker:
            for layer in layers:
                if not self.has(layer.chain_id):
                    unpacker.start(layer, lambda layer=layer: open_blob(layer), verified=False)  # type: ignore[misc]
            return unpacker.finish(open_blob)

    def scratch(self) -> Scratch:
        """A directory that may become a layer; see Scratch."""
        return Scratch(self)

    def adopt(self, blob: Readable, limits: Limits = DEFAULT_LIMITS) -> unpacking.Unpacked:
        """Unpacks a single bottom layer whose diff-id nobody knows yet (`import`); returns what it turned out to be."""
        with self.scratch() as scratch:
            root_fd = unpacking.open_root(scratch.fs)
            try:
                found = unpacking.unpack(blob, root_fd, require_end=True, limits=limits)
            finally:
                os.close(root_fd)
            scratch.become("", **found.asdict())
        return found

    def claim(self, chain_id: str, *, blocking: bool = True) -> Claim | None:
        """The right to unpack a layer; None once it is there. Waits for another process that is at it.

        Not `blocking`: raises BlockingIOError then.
        """
        target = self.directory(chain_id)
        self.create()
        while not self.has(chain_id):
            claim = Claim(f"{target}.tmp", blocking=blocking)
            if claim.is_mine():
                if not self.has(chain_id):
                    return claim
                claim.discard(None)
            claim.close()
        return None

    def mark_garbage(self) -> None:
        """Notes, before it is there, that a layer comes which nothing may ever name. The collector takes it away."""
        os.close(os.open(f"{self.path}/garbage", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def note(self) -> Note:
        """mark_garbage() for as long as this process lives and does not take it back. The caller is inside hold()."""
        return Note(f"{self.path}/{os.urandom(8).hex()}.note")

    def has_garbage(self) -> bool:
        """Whether there is such a mark, or the note of a dead process."""
        return os.path.exists(f"{self.path}/garbage") or bool(self._dead_notes())

    def _dead_notes(self) -> ChainIds:
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        notes = [f"{self.path}/{name}" for name in names if name.endswith(".note")]
        return [path for path in notes if not is_held(path)]

    def recover(self) -> None:
        """Removes what dead processes left half unpacked or half removed."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith((".tmp", ".del")):
                remove_unless_locked(f"{self.path}/{name}")

    def remove_except(self, wanted: Iterable[str]) -> tuple[ChainIds, bool]:
        """Removes every layer whose chain id is not wanted; the caller holds lock().

        Returns the chain ids, and whether all are gone: one that a living Scratch has just become stays for now.
        """
        keep = {chain_id.removeprefix("sha256:") for chain_id in wanted} | {"lock", "garbage"}
        try:
            names = sorted(set(os.listdir(self.path)) - keep)
        except FileNotFoundError:
            return [], True
        doomed = [name for name in names if "." not in name]
        gone = ["sha256:" + name for name in doomed if self._remove(name)]
        if len(gone) == len(doomed):
            for mark in (f"{self.path}/garbage", *self._dead_notes()):
                try:
                    os.unlink(mark)
                except FileNotFoundError:
                    continue
        return gone, len(gone) == len(doomed)

    def _remove(self, name: str) -> bool:
        """Removes a layer, unless its directory is locked."""
        path = f"{self.path}/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with step("rootfs", f"rm -r {path}"):
                os.rename(path, f"{path}.del")
                remove_path(f"{path}.del")
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True


def _spread(path: str) -> None:
    """Has ext4 put each directory in `path` into a part of the disk of its own, as it does with those at its top.

    Else a new layer comes to lie where one was just removed, and ext4 takes no inode again that was freed in the last
    minutes: it looks at every one of them for each file (recently_deleted() in fs/ext4/ialloc.c). On a disk where files
    come and go that took up to ten times as long as unpacking itself (measured). Other file systems have no such flag.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = bytearray(struct.calcsize("l"))
            fcntl.ioctl(fd, _GETFLAGS, flags)
            (value,) = struct.unpack("i", flags[:4])
            if not value & _TOPDIR:
                fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", value | _TOPDIR))
        finally:
            os.close(fd)
    except OSError:
        pass  # it is a matter of speed alone
