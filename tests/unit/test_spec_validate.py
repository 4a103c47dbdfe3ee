# SPDX-License-Identifier: Apache-2.0
"""runtime/oci/validate.py: rules between the fields of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrun.runtime.errors import SpecError
from pyrun.runtime.oci import spec, validate

if TYPE_CHECKING:
    from pathlib import Path

JOINED = [{"type": "mount", "path": "/proc/1/ns/mnt"}]
MAP = [{"containerID": 0, "hostID": 100000, "size": 1000}]


def document(**linux: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "process": {"args": ["sh"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], **linux},
    }
    return made


def check(made: dict[str, Any]) -> None:
    """The checks that look only at the configuration."""
    found = spec.parse(made)
    for one in validate.CHECKS:
        one(found)


def spaces(*kinds: str) -> list[dict[str, str]]:
    return [{"type": "mount"}, *({"type": kind.partition(":")[0], "path": kind.partition(":")[2]} for kind in kinds)]


GOOD: list[dict[str, Any]] = [
    document(),
    {**document(namespaces=spaces("uts")), "hostname": "web", "domainname": "x"},
    {**document(namespaces=spaces("uts:/proc/1/ns/uts")), "hostname": "web"},
    document(namespaces=spaces("user"), uidMappings=MAP, gidMappings=MAP),
    document(namespaces=spaces("user:/proc/1/ns/user")),
    document(namespaces=spaces("time"), timeOffsets={"monotonic": {"secs": 1}}),
    document(namespaces=spaces("ipc", "network"), sysctl={"kernel.shmmax": "1", "net.core.somaxconn": "1"}),
    document(cgroupsPath="system.slice:docker:1234"),
    document(cgroupsPath="/docker/1234..5"),
    document(namespaces=JOINED),
    document(personality={"domain": "LINUX32"}),
    {**document(), "mounts": [{"destination": "/x", "source": "/y", "options": ["bind"]}]},
    {**document(), "mounts": [{"destination": "/x", "type": "tmpfs", "options": ["tmpcopyup"]}]},
]


@pytest.mark.parametrize("made", GOOD)
def test_good(made: dict[str, Any]) -> None:
    """Sensible combinations pass every check."""
    check(made)


def mount(**fields: Any) -> dict[str, Any]:
    return {**document(), "mounts": [{"destination": "/x", **fields}]}


def run(**fields: Any) -> dict[str, Any]:
    made = document()
    made["process"].update(fields)
    return made


OVERLAP = [{"containerID": 0, "hostID": 0, "size": 10}, {"containerID": 9, "hostID": 100, "size": 1}]
BAD: list[tuple[dict[str, Any], str]] = [
    (document(namespaces=spaces("pid", "pid")), "linux.namespaces[2].type: 'pid' is already namespaces[1]"),
    (document(namespaces=[{"type": "pid"}]), "linux.namespaces: a mount namespace is needed"),
    (
        {**document(namespaces=JOINED), "mounts": [{"destination": "/x", "type": "tmpfs"}]},
        "mounts: needs a new mount namespace, and the configuration joins one",
    ),
    (document(namespaces=JOINED, maskedPaths=["/proc/kcore"]), "linux.maskedPaths: needs a new mount namespace"),
    ({**document(namespaces=JOINED), "root": {"path": "/", "readonly": True}}, "root.readonly: needs a new mount"),
    ({**document(), "hostname": "web"}, "hostname: needs a uts namespace"),
    ({**document(), "domainname": "web"}, "domainname: needs a uts namespace"),
    ({**document(namespaces=spaces("uts")), "hostname": "w" * 65}, "hostname: is 65 bytes long"),
    ({**document(namespaces=spaces("uts")), "hostname": "ä" * 33}, "hostname: is 66 bytes long"),
    (document(namespaces=spaces("user")), "linux.uidMappings: is missing"),
    (document(namespaces=spaces("user"), uidMappings=MAP), "linux.gidMappings: is missing"),
    (document(uidMappings=MAP), "linux.uidMappings: is set without a user namespace"),
    (document(namespaces=spaces("user:/x"), gidMappings=MAP), "linux.gidMappings: is set, and the user namespace that"),
    (
        document(namespaces=spaces("user"), uidMappings=OVERLAP, gidMappings=MAP),
        "linux.uidMappings[1].containerID: overlaps with uidMappings[0]",
    ),
    (document(namespaces=spaces("user"), uidMappings=MAP * 341, gidMappings=MAP), "linux.uidMappings: has 341 entries"),
    (
        {
            **run(user={"uid": 1000, "gid": 0}),
            "linux": document(namespaces=spaces("user"), uidMappings=MAP, gidMappings=MAP)["linux"],
        },
        "process.user.uid: 1000 is not mapped in the user namespace",
    ),
    (
        {
            **run(user={"additionalGids": [1, 1000]}),
            "linux": document(namespaces=spaces("user"), uidMappings=MAP, gidMappings=MAP)["linux"],
        },
        "process.user.additionalGids[1]: 1000 is not mapped",
    ),
    (document(timeOffsets={"monotonic": {"secs": 1}}), "linux.timeOffsets: needs a new time namespace"),
    (document(namespaces=spaces("time:/x"), timeOffsets={"monotonic": {}}), "linux.timeOffsets: needs a new time"),
    (document(sysctl={"net.core.somaxconn": "1"}), 'linux.sysctl["net.core.somaxconn"]: it needs a network namespace'),
    (
        document(sysctl={"kernel.core_pattern": "|/x"}),
        'linux.sysctl["kernel.core_pattern"]: it is a parameter of the whole',
    ),
    (document(cgroupsPath="/a/../../b"), "linux.cgroupsPath: '/a/../../b' contains '..'"),
    (document(cgroupsPath="..:a:b"), "linux.cgroupsPath: '..:a:b' contains '..'"),
    (document(cgroupsPath="/a\nb"), "linux.cgroupsPath: contains a line break"),
    (document(cgroupsPath="/" + "a" * 256), "linux.cgroupsPath: is too long"),
    (
        document(devices=[{"type": "p", "path": "/dev/a"}, {"type": "p", "path": "/dev//a"}]),
        "linux.devices[1].path: /dev/a is already",
    ),
    (mount(options=["bind"]), "mounts[0].source: is missing"),
    (mount(source="/x"), "mounts[0].type: is missing"),
    (mount(type="none", options=["ro", "remount"]), "mounts[0].options[1]: remount is not supported"),
    (mount(type="proc", options=["tmpcopyup"]), "mounts[0].options: tmpcopyup is for tmpfs, not for proc"),
    (mount(source="/y", options=["bind"], uidMappings=MAP), "mounts[0]: uidMappings and gidMappings must be given"),
    (mount(type="tmpfs", options=["idmap"]), "mounts[0]: an id-mapped mount must be a bind mount"),
    (mount(source="/y", options=["bind", "idmap"]), "mounts[0]: idmap needs uidMappings and gidMappings, or a user"),
    (
        mount(source="/y", options=["bind"], uidMappings=OVERLAP, gidMappings=MAP),
        "mounts[0].uidMappings[1].containerID: overlaps",
    ),
    (run(scheduler={"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: 20 is not between -20 and 19"),
    (run(scheduler={"policy": "SCHED_OTHER", "priority": 1}), "process.scheduler.priority: SCHED_OTHER takes none"),
    (run(scheduler={"policy": "SCHED_RR", "runtime": 1}), "process.scheduler: runtime, deadline and period"),
    (run(apparmorProfile="docker-default"), "process.apparmorProfile: is not supported"),
    (run(selinuxLabel="x"), "process.selinuxLabel: is not supported"),
    (document(mountLabel="x"), "linux.mountLabel: is not supported"),
    (
        document(
            seccomp={
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": "/x",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
            }
        ),
        "linux.seccomp.syscalls: SCMP_ACT_NOTIFY is not supported",
    ),
    (document(intelRdt={"closID": "x"}), "linux.intelRdt: is not supported"),
    (document(netDevices={"eth0": {}}), "linux.netDevices: is not supported"),
    (document(memoryPolicy={"mode": "MPOL_LOCAL"}), "linux.memoryPolicy: is not supported"),
]


@pytest.mark.parametrize(("made", "message"), BAD)
def test_bad(made: dict[str, Any], message: str) -> None:
    """A combination that cannot work, or would touch the host, is refused with its path."""
    with pytest.raises(SpecError) as caught:
        check(made)
    assert str(caught.value).startswith(f"config.json: {message}")


def test_rootfs(tmp_path: Path) -> None:
    """The root file system must be a directory; a relative path starts at the bundle."""
    found = spec.parse(document())
    with pytest.raises(SpecError, match=r"root\.path: .*/rootfs: no such file or directory"):
        validate.validate(found, str(tmp_path))
    (tmp_path / "rootfs").write_text("")
    with pytest.raises(SpecError, match=r"root\.path: .*/rootfs: not a directory"):
        validate.validate(found, str(tmp_path))
    (tmp_path / "rootfs").unlink()
    (tmp_path / "rootfs").mkdir()
    validate.validate(found, str(tmp_path))
    with pytest.raises(SpecError, match=r"config\.json: root: is missing"):
        validate.validate(found.replace(root=None), str(tmp_path))


def test_the_hosts_own_namespace_by_path(tmp_path: Path) -> None:
    """Joining the network namespace of the host by its path doesn't make its parameters the container's."""
    (tmp_path / "rootfs").mkdir()
    found = spec.parse(document(namespaces=spaces("network:/proc/self/ns/net"), sysctl={"net.core.somaxconn": "1"}))
    with pytest.raises(SpecError, match=r"the network namespace that is joined, /proc/self/ns/net, is the host's"):
        validate.validate(found, str(tmp_path))
