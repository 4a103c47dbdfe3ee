# SPDX-License-Identifier: Apache-2.0
"""Bundles and the command line of an OCI runtime, for tests that run pyrun-oci, or any other one: $RUNTIME names it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

RUNTIME = os.environ.get("RUNTIME") or str(Path(sys.executable).with_name("pyrun-oci"))
IS_PYRUN = Path(RUNTIME).name == "pyrun-oci"
NAMESPACES = ("mount", "pid", "ipc", "uts", "network")
PTS = ["newinstance", "ptmxmode=0666"]
CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Oci:
    """A runtime with a state root of its own, and bundles below `directory`; end() removes every container."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.made: list[str] = []

    def words(self, *words: str) -> list[str]:
        """The whole command line."""
        return [RUNTIME, "--root", str(self.directory / "state"), *words]

    def __call__(self, *words: str, stdin: str = "") -> Done:
        """Runs a command that starts nothing that lives longer than itself."""
        done = subprocess.run(self.words(*words), input=stdin, capture_output=True, text=True, timeout=60, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, stdin: str = "") -> str:
        """The standard output of a command that must succeed."""
        done = self(*words, stdin=stdin)
        assert done.code == 0, f"{words}: {done.err}"
        return done.out

    def bundle(self, *args: str, terminal: bool = False, **process: Any) -> Path:
        """A new bundle whose process is `args`."""
        made = self.directory / f"bundle{len(list(self.directory.glob('bundle*')))}"
        made.mkdir()
        caps = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
        config = {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.rootfs), "readonly": True},
            "process": {
                "terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": list(args), "cwd": "/",
                "env": ["PATH=/bin", "FROM=bundle"], "capabilities": caps, **process,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": PTS},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
        }  # fmt: skip
        (made / "config.json").write_text(json.dumps(config))
        return made

    def create(self, container_id: str, bundle: Path, *flags: str) -> int:
        """Creates a container whose streams are the null device; gives its pid."""
        pid_file = bundle / "pid"
        self.made.append(container_id)
        with open(bundle / "errors", "w+", encoding="utf-8") as errors:
            words = self.words("create", "--bundle", str(bundle), "--pid-file", str(pid_file), *flags, container_id)
            code = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, timeout=60, check=False
            ).returncode
            errors.seek(0)
            assert code == 0, errors.read()
        return int(pid_file.read_text())

    def start(self, container_id: str, *args: str) -> int:
        """Creates and starts a container that runs `args`; gives its pid."""
        pid = self.create(container_id, self.bundle(*args))
        self.ok("start", container_id)
        return pid

    def state(self, container_id: str) -> dict[str, Any]:
        """What `state` prints."""
        found: dict[str, Any] = json.loads(self.ok("state", container_id))
        return found

    def wait(self, container_id: str, status: str) -> None:
        """Until the container is `status`."""
        for _ in range(200):
            if self.state(container_id)["status"] == status:
                return
            time.sleep(0.05)
        raise AssertionError(f"{container_id} did not become {status}")

    def end(self) -> None:
        """Deletes what was made, whatever state it is in."""
        for container_id in self.made:
            self("delete", "--force", container_id)
