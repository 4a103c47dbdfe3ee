# SPDX-License-Identifier: Apache-2.0
"""The output of a container, as it was logged."""

from __future__ import annotations

import os
import time

from pyrun.runtime.engine.containers import ContainerStore
from pyrun.runtime.engine.monitoring import ensure
from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyrun.runtime.monitor.logread import Entry
    from pyrun.runtime.paths import Paths


LOOK_S = 0.5  # how often --follow makes sure that there is a monitor


def entries(
    paths: Paths,
    name: str,
    *,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    follow: bool = False,
) -> Iterator[Entry]:
    """The log entries of a container, oldest first; with `follow` until it has ended.

    Raises NotFound, UsageError when its output is not kept (--log-driver none).
    """
    from pyrun.runtime.monitor.logread import read

    store = ContainerStore(paths)
    container = store.load(store.lookup(name))
    if container.options.log_driver == "none":
        hint = "create it without --log-driver none"
        raise UsageError(f"logs of {container.name}", "its output is not kept", hint=hint)
    runs = _still_runs(store, container.id) if follow else None
    directory = container.log_path or f"{paths.container(container.id)}/log"
    return read(directory, tail=tail, since_ns=since_ns, until_ns=until_ns, follow=runs)


def _still_runs(store: ContainerStore, container_id: str) -> Callable[[float], bool]:
    """A function that waits some seconds and says whether the container still runs; looks only at changed files."""
    path = f"{store.paths.container(container_id)}/state.json"
    seen = (0, 0)
    running = True
    next_look = 0.0

    def wait(seconds: float) -> bool:
        nonlocal seen, running, next_look
        try:
            found = os.stat(path)
            if (found.st_mtime_ns, found.st_ino) != seen:
                seen = (found.st_mtime_ns, found.st_ino)
                running = store.settle(container_id, store.load_state(container_id)).running
        except (OSError, PyrunError):
            running = False  # removed
        if running:
            if time.monotonic() >= next_look:
                _ensure_monitor(store.paths)
                next_look = time.monotonic() + LOOK_S
            time.sleep(seconds)
        return running

    return wait


def _ensure_monitor(paths: Paths) -> None:
    """Somebody may have killed the monitor: then nothing would be logged any more."""
    try:
        ensure(paths)
    except (PyrunError, OSError):
        pass  # not ours to start: we only look
