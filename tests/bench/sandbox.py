# SPDX-License-Identifier: Apache-2.0
"""Where everything happens: PID, mount and network namespaces of the bench's own.

The host's half (Host) makes the scratch directory, runs the other half with unshare(1), and checks afterwards that
nothing is left. The inner half (Sandbox) is PID 1 there: when it ends, however it ends, the kernel ends every process
in the namespace, and bridges, veths, firewall rules and mounts go with the namespaces. Only cgroups and files outlive
it: those of docker and podman carry the bench's tag, and pyrun's follows from its roots.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import zlib
from typing import TYPE_CHECKING

from bench.clock import reap_orphans

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUSYBOX = "/usr/bin/busybox"
SIZE = "size=512m,mode=755"
PATIENCE_S = 10.0


class Host:
    """The outer half. A context: the scratch directory and the bench's cgroups are gone when it is left."""

    def __init__(self) -> None:
        self.tag = f"pyrun-bench-{os.urandom(3).hex()}"
        self.directory = tempfile.mkdtemp(prefix=f"{self.tag}-", dir="/var/tmp")
        self.links_before = links()

    def run_inside(self, program: str, arguments: Sequence[str]) -> int:
        """The exit code of this Python program with these arguments, as PID 1 of new namespaces."""
        argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inner = ["/usr/bin/python3", "-I", program, "--inside", self.directory, "--tag", self.tag, *arguments]
        child = subprocess.Popen([*argv, *inner], stdin=subprocess.DEVNULL)
        try:
            return child.wait()
        except KeyboardInterrupt:
            for pid in children(child.pid):  # the terminal has sent ^C to it too, but nobody else has
                os.kill(pid, signal.SIGTERM)
            child.wait()
            raise

    def remove_cgroups(self) -> None:
        """Those that docker and podman leave: the parent that they were given, in every v1 hierarchy."""
        remove_cgroups(self.names())

    def leftovers(self) -> list[str]:
        """One line for each thing that the bench has left on the host, waiting a moment for what is on its way out."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _found(self) -> list[str]:
        names = self.names()
        found = [f"process {pid}" for pid in processes_in_cgroups(names)]
        found += [f"cgroup {path}" for path in cgroups(names)]
        found += [f"network link {name}" for name in sorted(links() - self.links_before) if is_ours(name, names)]
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            found += [f"mount {line.strip()}" for line in file if self.tag in line]
        return found

    def names(self) -> list[str]:
        """The bench's cgroups: that of docker's and podman's containers, and that of pyrun's."""
        return [self.tag, pyrun_cgroup(self.directory, self.tag)]

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        remove_cgroups(self.names())
        shutil.rmtree(self.directory)


def pyrun_roots(directory: str, tag: str) -> tuple[str, str]:
    """The data root and the run root of pyrun."""
    return f"{directory}/pyrun", f"/run/{tag}/pyrun"


def pyrun_cgroup(directory: str, tag: str) -> str:
    """The cgroup of these roots' instance (runtime/paths.py, Paths.instance), to be known before there is one, so that
    it is found even if everything goes wrong. engines.py compares it with the one that is used."""
    data, run = pyrun_roots(directory, tag)
    return f"pyrun-{zlib.crc32(os.fsencode(data + chr(0) + run)):08x}"[:12]


class Sandbox:
    """The inner half: what the engines share."""

    def __init__(self, directory: str, tag: str) -> None:
        self.directory = directory
        self.tag = tag
        self.run = f"/run/{tag}"
        self.image_tar = f"{directory}/image.tar"
        self.rootfs = f"{directory}/rootfs"
        data_root, run_root = pyrun_roots(directory, tag)
        self.pyrun_cgroup = pyrun_cgroup(directory, tag)
        self.env = {
            "PATH": PATH,
            "HOME": directory,
            "LANG": "C.UTF-8",
            "PYRUN_DATA_ROOT": data_root,
            "PYRUN_RUN_ROOT": run_root,
        }

    def prepare(self) -> None:
        """A /run of our own (locks, sockets, netns), a network with a default route, and the image."""
        for command in (
            ("mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", "/run"),
            ("ip", "link", "set", "lo", "up"),
            ("ip", "link", "add", "uplink", "type", "bridge"),  # stands for a network card; leads nowhere
            ("ip", "address", "add", "192.0.2.2/24", "dev", "uplink"),
            ("ip", "link", "set", "uplink", "up"),
            ("ip", "route", "add", "default", "via", "192.0.2.1"),
        ):
            subprocess.run(command, check=True, env=self.env)
        os.mkdir(self.run, 0o700)
        make_image(self.image_tar)
        with tarfile.open(self.image_tar) as tar:
            tar.extractall(self.rootfs)

    def processes(self) -> list[str]:
        """What still runs when every engine was stopped, waiting a moment for what is on its way out."""
        deadline = time.monotonic() + PATIENCE_S
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _processes(self) -> list[str]:
        reap_orphans()
        found = []
        for pid in os.listdir("/proc"):
            if pid.isdecimal() and int(pid) != os.getpid():
                try:
                    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                        found.append(f"{pid} {file.read().replace(chr(0), ' ')[:200]}")
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return found


def make_image(path: str) -> None:
    """A tar of a root file system: busybox, a link for each of its commands, and what a container expects to find."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, check=True, text=True).stdout.split()
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
            entry = tarfile.TarInfo(f"etc/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode("ascii")))


# ---- what may be left on the host


def children(pid: int) -> list[int]:
    """The children of a process of one thread, proc(5); none when it is gone."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []


def links() -> set[str]:
    """The names of the network links here."""
    return set(os.listdir("/sys/class/net"))


def is_ours(link: str, names: Sequence[str]) -> bool:
    """Whether a link could be the bench's: docker's and podman's, or pyrun's with the bench's instance."""
    instances = [name.removeprefix("pyrun-") for name in names]
    return link.startswith(("docker", "podman", "cni", "veth", "br-")) or any(name in link for name in instances)


def hierarchies() -> list[str]:
    """Where cgroup file systems are mounted, v1 and v2."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return sorted(
            {line.split()[4] for line in file if line.partition(" - ")[2].startswith(("cgroup ", "cgroup2 "))}
        )


def cgroups(names: Sequence[str]) -> list[str]:
    """The cgroups of these names in every hierarchy, with those below them, deepest first."""
    found = []
    for top in hierarchies():
        for name in names:
            found += [directory for directory, _, _ in os.walk(f"{top}/{name}", topdown=False)]
    return found


def remove_cgroups(names: Sequence[str]) -> list[str]:
    """rmdir(2) of all of them, tried for a while: a v1 cgroup may be busy for a moment after its last process. Gives
    those that could not be removed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for path in cgroups(names):
            try:
                os.rmdir(path)
            except OSError:
                continue  # seen below
        left = cgroups(names)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def processes_in_cgroups(names: Sequence[str]) -> list[int]:
    """The processes in the cgroups of these names."""
    found = set()
    for path in cgroups(names):
        try:
            with open(f"{path}/cgroup.procs", encoding="ascii") as file:
                found |= {int(line) for line in file}
        except OSError:
            continue  # gone meanwhile, or a threaded cgroup
    return sorted(found)
