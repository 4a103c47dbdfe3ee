# SPDX-License-Identifier: Apache-2.0
"""Unpacked layers, each once, shared by all images: layers/<chain-id hex>/{fs,done}.

    <hex>/fs      the directory that overlayfs mounts        <hex>/done   what was unpacked (JSON); written before the
    rename <hex>.tmp/    being unpacked, flock(2)ed by who does it  <hex>.del/   being removed
    lock          shared: somebody is about to use layers (hold); exclusive: somebody wants to remove some

A layer becomes visible by the rename of its directory, after its digests were checked and its file system was synced.
"""

from __future__ import annotations

import fcntl
import os

from pyrun.runtime import files
from pyrun.runtime.events import step

from . import unpack as unpacking
from .inroot import remove_path
from .layered import Stack
from .layout import is_locked
from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import BinaryIO

    from .image import Layer
    from .stream import Readable


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

    def size(self, chain_id: str) -> int | None:
        """Bytes of file content in the layer; None when it is not unpacked."""
        try:
            return int(files.read_json(f"{self.directory(chain_id)}/done")["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

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
        if all(self.has(layer.chain_id) for layer in layers):
            return False
        files.private_dir(self.path)
        claims: dict[str, _Claim] = {}
        try:
            below: list[str] = []
            for layer in layers:
                claim = self._claim(layer.chain_id)
                if claim is not None:
                    claims[layer.chain_id] = claim
                    with step("rootfs", f"unpack layer {layer.digest}"), open_blob(layer) as blob:
                        self._unpack(claim, layer, blob, below, limits)
                below.insert(0, f"{claim.path if claim else self.directory(layer.chain_id)}/fs")
            self._show(claims)
        except BaseException as error:
            for claim in claims.values():
                claim.discard(error)
            raise
        finally:
            for claim in claims.values():
                claim.close()
        return bool(claims)

    def adopt(self, blob: Readable, limits: Limits = DEFAULT_LIMITS) -> unpacking.Unpacked:
        """Unpacks a single bottom layer whose diff-id nobody knows yet (`import`); returns what it turned out to be."""
        files.private_dir(self.path)
        claim = self._claim("new-" + os.urandom(8).hex())
        assert claim is not None
        try:
            root_fd = claim.root()
            try:
                found = unpacking.unpack(blob, root_fd, require_end=True, limits=limits)
            finally:
                os.close(root_fd)
            claim.finish(found)
            if self.has(found.diff_id):  # the same content came before
                claim.discard(None)
            else:
                self._show({found.diff_id: claim})
        except BaseException as error:
            claim.discard(error)
            raise
        finally:
            claim.close()
        return found

    def _unpack(self, claim: _Claim, layer: Layer, blob: Readable, below: list[str], limits: Limits) -> None:
        root_fd = claim.root()
        try:
            with Stack(below) as stack:
                like = stack.directory if below else None
                found = unpacking.unpack(
                    blob, root_fd, digest=layer.digest, diff_id=layer.diff_id, limits=limits, metadata_of=like
                )
        finally:
            os.close(root_fd)
        claim.finish(found)

    def _claim(self, chain_id: str) -> _Claim | None:
        """The right to unpack a layer; waits for another process that is at it. None once the layer is there."""
        target = self.directory(chain_id)
        while not os.path.exists(f"{target}/done"):
            claim = _Claim(f"{target}.tmp")
            if claim.is_mine():
                if not os.path.exists(f"{target}/done"):
                    return claim
                claim.discard(None)
            claim.close()
        return None

    def _show(self, claims: dict[str, _Claim]) -> None:
        """Makes finished layers visible, lowest first."""
        if not claims:
            return
        with step("rootfs", f"syncfs {self.path}"):
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                unpacking.syncfs(fd)
            except OSError as error:
                raise ArchiveError("unpack layers", f"the disk did not take them: {error}") from error
            finally:
                os.close(fd)
        for chain_id, claim in claims.items():
            os.rename(claim.path, self.directory(chain_id))
            claim.path = ""

    def recover(self) -> None:
        """Removes what dead processes left half unpacked or half removed."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith((".tmp", ".del")) and not is_locked(f"{self.path}/{name}"):
                remove_path(f"{self.path}/{name}")

    def remove_except(self, wanted: Iterable[str]) -> list[str]:
        """Removes every layer whose chain id is not wanted; returns the chain ids. The caller holds lock()."""
        keep = {chain_id.removeprefix("sha256:") for chain_id in wanted} | {"lock"}
        try:
            names = sorted(set(os.listdir(self.path)) - keep)
        except FileNotFoundError:
            return []
        gone = [name for name in names if "." not in name]
        for name in gone:
            with step("rootfs", f"rm -r {self.path}/{name}"):
                os.rename(f"{self.path}/{name}", f"{self.path}/{name}.del")
                remove_path(f"{self.path}/{name}.del")
        return ["sha256:" + name for name in gone]


class _Claim:
    """A locked <hex>.tmp directory. What an earlier owner left in it is removed before it is used."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # its owner finished in this moment
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def is_mine(self) -> bool:
        """Whether the directory is still at its path: who had it before may have renamed or removed it."""
        try:
            return self._fd >= 0 and os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def root(self) -> int:
        """An fd of the empty directory to unpack into."""
        for name in os.listdir(self._fd):
            remove_path(f"{self.path}/{name}")
        os.mkdir("fs", 0o755, dir_fd=self._fd)
        return os.open("fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)

    def finish(self, found: unpacking.Unpacked) -> None:
        """Writes down what was unpacked."""
        files.write_json(f"{self.path}/done", found.asdict(), sync=False)  # syncfs follows

    def discard(self, cause: BaseException | None) -> None:
        """Removes the directory, unless it has become a layer."""
        if self.path:
            try:
                remove_path(self.path)
            except OSError as error:
                if cause is None:
                    raise
                cause.add_note(f"clean-up: {error}")

    def close(self) -> None:
        """Releases the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
