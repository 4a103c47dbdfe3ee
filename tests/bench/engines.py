# SPDX-License-Identifier: Apache-2.0
"""pyrun, docker and podman behind the one command line that they share, each with roots of its own below the scratch
directory. Docker means Debian's dockerd, started here and ended by its pid."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING

from bench.clock import Failed, call, reap_orphans, spawn, wait_for_exit

if TYPE_CHECKING:
    from bench.clock import Result
    from bench.sandbox import Sandbox

IMAGE = "pyrun-bench:1"
DOCKER = "/usr/bin/docker"  # Debian's, which fits its daemon; another one may come first on PATH


class Engine:
    """One of the three. `command` is what every call begins with."""

    name = ""
    command: tuple[str, ...] = ()
    run_flags: tuple[str, ...] = ()

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def argv(self, *words: str) -> tuple[str, ...]:
        """A whole command line: `run` gets the flags that this engine needs on this machine."""
        if words[0] == "run":
            words = ("run", *self.run_flags, *words[1:])
        return (*self.command, *words)

    def __call__(self, *words: str, expected: int = 0) -> Result:
        """Runs `docker WORDS…` to its end. Raises Failed for another exit code."""
        return call(self.argv(*words), env=self.sandbox.env).ok(expected)

    def start(self) -> None:
        """Makes it ready for its first command and imports the image."""
        self("import", self.sandbox.image_tar, IMAGE)

    def stop(self) -> None:
        """Ends its processes."""

    def version(self) -> str:
        """What it says of itself, on one line."""
        return call((self.command[0], "--version"), env=self.sandbox.env).ok().output.strip().splitlines()[0]

    def remove(self, *names: str) -> float:
        """Kills and removes containers by one command; seconds."""
        return self("rm", "-f", *names).seconds if names else 0.0

    def remove_all(self) -> float:
        """remove() of every container there is."""
        return self.remove(*self("ps", "-aq").output.split())


class Docker(Engine):
    """Debian's docker.io, with containerd and runc."""

    name = "docker"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.socket = f"{sandbox.run}/docker.sock"
        self.command = (DOCKER, "-H", f"unix://{self.socket}")
        self.pid = 0

    def start(self) -> None:
        """Starts dockerd, which starts containerd, and waits until it answers."""
        sandbox = self.sandbox
        argv = (
            "dockerd", "--data-root", f"{sandbox.directory}/docker", "--exec-root", f"{sandbox.run}/docker",
            "--host", f"unix://{self.socket}", "--pidfile", f"{sandbox.run}/docker.pid",
            "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{sandbox.tag}",
            "--oom-score-adjust", "0",  # below 0 takes CAP_SYS_RESOURCE, which not every root has
            "--log-level", "error",
        )  # fmt: skip
        log = os.open(f"{sandbox.directory}/dockerd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.pid = spawn(argv, sandbox.env, log)
        os.close(log)
        deadline = time.monotonic() + 60
        while call(self.argv("version"), env=sandbox.env).code:
            if time.monotonic() > deadline or os.waitpid(self.pid, os.WNOHANG)[0]:
                with open(f"{sandbox.directory}/dockerd.log", encoding="utf-8", errors="replace") as file:
                    raise Failed(f"dockerd does not start:\n{file.read()[-4000:]}")
            time.sleep(0.1)
        super().start()

    def stop(self) -> None:
        """SIGTERM for dockerd, by its pid: it ends containerd itself."""
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            wait_for_exit(self.pid, 60)

    def version(self) -> str:
        """The client's, containerd's and runc's."""
        lines = [super().version()]
        for program in ("containerd", "runc"):
            text = call((program, "--version"), env=self.sandbox.env).ok().output.splitlines()[0]
            lines.append(next(word for word in (program, *text.split()[1:]) if word[0].isdigit()))
        return f"{lines[0]}, containerd {lines[1]}, runc {lines[2]}"


class Podman(Engine):
    """Debian's podman, with netavark and conmon."""

    name = "podman"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.globals = (
            "podman", "--root", f"{sandbox.directory}/podman", "--runroot", f"{sandbox.run}/podman",
            "--tmpdir", f"{sandbox.run}/libpod", "--network-config-dir", f"{sandbox.directory}/podman-networks",
            "--cgroup-manager", "cgroupfs",
        )  # fmt: skip
        self.command = self.globals

    def start(self) -> None:
        """Imports the image, and finds out what else podman needs on this machine: crun refuses hybrid cgroups, and
        podman's default limits are higher than a root without CAP_SYS_RESOURCE may set."""
        super().start()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        limits = ("--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={processes}:{processes}")
        parent = ("--cgroup-parent", f"/{self.sandbox.tag}")
        said = ""
        for runtime in ((), ("--runtime", "runc")):
            for flags in ((), limits):
                self.command, self.run_flags = (*self.globals, *runtime), (*parent, *flags)
                tried = call(self.argv("run", "--rm", IMAGE, "true"), env=self.sandbox.env)
                if tried.code == 0:
                    return
                said = tried.output
        raise Failed(f"podman cannot run a container here: {said}")

    def remove(self, *names: str) -> float:
        """As docker does it: podman would give each process ten seconds to heed SIGTERM first."""
        return self("rm", "-f", "-t", "0", *names).seconds if names else 0.0

    def version(self) -> str:
        """Its version and its runtime."""
        runtime = "runc" if "runc" in self.command else "its default runtime"
        return f"{super().version()} with {runtime}"


class Pyrun(Engine):
    """The installed pyrun, or the one that --pyrun names."""

    name = "pyrun"

    def __init__(self, sandbox: Sandbox, program: str) -> None:
        super().__init__(sandbox)
        self.command = (program,)
        run_root = sandbox.env["PYRUN_RUN_ROOT"]
        self.sockets = (f"{run_root}/monitor.sock", f"{run_root}/keeper.sock")

    def start(self) -> None:
        """Imports the image, and makes sure that what it will leave in cgroups is known by name."""
        super().start()
        self("run", "-d", "--name", "probe", IMAGE, "sleep", "86400")
        used = self.cgroup("probe")
        self.remove("probe")
        if used != self.sandbox.pyrun_cgroup:
            raise Failed(f"pyrun's cgroup is {used}, not {self.sandbox.pyrun_cgroup}: sandbox.py has to follow it")

    def stop(self) -> None:
        """Ends the monitor, and the keeper if it is still there, by the pids that their sockets tell."""
        for path in self.sockets:
            pid = listener(path)
            if pid:
                os.kill(pid, signal.SIGTERM)
                wait_for_exit(pid)
        reap_orphans()

    def cgroup(self, container: str) -> str:
        """The name of the cgroup2 directory that has a container's below it."""
        pid = self("inspect", "--format", "{{.State.Pid}}", container).output.strip()
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            path = next(line.strip()[3:] for line in file if line.startswith("0::"))
        return path.split("/")[1]


def listener(path: str) -> int:
    """The process that listens on a Unix socket, by SO_PEERCRED (unix(7)); 0 when nobody does."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            try:
                client.connect(path)
            except OSError:
                continue
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[0])
    return 0


def answer(port: int, request: bytes, patience_s: float = 10.0) -> bytes:
    """All that a TCP port of 127.0.0.1 answers, tried until it does. Raises Failed."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1.0) as client:
                client.sendall(request)
                said = b""
                while data := client.recv(4096):  # until it closes
                    said += data
                if said:
                    return said
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.02)
    raise Failed(f"port {port} does not answer")
