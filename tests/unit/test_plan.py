# SPDX-License-Identifier: Apache-2.0
"""plan(spec): which steps, in which order. No root, no kernel: plans are values that can be compared."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.runtime.errors import Unsupported
from pyrun.runtime.oci import plan as p
from pyrun.runtime.oci import spec
from pyrun.runtime.oci import steps as s

CLONE = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
}


def config(**changes: Any) -> dict[str, Any]:
    """A small but complete configuration, with changes to its top level."""
    return {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": ["true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "uts", "ipc", "cgroup")]},
        **changes,
    }


def steps_of(raw: dict[str, Any], **extras: Any) -> list[s.Step]:
    """The steps of the plan for a configuration."""
    return list(p.plan(spec.parse(raw), p.Extras(root_path="/bundle/rootfs", **extras)).steps)


def operations(raw: dict[str, Any], **extras: Any) -> list[str]:
    return [step.op for step in steps_of(raw, **extras)]


def before(ops: list[str], *order: str) -> bool:
    """Whether the operations occur, in this order."""
    positions = [ops.index(op) for op in order]
    return positions == sorted(positions)


def linux(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = config()["linux"]
    return {**base, **changes}


def process(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = config()["process"]
    return {**base, **changes}


def test_the_same_spec_gives_the_same_plan() -> None:
    """plan() is pure: two calls give equal values."""
    parsed = spec.parse(config())
    extras = p.Extras(root_path="/bundle/rootfs")
    assert p.plan(parsed, extras) == p.plan(parsed, extras)


def test_load_bearing_order() -> None:
    """Each neighbour pair that must not be swapped."""
    raw = config(
        hostname="web",
        root={"path": "rootfs", "readonly": True},
        process=process(capabilities={"bounding": [], "effective": [], "permitted": []}, oomScoreAdj=5),
        linux=linux(maskedPaths=["/proc/kcore"], readonlyPaths=["/proc/sys"], sysctl={"net.ipv4.ip_forward": "1"}),
    )
    ops = operations(raw, host_ready=True, seccomp=(0, b"12345678"), reaper=True)
    assert before(ops, "PROPAGATION", "ROOT_BIND", "MOUNT", "MKNOD", "READONLY", "MASK", "ROOT_READONLY", "PIVOT_ROOT")
    assert before(ops, "PIVOT_ROOT", "HOSTNAME", "SYNC", "SYSCTL", "BOUNDING", "IDS", "SECCOMP", "CAPABILITIES")
    assert before(ops, "OOM_SCORE_ADJ" if "OOM_SCORE_ADJ" in ops else "PROC_WRITE", "IDS")
    assert before(ops, "IDS", "CHDIR", "LOOKUP", "REAPER", "EXEC")
    assert ops[-1] == "EXEC"


def test_seccomp_comes_last_with_no_new_privs_and_before_capabilities_without() -> None:
    """Without no_new_privs a filter needs CAP_SYS_ADMIN, which the Capabilities step takes away."""
    caps: dict[str, list[str]] = {"bounding": [], "effective": [], "permitted": []}
    with_nnp = operations(
        config(process=process(capabilities=caps, noNewPrivileges=True)), seccomp=(0, b"12345678"), wait_for_start=True
    )
    assert before(with_nnp, "NO_NEW_PRIVS", "CAPABILITIES", "LOOKUP", "SECCOMP", "WAIT_START", "EXEC")
    without = operations(config(process=process(capabilities=caps)), seccomp=(0, b"12345678"))
    assert before(without, "IDS", "SECCOMP", "CAPABILITIES", "CHDIR")


def test_all_new_namespaces_are_one_clone3() -> None:
    """Without a user namespace or joined ones nothing is left for unshare or setns."""
    plan = p.plan(spec.parse(config()), p.Extras(root_path="/r"))
    assert plan.clone_flags == sum(CLONE[kind] for kind in ("mount", "pid", "uts", "ipc", "cgroup")) | 0x40000000
    assert not plan.joined
    assert not {step.op for step in plan.steps} & {"SETNS", "UNSHARE", "FORK"}


def test_user_namespace_maps_ids_before_anything_else() -> None:
    """The mapped root owns what is made; without joined namespaces clone3 still makes all at once."""
    raw = config(
        linux=linux(
            namespaces=[{"type": kind} for kind in ("user", "mount", "pid")],
            uidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}],
            gidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}],
        )
    )
    plan = p.plan(spec.parse(raw), p.Extras(root_path="/r"))
    assert plan.maps_ids
    assert plan.clone_flags & CLONE["user"]
    assert [step.op for step in plan.steps[:2]] == ["SYNC", "BECOME_ROOT"]
    assert any(isinstance(step, s.Bind) and step.target == "/dev/null" for step in plan.steps), "mknod is refused there"


def test_joined_namespaces_come_before_a_new_user_namespace() -> None:
    """Afterwards the process has no privileges over them."""
    raw = config(
        linux=linux(
            namespaces=[{"type": "user"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/x"}],
            uidMappings=[{"containerID": 0, "hostID": 1, "size": 1}],
            gidMappings=[{"containerID": 0, "hostID": 1, "size": 1}],
        )
    )
    plan = p.plan(spec.parse(raw), p.Extras(root_path="/r"))
    assert plan.clone_flags == 0
    assert plan.joined == (("ns:network", "/run/netns/x"),)
    ops = [step.op for step in plan.steps]
    assert ops[:5] == ["SETNS", "UNSHARE", "SYNC", "BECOME_ROOT", "UNSHARE"]


def test_joined_pid_namespace_needs_a_fork() -> None:
    """setns moves only children there."""
    raw = config(linux=linux(namespaces=[{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}]))
    ops = operations(raw)
    assert before(ops, "SETNS", "FORK", "PROC_HANDLE")


def test_time_namespace_offsets_are_written_before_the_fork() -> None:
    """The kernel takes them only while the namespace is empty; the pid namespace waits too (CLONE_PARENT)."""
    raw = config(
        linux=linux(
            namespaces=[{"type": kind} for kind in ("mount", "pid", "time")],
            timeOffsets={"boottime": {"secs": 100, "nanosecs": 5}},
        )
    )
    plan = p.plan(spec.parse(raw), p.Extras(root_path="/r"))
    assert plan.clone_flags == CLONE["mount"]
    ops = [step.op for step in plan.steps]
    assert before(ops, "UNSHARE", "TIME_OFFSETS", "FORK", "PROPAGATION")
    offsets = next(step for step in plan.steps if isinstance(step, s.TimeOffsets))
    assert offsets.offsets == "boottime 100 5\n"


def test_own_cgroup_is_bound_not_mounted() -> None:
    """Mounting cgroup2 anew takes the kernel 12 ms; the container's own directory shows the same."""
    mounts = [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}]
    steps = steps_of(config(mounts=mounts), cgroup_directory="/sys/fs/cgroup/pyrun/x")
    bound = [step for step in steps if isinstance(step, s.Bind)]
    assert [(step.source, step.target, step.attr_set) for step in bound] == [
        ("/sys/fs/cgroup/pyrun/x", "/sys/fs/cgroup", 1 | 2)
    ]
    steps = steps_of(config(mounts=mounts))
    assert [step.fstype for step in steps if isinstance(step, s.Mount)] == ["cgroup2"]


