# SPDX-License-Identifier: Apache-2.0
"""The OCI image layout on disk, and how it changes: blobs gather in an Ingest, and appear together with the index.

    images/oci-layout  images/index.json  images/blobs/sha256/<hex>       the layout (OCI image spec, image-layout.md)
    images/lock                                                           held (exclusive, briefly) while it changes
    images/ingest/<random>/    blobs on their way in; flock(2)ed by their owner
    images/partial/<hex>       half a download; flock(2)ed by who writes it
    images/keep/<name>.json    what the build cache keeps (keeping.py)
    images/garbage             a removal is not finished (collect.py)

A writer that dies leaves an ingest directory that nobody holds a lock on; whoever changes the layout next removes it.
Readers need no lock: index.json is replaced in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import time

from pyrun.runtime import files
from pyrun.runtime.errors import PyrunError, SpecError
from pyrun.runtime.kernel import syscalls

from . import media, refs
from .image import array, obj, string
from .inroot import remove_path
from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self

    Descriptor = dict[str, Any]  # one entry of index.json: mediaType, digest, size, annotations
    Descriptors = list[Descriptor]

INDEX = "index.json"
WRITEBACK = 1 << 23  # bytes written between two hints to the kernel to begin with the disk
PARTIAL_SECONDS = 7 * 24 * 3600  # a download that nobody has gone on with for so long is given up


class Layout:
    """The image layout in the directory `path`; creates nothing until something is written."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self) -> None:
        """Makes the directories and files that a layout must have. The caller holds the lock. Raises OSError."""
        for name in ("blobs/sha256", "ingest"):
            files.private_dir(f"{self.path}/{name}")
        if not os.path.exists(f"{self.path}/oci-layout"):
            files.write_atomic(f"{self.path}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}\n')

    def recover(self) -> None:
        """Removes files that dead processes did not finish writing. The caller holds the lock."""
        for directory in (self.path, f"{self.path}/keep"):
            for name in _listed(directory):
                if name.endswith(".tmp"):  # write_atomic()'s
                    os.unlink(f"{directory}/{name}")
        self.remove_partial(PARTIAL_SECONDS)

    def remove_partial(self, older_than: float = 0) -> int:
        """Removes partial downloads that nobody writes and that are `older_than` so many seconds; returns their bytes.

        Each is locked while it is removed: a download that waits for its lock then finds that the file is gone.
        """
        freed = 0
        limit = time.time() - older_than
        for name in _listed(f"{self.path}/partial"):
            try:
                freed += _remove_old(f"{self.path}/partial/{name}", limit)
            except (FileNotFoundError, BlockingIOError):  # finished in this moment; being written
                continue
        return freed

    def partial(self, digest: str) -> str:
        """The path of a blob's partial download, its directory made."""
        files.private_dir(f"{self.path}/partial")
        return f"{self.path}/partial/{digest.removeprefix('sha256:')}"

    def lock(self) -> files.Lock:
        """The lock under which index.json and blobs change."""
        files.private_dir(self.path)
        return files.Lock(f"{self.path}/lock")

    def index(self) -> Descriptors:
        """The descriptors in index.json; [] when there is no store yet. Raises SpecError, OSError."""
        try:
            with open(f"{self.path}/{INDEX}", "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return []
        return parse_index(text, f"{self.path}/{INDEX}")

    def write_index(self, descriptors: Descriptors) -> None:
        """Replaces index.json. The caller holds the lock."""
        value = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": descriptors}
        files.write_json(f"{self.path}/{INDEX}", value)

    def mark_garbage(self) -> None:
        """Notes that blobs or layers may be left that no image needs: the collector takes the mark away."""
        os.close(os.open(f"{self.path}/garbage", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def blob(self, digest: str) -> str:
        """The path of a blob, there or not. `digest` must be a valid sha256 digest."""
        return f"{self.path}/blobs/sha256/{digest.removeprefix('sha256:')}"

    def read_json(self, digest: str, limits: Limits = DEFAULT_LIMITS) -> Any:
        """A JSON blob, its digest checked. Raises PyrunError when it is missing or damaged."""
        try:
            with open(self.blob(digest), "rb") as file:
                data = file.read(limits.max_json + 1)
        except FileNotFoundError:
            raise PyrunError(
                f"image blob {digest}", "it is missing from the store", hint="load or pull the image again"
            ) from None
        return load_json(data, digest, limits)


def load_json(data: bytes, digest: str, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The JSON value in `data`, which must hash to `digest`. Raises ArchiveError."""
    if len(data) > limits.max_json:
        raise ArchiveError(f"image blob {digest}", f"larger than {limits.max_json} bytes")
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise ArchiveError(
            f"image blob {digest}", "its content has another digest", hint="load or pull the image again"
        )
    return parse_json(data, f"image blob {digest}")


def parse_json(data: bytes, what: str) -> Any:
    """The JSON value in `data`. NaN, nesting beyond Python's stack, bad UTF-8 and half a surrogate pair, which is no
    character and can be written nowhere, are errors. Raises ArchiveError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(data, parse_constant=refuse)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise ArchiveError(what, f"not JSON: {error}") from None


def parse_index(text: bytes, what: str) -> Descriptors:
    """The descriptors of an OCI image index, checked. Raises SpecError, ArchiveError."""
    found = []
    for number, item in enumerate(array(obj(parse_json(text, what), what).get("manifests"), f"{what}: manifests")):
        where = f"{what}: manifests[{number}]"
        descriptor = obj(item, where)
        digest = string(descriptor.get("digest"), f"{where}.digest")
        if not refs.is_digest(digest) or not digest.startswith("sha256:"):
            raise SpecError(f"{where}.digest", f"not a sha256 digest: '{digest}'")
        for key, value in obj(descriptor.get("annotations") or {}, f"{where}.annotations").items():
            string(value, f"{where}.annotations.{key}")
        found.append(descriptor)
    return found


class Ingest:
    """A private directory for blobs on their way into the store; a `with` block. Gone with everything in it at its end.

    `layers` are chain ids that were unpacked for images still on their way: the collector leaves them alone. `sizes`
    has the bytes of every blob in here, `verified` those that were hashed on their way in; pin() hashes none. All
    methods may be called from several threads.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.path = ""
        self.sizes: dict[str, int] = {}
        self._synced: set[str] = set()
        self.verified: set[str] = set()
        self._fd = -1
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        with self.layout.lock():  # so that the collector never sees a directory that is not locked yet
            self.path = f"{self.layout.path}/ingest/{os.urandom(8).hex()}"
            os.mkdir(self.path, 0o700)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if cause is not None and os.path.exists(f"{self.path}/layers"):
                self.layout.mark_garbage()
            remove_path(self.path)
        except OSError as error:
            if cause is None:
                raise
            cause.add_note(f"clean-up: {error}")
        finally:
            os.close(self._fd)

    def add(self, chunks: Iterable[bytes], *, digest: str = "", max_bytes: int = DEFAULT_LIMITS.max_bytes) -> str:
        """Stores a blob and returns its digest; `digest` is what it must be. Raises ArchiveError, OSError."""
        hasher = hashlib.sha256()
        size = started = 0
        temporary = f"{self.path}/.incoming-{next(self._numbers)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for chunk in chunks:
                hasher.update(chunk)
                size += len(chunk)
                if size > max_bytes:
                    raise ArchiveError("image blob", f"larger than {max_bytes} bytes")
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
                if size - started >= WRITEBACK:
                    syscalls.start_writeback(fd, started, size - started)
                    started = size
            found = "sha256:" + hasher.hexdigest()
            if digest and found != digest:
                raise ArchiveError(
                    f"image blob {digest}", f"its content is {found}", hint="the archive is damaged: fetch it again"
                )
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        self.take(temporary, found, size)
        return found

    def take(self, path: str, digest: str, size: int) -> None:
        """Makes the file at `path`, on the same file system, a blob in here by renaming it. The caller has verified it.

        Raises ArchiveError when it has another size, OSError.
        """
        found = os.stat(path, follow_symlinks=False)
        if found.st_size != size:
            raise ArchiveError(f"image blob {digest}", f"{found.st_size} bytes, not {size}")
        os.rename(path, self.blob(digest))
        self._synced.discard(digest)
        self.sizes[digest] = size
        self.verified.add(digest)

    def add_json(self, value: Any) -> str:
        """Stores `value` as compact JSON and returns its digest."""
        return self.add([json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()])

    def pin(self, digest: str) -> bool:
        """Takes a blob that the store already has, so that no removal can take it away; False if it has none."""
        if digest not in self.sizes:
            try:
                os.link(self.layout.blob(digest), self.blob(digest))
            except FileNotFoundError:
                return False
            except FileExistsError:
                pass  # another thread of ours has done it just now: stages of a build share their ingest
            self._synced.add(digest)  # or it would not be in the store
            self.sizes[digest] = os.stat(self.blob(digest)).st_size
        return True

    def blob(self, digest: str) -> str:
        """The path of a blob in here."""
        return f"{self.path}/{digest.removeprefix('sha256:')}"

    def read(self, digest: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """A small blob's content. Raises ArchiveError when it is none."""
        if self.sizes[digest] > limits.max_json:
            raise ArchiveError(
                f"image blob {digest}", f"{self.sizes[digest]} bytes: too large for a manifest or config"
            )
        with open(self.blob(digest), "rb") as file:
            return file.read()

    def sync(self, digests: Iterable[str] | None = None) -> None:
        """Writes blobs out to the disk, all or some: before publish(), unless unpacking has synced all already."""
        for digest in list(self.sizes) if digests is None else digests:
            if digest in self._synced:
                continue
            fd = os.open(self.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._synced.add(digest)

    def keep_layers(self, chain: Iterable[str]) -> None:
        """Notes layers that the images in here need, before they are unpacked."""
        with open(f"{self.path}/layers", "a") as file:
            file.writelines(f"{chain_id}\n" for chain_id in chain)

    def publish(self, digests: Iterable[str]) -> None:
        """Puts blobs into the store, over ones of that name: those may be damaged, while these were just verified.

        They stay here too, for the archive's next image. The caller holds the lock, has synced them, and writes the
        index next.
        """
        for number, digest in enumerate(digests):
            second = f"{self.path}/.outgoing-{number}"
            os.link(self.blob(digest), second)
            os.rename(second, self.layout.blob(digest))
            if os.path.exists(second):  # rename(2) does nothing when both are the same file already
                os.unlink(second)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _remove_old(path: str, limit: float) -> int:
    """Removes a file that was last written before `limit`; its size, 0 if it stays. Raises BlockingIOError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if found.st_mtime > limit:
            return 0
        os.unlink(path)
        return found.st_size
    finally:
        os.close(fd)


def ingests(layout: Layout) -> Iterator[tuple[str, bool]]:
    """Every ingest directory, and whether its owner is alive. The caller holds the lock."""
    for name in _listed(f"{layout.path}/ingest"):
        path = f"{layout.path}/ingest/{name}"
        yield path, is_locked(path)


def is_locked(path: str) -> bool:
    """Whether some process holds a flock(2) on the directory or file; False when it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
