# SPDX-License-Identifier: Apache-2.0
"""runtime/engine/defaults.py: docker's defaults have the form that config.json wants."""

from __future__ import annotations

import pytest

from pyrun.cgroups import resources
from pyrun.runtime.engine import defaults
from pyrun.runtime.oci import mount_options as m
from pyrun.runtime.oci import spec


def read(mounts: object) -> dict[str, spec.Mount]:
    return {mount.destination: mount for mount in spec.parse({"ociVersion": "1.3.0", "mounts": mounts}).mounts}


def test_default_mounts() -> None:
    """Every default mount is understood; only /dev may have device nodes, and /sys and the cgroups are read-only."""
    found = read(defaults.mounts(shm_size=1 << 20))
    assert list(found) == ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    assert found["/dev/shm"].options.data == "mode=1777,size=1048576"
    assert found["/dev"].options.data == "mode=755,size=65536k"
    for path, mount in found.items():
        assert mount.options.set_flags & m.MS_NOSUID, path
        assert bool(mount.options.set_flags & m.MS_NODEV) == (path not in ("/dev", "/dev/pts")), path
        assert mount.options.readonly == (path in ("/sys", "/sys/fs/cgroup")), path


def test_privileged_mounts_are_writable() -> None:
    """--privileged makes /sys and the cgroup file system writable, and changes nothing for the next container."""
    assert not any(mount.options.readonly for mount in read(defaults.mounts(privileged=True)).values())
    assert read(defaults.mounts())["/sys"].options.readonly


@pytest.mark.parametrize("privileged", [False, True])
def test_device_rules(privileged: bool) -> None:
    """The rules are OCI's; the first denies everything, unless the container is privileged."""
    rules = resources.parse({"devices": defaults.device_rules(privileged=privileged)}).devices
    assert (rules[0].allow, rules[0].type, rules[0].access) == (privileged, "a", "rwm")
    allowed = {(rule.major, rule.minor) for rule in rules if rule.allow and "r" in rule.access}
    if not privileged:
        assert allowed == {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None), (10, 200)}


def test_paths() -> None:
    """Masked and read-only paths are absolute, below /proc and /sys, and none is in both lists."""
    masked = defaults.masked_paths()
    assert set(defaults.MASKED_PATHS) <= set(masked)
    assert all(path.startswith(("/proc/", "/sys/")) for path in (*masked, *defaults.READONLY_PATHS))
    assert not set(masked) & set(defaults.READONLY_PATHS)
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(masked)
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(defaults.READONLY_PATHS)


def test_namespaces() -> None:
    """A container has namespaces of its own, of types that config.json knows."""
    assert set(defaults.NAMESPACES) <= set(spec.NAMESPACE_TYPES)
    assert {"mount", "pid", "network", "ipc", "uts", "cgroup"} == set(defaults.NAMESPACES)
