# SPDX-License-Identifier: Apache-2.0
"""What this machine is, what of pyrun works on it, and how to get what does not. For `info` and `version`."""

from __future__ import annotations

import os
import sys

from pyrun.runtime.engine import containers as c
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.runtime.paths import Paths

CONTROLLERS = ("cpu", "io", "memory", "pids", "cpuset")
LIMITS = {  # controller -> the flags that need it
    "cpu": "--cpus, --cpu-shares",
    "io": "--blkio-weight, --device-…-bps",
    "memory": "--memory, the OOM report",
    "pids": "--pids-limit",
    "cpuset": "--cpuset-cpus, --cpuset-mems",
}
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")
# capabilities(7) by number; what pyrun itself needs of them
NEEDED_CAPABILITIES = {21: "CAP_SYS_ADMIN", 12: "CAP_NET_ADMIN", 8: "CAP_SETPCAP", 27: "CAP_MKNOD"}


class Check(Record):
    """One thing that the machine has or lacks: `hint` says how to get it."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def checks() -> list[Check]:
    """Everything that containers here depend on. Runs without root too; raises nothing."""
    return [check for look in CHECKS for check in look()]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _kernel() -> list[Check]:
    release = os.uname().release
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    ok = numbers >= [5, 14]
    return [Check("kernel", ok, release, "" if ok else "5.14 or newer is needed (cgroup.kill, recursive read-only)")]


def _user() -> list[Check]:
    held = int(next((line.split()[1] for line in _read("/proc/self/status").splitlines() if "CapEff" in line), "0"), 16)
    lacking = [name for bit, name in NEEDED_CAPABILITIES.items() if not held >> bit & 1]
    who = f"uid {os.geteuid()}"
    if os.geteuid() != 0:
        return [Check("privileges", False, who, "run pyrun as root: sudo pyrun …")]
    return [Check("privileges", not lacking, f"{who}{', without ' + ' '.join(lacking) if lacking else ''}")]


def _cgroups() -> list[Check]:
    from pyrun.cgroups import controllers, mount

    try:
        found = mount.find()
    except PyrunError as error:
        return [Check("cgroup2", False, str(error), error.hint)]
    rows = [Check("cgroup2", True, f"mounted on {found.path}")]
    groups: dict[tuple[str, str], list[str]] = {}  # (why not, how to get it) -> controllers, ("", "") for those there
    for name in CONTROLLERS:
        lacking = controllers.missing({name: name}, found, ())
        reason = (lacking.why.partition(": ")[2] or lacking.why, lacking.hint) if lacking else ("", "")
        groups.setdefault(reason, []).append(name)
    for (why, hint), names in groups.items():
        shown = f"{' '.join(names)}: {why}" if why else ", ".join(LIMITS[name] for name in names)
        rows.append(Check("limits", not why, shown, hint))
    return rows


def _namespaces() -> list[Check]:
    lacking = [name for name in NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")]
    detail = " ".join(name for name in NAMESPACES if name not in lacking)
    hint = f"a kernel with {' '.join(lacking)} namespaces" if lacking else ""
    return [Check("namespaces", not lacking, detail, hint)]


def _overlay() -> list[Check]:
    ok = "\toverlay\n" in _read("/proc/filesystems")
    return [
        Check("overlayfs", ok, "in the kernel" if ok else "not in /proc/filesystems", "" if ok else "modprobe overlay")
    ]


def _seccomp() -> list[Check]:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    hint = "" if actions else "a kernel with CONFIG_SECCOMP_FILTER; until then --security-opt seccomp=unconfined"
    return [Check("seccomp", bool(actions), " ".join(actions) or "not in this kernel", hint)]


def _nftables() -> list[Check]:
    from pyrun.runtime.kernel import nftables

    if os.geteuid() != 0:  # libnftables itself writes to stderr then
        return [Check("nftables", False, "cannot be asked without root", "sudo pyrun info")]
    try:
        nftables.run("list tables")
    except OSError as error:
        hint = "modprobe nf_tables; without it --network none and host work"
        return [Check("nftables", False, error.strerror or str(error), hint)]
    return [Check("nftables", True, "published ports and masquerade")]


def _forwarding() -> list[Check]:
    on = _read("/proc/sys/net/ipv4/ip_forward").strip() == "1"
    return [Check("ip_forward", True, "on" if on else "off; pyrun turns it on with the first bridge network")]


def _security_modules() -> list[Check]:
    found = _read("/sys/kernel/security/lsm").strip()
    return [Check("security modules", True, found or "none that can be seen")]


CHECKS: tuple[Callable[[], list[Check]], ...] = (
    *(_kernel, _user, _cgroups, _namespaces, _overlay, _seccomp, _nftables, _forwarding, _security_modules),
)


def versions() -> dict[str, str]:
    """pyrun's own version and those of what it stands on."""
    from pyrun.runtime import __version__

    machine = os.uname()
    return {
        "Version": __version__,
        "Python": ".".join(map(str, sys.version_info[:3])),
        "Pyroute2": _distribution("pyroute2"),
        "Libseccomp": _libseccomp(),
        "Os": machine.sysname.lower(),
        "Arch": machine.machine,
        "KernelVersion": machine.release,
    }


def _distribution(name: str) -> str:
    from importlib import metadata  # not `import pyroute2`, which takes 150 ms

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _libseccomp() -> str:
    from pyrun.runtime.kernel import libseccomp

    return libseccomp.version()


def operating_system() -> str:
    """PRETTY_NAME of os-release(5)."""
    lines = _read("/etc/os-release").splitlines()
    return next((line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "Linux")


def info(paths: Paths) -> dict[str, Any]:
    """The machine and this pyrun, docker's names where it has one; Checks is pyrun's own."""
    from pyrun.rootfs.store import ImageStore

    store = c.ContainerStore(paths)
    found, problems = store.all()
    states = [store.settle(container.id, state).status for container, state in found]
    machine = os.uname()
    rows = checks()
    memory = _read("/proc/meminfo").split()
    return {
        "ServerVersion": versions()["Version"],
        "Containers": len(found) + len(problems),
        "ContainersRunning": states.count(c.RUNNING),
        "ContainersPaused": states.count(c.PAUSED),
        "ContainersStopped": len(states) - states.count(c.RUNNING) - states.count(c.PAUSED),
        "Images": len(ImageStore(paths).list()),
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "KernelVersion": machine.release,
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": machine.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": int(memory[1]) * 1024 if len(memory) > 1 else 0,
        "Name": machine.nodename,
        "DockerRootDir": paths.data,
        "DataRoot": paths.data,
        "RunRoot": paths.run,
        "Monitor": monitor(paths),
        "Checks": [{"Name": row.name, "Ok": row.ok, "Detail": row.detail, "Hint": row.hint} for row in rows],
        "Warnings": [f"{row.name}: {row.detail}" for row in rows if not row.ok],
    }


def monitor(paths: Paths) -> str:
    """ "pid 123" of the running monitor, or that none runs."""
    from pyrun.runtime.monitor import client

    try:
        return f"pid {client.request(paths, {'call': 'ping'}, start=False)['pid']}"
    except (PyrunError, OSError):
        return "not running; the next container starts it"
