# SPDX-License-Identifier: Apache-2.0
"""attach(): the client of this request on the streams of a running container."""

from __future__ import annotations

from pyrun.runtime.engine.options import DETACH_KEYS
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.runtime.monitor.worker import WorkerLink
    from pyrun.runtime.paths import Paths


class Attach(Record):
    """Which streams, whether signals are passed on, the keys that leave."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    sig_proxy: bool = True
    detach_keys: str = DETACH_KEYS
    leash: bool = False  # of a start only: the container ends with its last client

    def request(self) -> dict[str, Any]:
        """As WorkerLink.adopt() takes it."""
        return {**self.asdict(), "detach_keys": key_bytes(self.detach_keys).decode("latin-1")}


def key_bytes(text: str) -> bytes:
    """What a terminal sends for "ctrl-p,ctrl-q" or "a,b": ctrl- and a letter is its low five bits (ascii(7))."""
    keys = text.split(",") if text else []
    return b"".join([bytes([ord(key[5:].upper()) & 0x1F]) if len(key) > 1 else key.encode() for key in keys])


def attach(paths: Paths, container_id: str, link: WorkerLink, wanted: Attach) -> None:
    """Connects the client of this worker's request; its exit code becomes the container's.

    Raises Conflict when the container does not run, or is paused.
    """
    import os

    from pyrun.runtime.engine import containers as c
    from pyrun.runtime.engine.stop import open_process
    from pyrun.runtime.errors import Conflict

    store = c.ContainerStore(paths)
    os.close(open_process(store, container_id, "attach to"))
    container = store.load(container_id)
    if store.load_state(container_id).status == c.PAUSED:
        raise Conflict(f"attach to {container.name}", "it is paused", hint=f"pyrun unpause {container.name}")
    link.attach(
        container_id, stdin=wanted.stdin and container.options.interactive, stdout=wanted.stdout, stderr=wanted.stderr,
        sig_proxy=wanted.sig_proxy, detach_keys=key_bytes(wanted.detach_keys),
    )  # fmt: skip
