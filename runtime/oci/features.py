# SPDX-License-Identifier: Apache-2.0
"""features(): what `create` takes, found out by asking the code that `create` asks.

Callers switch their behaviour on this, so nothing is listed by hand that a check elsewhere could contradict: names come
from the tables that the parsers use, and whether a part of the configuration is supported is what parsing, validating
and planning a small configuration with it says.
"""

from __future__ import annotations

from pyrun.runtime.errors import PyrunError
from pyrun.runtime.oci import capabilities, create, mount_options, plan, seccomp, spec, state, validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OLDEST = "1.0.0"


def features() -> dict[str, Any]:
    """The document of features.md."""
    from pyrun.runtime import __version__

    return {
        "ociVersionMin": OLDEST,
        "ociVersionMax": state.SPEC_VERSION,
        "hooks": list(create.HOOKS),
        "mountOptions": [word for word in mount_options.known_options() if _mounts(word)],
        "linux": {
            "namespaces": sorted(spec.NAMESPACE_TYPES),
            "capabilities": list(capabilities.NAMES[: capabilities.last_cap() + 1]),
            "cgroup": {"v1": False, "v2": True, "systemd": False, "systemdUser": False, "rdma": _rdma()},
            "seccomp": _seccomp(),
            "apparmor": {"enabled": _takes(process={"apparmorProfile": "profile"})},
            "selinux": {"enabled": _takes(process={"selinuxLabel": "label"}, linux={"mountLabel": "label"})},
            "intelRdt": {"enabled": _takes(linux={"intelRdt": {"closID": "class"}})},
            "memoryPolicy": {"enabled": _takes(linux={"memoryPolicy": {"mode": "MPOL_LOCAL"}})},
            "mountExtensions": {"idmap": {"enabled": _idmap()}},
            "netDevices": {"enabled": _takes(linux={"netDevices": {"eth1": {}}})},
        },
        "annotations": {"pyrun.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _takes(
    *, process: dict[str, Any] | None = None, linux: dict[str, Any] | None = None, mount: dict[str, Any] | None = None
) -> bool:
    """Whether a small configuration with these values in it can be parsed, is valid, and has a plan."""
    config = {
        "ociVersion": state.SPEC_VERSION,
        "root": {"path": "rootfs"},
        "process": {"args": ["true"], "cwd": "/", **(process or {})},
        "mounts": [mount] if mount else [],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], **(linux or {})},
    }
    try:
        parsed = spec.parse(config)
        for check in validate.CHECKS:
            check(parsed)
        plan.plan(parsed, plan.Extras(root_path="/"))
    except PyrunError:
        return False
    return True


def _mounts(word: str) -> bool:
    """Whether a mount may have this option: a tmpfs, or a bind mount."""
    return any(
        _takes(mount={"destination": "/m", "type": kind, "source": "/s", "options": options})
        for kind, options in (("tmpfs", [word]), ("bind", ["bind", word]))
    )


def _idmap() -> bool:
    mapping = [{"containerID": 0, "hostID": 1000, "size": 1}]
    wanted = {"destination": "/m", "type": "bind", "source": "/s", "options": ["bind"]}
    return _takes(mount={**wanted, "uidMappings": mapping, "gidMappings": mapping})


def _rdma() -> bool:
    return _takes(linux={"resources": {"rdma": {"mlx5_1": {"hcaHandles": 3}}}})


def _seccomp() -> dict[str, Any]:
    """Notifications need a listener, and one flag is for them alone."""
    rule = {"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}
    notify = _takes(
        linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": "/run/listener.sock"}}
    )
    flags = sorted(seccomp.FLAGS)
    return {
        "enabled": True,
        "actions": [action for action in seccomp.ACTIONS if notify or action != "SCMP_ACT_NOTIFY"],
        "operators": list(seccomp.OPERATORS),
        "archs": list(seccomp.ARCHITECTURES),
        "knownFlags": flags,
        "supportedFlags": [flag for flag in flags if notify or flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    }
