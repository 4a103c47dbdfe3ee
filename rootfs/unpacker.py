# SPDX-License-Identifier: Apache-2.0
"""Unpacker: several layers of an image at a time, in any order, shown lowest first.

A layer needs the ones below it for one thing only: what the parent directories that it does not list look like. So each
is unpacked by itself, by a thread (zlib, zstd, SHA-256 and every system call release the interpreter lock), and those
directories are settled at the end, in order.

A layer that another process is unpacking is waited for last, after all that is finished here was shown: two processes
that wait for each other's layers therefore never both hold one.
"""

from __future__ import annotations

import os

from pyrun.runtime.events import step

from . import unpack as unpacking
from .claims import Claim
from .layered import Stack
from .limits import DEFAULT_LIMITS, ArchiveError, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import BinaryIO, Self

    from .image import Layer
    from .layers import Layers
    from .stream import Readable

MAX_WORKERS = 4  # more than that and the one interpreter lock, or the disk, is what they wait for


class Unpacker:
    """A `with` block; what was not shown by finish() is removed at its end, and its threads have ended then.

    layers: an image's, lowest first. Raises nothing before finish(), but for OSError of start().
    """

    def __init__(self, layers: Layers, image: Sequence[Layer], limits: Limits = DEFAULT_LIMITS) -> None:
        self._layers = layers
        self._image = tuple(image)
        self._limits = limits
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def __enter__(self) -> Self:
        import threading

        self._changed = threading.Condition()
        self._workers = max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0))))
        return self

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()
        for job in self._jobs.values():
            try:
                job.claim.discard(cause)
            finally:
                job.claim.close()

    def start(self, layer: Layer, blob: str | Callable[[], BinaryIO], *, verified: bool = True) -> None:
        """Begins to unpack a layer. Any order, any thread.

        blob: the layer's file, by path or opened. `verified`: this process has just hashed it (Ingest.verified), and
        only the diff-id is left to check; False for one that came from the store. What is there already, or another
        process is at, is not unpacked again.
        """
        with self._changed:
            if layer.chain_id in self._jobs or self._stopped:
                return
            try:
                claim = self._layers.claim(layer.chain_id, blocking=False)
            except BlockingIOError:
                return  # finish() waits for it
            if claim is None:
                return
            job = _Job(claim, layer, (lambda: open(blob, "rb")) if isinstance(blob, str) else blob, verified)
            self._jobs[layer.chain_id] = job
            self._waiting.append(job)
            if len(self._threads) < self._workers:
                self._add_thread()
            self._changed.notify_all()

    def finish(self, open_blob: Callable[[Layer], BinaryIO] | None = None) -> bool:
        """Waits for what was started, unpacks what was not, by `open_blob`, and makes all layers visible.

        Returns whether any was new. Raises ArchiveError for a damaged or hostile layer (the lowest one's error),
        OSError; layers that were whole by then may have become visible.
        """
        if all(self._layers.has(layer.chain_id) for layer in self._image):
            return False
        self._join()
        below: list[str] = []
        ready: list[_Job] = []
        for layer in self._image:
            job = self._jobs.get(layer.chain_id)
            if job is None and not self._layers.has(layer.chain_id) and open_blob is not None:
                job = self._late(layer, open_blob, ready)
            if job is not None:
                if job.error is not None:
                    raise job.error
                job.settle([self._place(chain_id) for chain_id in below])
                ready.append(job)
            below.insert(0, layer.chain_id)
        self._show(ready)
        return bool(self._jobs)

    def _late(self, layer: Layer, open_blob: Callable[[Layer], BinaryIO], ready: list[_Job]) -> _Job | None:
        """Unpacks a layer that nobody started, or that another process had when it was; None once it is there."""
        try:
            claim = self._layers.claim(layer.chain_id, blocking=False)
        except BlockingIOError:
            self._show(ready)
            claim = self._layers.claim(layer.chain_id)
        if claim is None:
            return None
        job = _Job(claim, layer, lambda: open_blob(layer), verified=False)
        self._jobs[layer.chain_id] = job
        job.run(self._limits, lambda: False)
        return job

    def _place(self, chain_id: str) -> str:
        """Where a layer's files are just now: _late() may have shown it in between."""
        job = self._jobs.get(chain_id)
        return f"{job.claim.path}/fs" if job is not None and job.claim.path else self._layers.fs(chain_id)

    def _show(self, jobs: list[_Job]) -> None:
        """Makes unpacked layers visible, lowest first; one sync for all of them."""
        if not jobs:
            return
        with step("rootfs", f"syncfs {self._layers.path}"):
            try:
                unpacking.syncfs(jobs[0].claim.fd)
            except OSError as error:
                raise ArchiveError("unpack layers", f"the disk did not take them: {error}") from error
        for job in jobs:
            job.claim.show(self._layers.directory(job.layer.chain_id))
            job.claim.close()
        jobs.clear()

    # The threads --------------------------------------------------------------------------------------------------

    def _add_thread(self) -> None:
        import threading

        thread = threading.Thread(target=self._work, name="unpack", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                job = self._waiting.pop(0)
            job.run(self._limits, lambda: self._stopped)
            with self._changed:
                self._changed.notify_all()

    def _join(self) -> None:
        """Waits until every job has ended, or one has failed."""
        with self._changed:
            while not all(job.ended for job in self._jobs.values()):
                if any(job.error is not None for job in self._jobs.values()):
                    break
                self._changed.wait()
        failed = [job.error for job in self._jobs.values() if job.error is not None]
        self._stop()
        if failed:
            raise failed[0]

    def _stop(self) -> None:
        self._stopped = True
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()


class _Job:
    """One layer being unpacked into its claim."""

    def __init__(self, claim: Claim, layer: Layer, opened: Callable[[], BinaryIO], verified: bool) -> None:
        self.claim = claim
        self.layer = layer
        self.opened = opened
        self.verified = verified
        self.implied: list[tuple[bytes, ...]] = []
        self.error: BaseException | None = None
        self.ended = False

    def run(self, limits: Limits, stopped: Callable[[], bool]) -> None:
        """Unpacks; what goes wrong is in `error` then."""
        layer = self.layer
        try:
            with step("rootfs", f"unpack layer {layer.digest}"), self.opened() as blob:
                root_fd = self.claim.root()
                try:
                    found = unpacking.unpack(
                        _Stoppable(blob, stopped),
                        root_fd,
                        digest=layer.digest,
                        verified=self.verified,
                        diff_id=layer.diff_id,
                        limits=limits,
                        implied=self.implied,
                    )
                finally:
                    os.close(root_fd)
                self.claim.finish(found)
        except BaseException as error:  # raised again by finish()
            self.error = error
        self.ended = True

    def settle(self, below: list[str]) -> None:
        """Makes the parent directories that the layer does not list look as in the layers below, topmost first."""
        if below and self.implied:
            root_fd = unpacking.open_root(f"{self.claim.path}/fs")
            try:
                with Stack(below) as stack:
                    unpacking.inherit(root_fd, self.implied, stack.directory)
            finally:
                os.close(root_fd)


class _Stoppable:
    """A file whose reading fails once nobody wants it any more."""

    def __init__(self, file: Readable, stopped: Callable[[], bool]) -> None:
        self._file = file
        self._stopped = stopped

    def read(self, size: int, /) -> bytes:
        if self._stopped():
            raise ArchiveError("unpack layer", "stopped")
        return self._file.read(size)
