# SPDX-License-Identifier: Apache-2.0
"""podman on a storage of the tests' own. It has no daemon: there is nothing to end, only files to remove."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import machine

if TYPE_CHECKING:
    from collections.abc import Iterator


class Podman:
    """Calls podman with roots below `directory`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.command = [
            "podman", "--root", f"{directory}/root", "--runroot", f"{directory}/run", "--tmpdir", f"{directory}/libpod",
            "--network-config-dir", f"{directory}/networks", "--cgroup-manager", "cgroupfs",
            "--runtime", "runc",  # crun refuses hybrid cgroups
            "--events-backend", "none",
        ]  # fmt: skip
        # its default limits are higher than a root without CAP_SYS_RESOURCE may set
        self.run_flags = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")

    def __call__(
        self, *words: str, stdin: bytes | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """`podman WORDS…` to its end; `run` and `create` get the flags that it needs on this machine."""
        if words[0] in ("run", "create"):
            words = (words[0], *self.run_flags, *words[1:])
        done = subprocess.run(
            [*self.command, *words], input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True, timeout=timeout * machine.slowness(), check=False,
        )  # fmt: skip
        out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def ok(self, *words: str, stdin: bytes | None = None, timeout: float = 120) -> str:
        """The same, asserting exit code 0; standard output without the newlines at its end."""
        done = self(*words, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}\n{done.stdout}"
        return done.stdout.rstrip("\n")


@contextlib.contextmanager
def ready() -> Iterator[Podman]:
    """A podman with nothing in it, for `with`; its containers, mounts and files are gone afterwards."""
    directory = tempfile.mkdtemp(prefix="podman-", dir="/var/tmp")
    podman = Podman(directory)
    try:
        yield podman
    finally:
        podman("rm", "-a", "-f", "-t", "0")
        podman("umount", "-a")
        subprocess.run(["umount", "-q", f"{directory}/root/overlay"], check=False)  # podman binds it on itself
        shutil.rmtree(directory, ignore_errors=True)