def test_a_configured_device_replaces_the_default_of_its_path() -> None:
    """Two steps for one path would fail with EEXIST."""
    device = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8}
    nodes = [step for step in steps_of(config(linux=linux(devices=[device]))) if isinstance(step, s.Mknod)]
    null = [step for step in nodes if step.path == "/dev/null"]
    assert null == [s.Mknod("/dev/null", 0o020600, 0x103, 7, 8)]


def test_no_devices_are_made_in_a_bound_dev() -> None:
    """A bind mount of /dev is somebody else's directory."""
    raw = config(mounts=[{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}])
    assert "MKNOD" not in operations(raw)
    assert "SYMLINK" not in operations(raw)


def test_shared_propagation_keeps_the_root_off_the_host() -> None:
    """With a shared root the mount that holds it is made private first, or the container's root shows on the host."""
    ops = operations(config(linux=linux(rootfsPropagation="rshared")))
    assert before(ops, "PROPAGATION", "PARENT_PRIVATE", "ROOT_BIND")
    assert "PARENT_PRIVATE" not in operations(config())


def test_what_is_not_supported_is_refused_with_its_path() -> None:
    """A mount option that would be ignored is an error."""
    mounts = [{"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}]
    with pytest.raises(Unsupported, match=r"config.json: mounts\[0\]: tmpcopyup"):
        steps_of(config(mounts=mounts))


def test_exec_enters_the_pid_namespace_last() -> None:
    """CVE-2016-9962: what a process of the container could stop and use has no more than the program gets."""
    parsed = spec.parse_process(process(capabilities={"bounding": [], "effective": [], "permitted": []}))
    plan = p.exec_plan(
        parsed, 0x20000000 | 0x20000, p.Extras(stdio=("a", "b", "c"), host_ready=True, seccomp=(0, b"8" * 8))
    )
    ops = [step.op for step in plan.steps]
    assert ops[:2] == ["SETNS", "ROOT_HERE"]
    assert before(
        ops, "BOUNDING", "IDS", "SECCOMP", "CAPABILITIES", "FORK", "STDIO", "SESSION", "SYNC", "CHDIR", "EXEC"
    )
    assert "PROC_HANDLE" not in ops
    assert plan.clone_flags == 0


@pytest.mark.parametrize(
    ("major", "minor"),
    [(1, 3), (136, 0), (8, 300), (0xFFF, 0xFFFFF)],
)
def test_makedev_is_the_kernels(major: int, minor: int) -> None:
    """os.makedev() is libc's, which is the kernel's."""
    import os

    assert p.makedev(major, minor) == os.makedev(major, minor)


def test_every_step_says_what_and_why() -> None:
    """--explain has a line and a reason for each."""
    raw = config(
        hostname="h",
        domainname="d",
        linux=linux(maskedPaths=["/a"], readonlyPaths=["/b"], sysctl={"kernel.shmmax": "1"}),
    )
    for step in steps_of(raw, host_ready=True, netlink=True, stdio=("i", "o", "e"), reaper=True, keyring="k"):
        assert step.describe().strip(), step
        assert len(step.why) > 5, step
