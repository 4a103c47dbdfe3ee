# SPDX-License-Identifier: Apache-2.0
"""Steps of a build as a test runs them: in this process, by the Python API, on the session's roots."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import half_started
from pyrun.rootfs.layers import Layers
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine.build.execute import RunRequest, execute
from pyrun.runtime.errors import PyrunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyrun.runtime.paths import Paths

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Ran:
    """How a step ended, what it wrote, and what it changed: path -> lstat."""

    code: int
    oom: str
    out: str
    err: str
    changed: dict[str, os.stat_result] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Steps:
    """Runs steps on layers of the data root."""

    def __init__(self, paths: Paths, lowers: tuple[str, ...]) -> None:
        self.paths = paths
        self.lowers = lowers

    def __call__(self, *argv: str, cancel: threading.Event | None = None, **how: Any) -> Ran:
        """Runs argv as a step's program, with the request's other fields from `how`."""
        how = {"network": "none", "env": (PATH,), "lowers": self.lowers, **how}
        written: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        with Layers(f"{self.paths.data}/layers").scratch() as scratch:
            result = execute(
                self.paths, RunRequest(argv, **how), scratch, lambda name, data: written[name].append(data),
                cancel=cancel or threading.Event(),
            )  # fmt: skip
            out, err = (b"".join(written[name]).decode() for name in ("stdout", "stderr"))
            ran = Ran(result.exit_code, result.oom, out, err)
            for path in below(scratch.fs):
                name = os.path.relpath(path, scratch.fs)
                ran.changed[name] = info = os.lstat(path)
                if os.path.isfile(path) and not os.path.islink(path) and info.st_size < 1 << 20:
                    with open(path, "rb") as file:
                        ran.content[name] = file.read()
        return ran

    def sh(self, script: str, **how: Any) -> Ran:
        """Runs a shell script that must succeed."""
        ran = self("/bin/sh", "-ec", script, **how)
        assert ran.code == 0, str(ran)
        return ran

    def on(self, *lowers: str | Path) -> Steps:
        """Steps on further layers above these."""
        return Steps(self.paths, (*self.lowers, *map(str, lowers)))


def running(paths: Paths, name: str = "") -> int:
    """The pid of a step that runs its program (of this name), 0 while there is none."""
    store = c.ContainerStore(paths)
    for container_id in store.ids():
        try:
            state = store.load_state(container_id)
        except PyrunError:
            continue  # just made, or removed
        comm = half_started.comm(state.pid) if state.running else ""
        if comm and comm not in half_started.INITS and name in ("", comm):
            return state.pid
    return 0


def wait_until_running(paths: Paths, name: str = "") -> int:
    """running(), when there is one."""
    pid = half_started.until(lambda: running(paths, name), f"a step to run {name or 'its program'}")
    assert isinstance(pid, int)
    return pid


def below(top: str) -> Iterator[str]:
    """Every path below a directory."""
    for parent, directories, names in os.walk(top):
        for name in (*directories, *names):
            yield f"{parent}/{name}"


def of_image(paths: Paths, image: str) -> Steps:
    """Steps on an image of the store."""
    store = ImageStore(paths)
    with store.hold():
        return Steps(paths, store.unpacked(store.resolve(image)))
