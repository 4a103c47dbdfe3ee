# SPDX-License-Identifier: Apache-2.0
"""A docker daemon of the tests' own: its own data, state, socket and cgroups, no bridge, no firewall rule, no mount
that could stay.

    with dockerd.started() as docker:
        docker.ok("load", "-i", path)
        assert docker.ok("run", "--rm", "image", "echo", "hi") == "hi"

It runs in a mount namespace of its own, whose mounts go with it, and starts a containerd of its own. Both are ended by
their pids. Containers get no network unless the test says otherwise (--network host).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian's client fits its daemon; another one may come first on PATH
CLIENTS = ("/usr/bin/docker", "docker")
START_S, STOP_S = 60.0, 60.0


class CannotStart(Exception):
    """The daemon does not run here; the text says why."""


class Dockerd:
    """The daemon, and calls of its client."""

    def __init__(self, directory: str, *, host_network: bool = False) -> None:
        """`directory` must be new and have a short path: a socket's is at most 107 bytes long."""
        self.directory = directory
        self.socket = f"{directory}/docker.sock"
        self.cgroup = f"pyrun-tests-{os.urandom(3).hex()}"
        self.client = next((path for path in CLIENTS if shutil.which(path)), "")
        self.run_flags: tuple[str, ...] = ("--network", "host" if host_network else "none")
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers. Raises CannotStart."""
        if not self.client or not shutil.which("dockerd"):
            raise CannotStart("dockerd or docker is not installed")
        with open(f"{self.directory}/daemon.json", "w", encoding="utf-8") as file:
            file.write("{}")  # else the machine's own configuration is read
        argv = [
            "unshare", "--mount", "--propagation", "slave",
            "dockerd", "--config-file", f"{self.directory}/daemon.json", "--data-root", f"{self.directory}/data",
            "--exec-root", f"{self.directory}/exec", "--pidfile", f"{self.directory}/docker.pid",
            "--host", f"unix://{self.socket}", "--iptables=false", "--ip6tables=false", "--ip-masq=false",
            "--ip-forward=false", "--bridge=none", "--userland-proxy=false",
            "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.cgroup}",
            "--oom-score-adjust", "0",  # below 0 takes CAP_SYS_RESOURCE, which not every root has
            "--log-level", "error",
        ]  # fmt: skip
        with open(f"{self.directory}/log", "wb") as log:
            self._daemon = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self._environ()
            )
        deadline = time.monotonic() + START_S * machine.slowness()
        while self("version").returncode:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                said = self.log()
                self.stop()
                raise CannotStart(f"dockerd does not start: {said}")
            time.sleep(0.1)

    def _environ(self) -> dict[str, str]:
        """Without what would lead the client, or the daemon's own containerd, to another one; builds by BuildKit."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "CONTAINERD_"))}
        return {**own, "DOCKER_BUILDKIT": "1"}  # 20.10 has it, and does not use it unless told to

    def log(self) -> str:
        """The end of what the daemon has said."""
        with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:].strip()

    def __call__(
        self, *words: str, stdin: bytes | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """`docker WORDS…` to its end; `run` and `create` get the flags that this daemon needs."""
        if words[0] in ("run", "create") and "--network" not in words:
            words = (words[0], *self.run_flags, *words[1:])
        done = subprocess.run(
            [self.client, "-H", f"unix://{self.socket}", *words],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True,
            timeout=timeout * machine.slowness(), check=False, env={**self._environ(), "HOME": self.directory},
        )  # fmt: skip
        out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def ok(self, *words: str, stdin: bytes | None = None, timeout: float = 120) -> str:
        """The same, asserting exit code 0; standard output without the newlines at its end."""
        done = self(*words, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}\n{done.stdout}"
        return done.stdout.rstrip("\n")

    def stop(self) -> None:
        """Removes its containers, ends it and its containerd by their pids, and removes its cgroups."""
        if self._daemon is None:
            return
        containerd = self._containerd()
        if self._daemon.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                left = self("ps", "-aq").stdout.split()
                if left:
                    self("rm", "-f", *left)
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(STOP_S * machine.slowness())
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        self._daemon = None
        if containerd:
            _end(containerd)
        for path in _cgroups(self.cgroup):
            with contextlib.suppress(OSError):
                os.rmdir(path)

    def _containerd(self) -> int:
        """The pid of the containerd that the daemon has started, 0 for none."""
        try:
            with open(f"{self.directory}/exec/containerd/containerd.pid", encoding="ascii") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return pid if os.fsencode(self.directory) in file.read() else 0  # else the pid is somebody else's now
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return 0


def _end(pid: int) -> None:
    """SIGTERM, after ten seconds SIGKILL, for a process that is not our child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    signal.pidfd_send_signal(pidfd, 0)
                except ProcessLookupError:
                    return
                time.sleep(0.05)
    finally:
        os.close(pidfd)


def _cgroups(name: str) -> list[str]:
    """The cgroups of this name in every hierarchy, with those below them, deepest first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        tops = {line.split()[4] for line in file if line.partition(" - ")[2].startswith(("cgroup ", "cgroup2 "))}
    return [path for top in sorted(tops) for path, _, _ in os.walk(f"{top}/{name}", topdown=False)]


@contextlib.contextmanager
def started(*, host_network: bool = False) -> Iterator[Dockerd]:
    """A running daemon, for `with`; nothing of it is left afterwards. Raises CannotStart."""
    directory = tempfile.mkdtemp(prefix="dockerd-", dir="/var/tmp")  # overlayfs cannot stand on every /tmp
    docker = Dockerd(directory, host_network=host_network)
    try:
        docker.start()
        yield docker
    finally:
        docker.stop()
        shutil.rmtree(directory, ignore_errors=True)
