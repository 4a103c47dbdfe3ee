# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci spec [--bundle B] [--rootless]: a config.json to begin with."""

from __future__ import annotations

import os

from pyrun.runtime.errors import Conflict, PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {"bundle": 1, "b": "bundle", "rootless": 0}
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]  # runc's


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """spec [--bundle B] [--rootless]"""
    from pyrun.runtime.oci import json

    if arguments:
        raise UsageError("spec", f"takes no argument, and got {arguments[0]!r}")
    path = os.path.join(values.get("bundle") or ".", "config.json")
    text = json.dumps(example(rootless=bool(values.get("rootless"))), indent=2) + "\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Conflict(f"file {path} exists", "remove it first") from None
    except OSError as error:
        raise PyrunError(f"write {path}", (error.strerror or "").lower()) from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


def example(*, rootless: bool) -> dict[str, Any]:
    """A shell in ./rootfs, read-only; with `rootless` in a user namespace in which the caller is root."""
    from pyrun.runtime.engine import defaults
    from pyrun.runtime.oci.state import SPEC_VERSION

    kinds = [
        kind for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup") if not (rootless and kind == "network")
    ]
    mounts = defaults.mounts()
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(defaults.MASKED_PATHS),
        "readonlyPaths": list(defaults.READONLY_PATHS),
    }
    if rootless:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        mounts = [_rootless(mount) for mount in mounts]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [*defaults.ENV, "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrun",
        "mounts": mounts,
        "linux": linux,
    }


def _rootless(mount: dict[str, Any]) -> dict[str, Any]:
    """/sys of a network namespace that is not ours cannot be mounted, only bound; and no group but ours is mapped."""
    if mount["destination"] == "/sys":
        options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
        return {"destination": "/sys", "type": "none", "source": "/sys", "options": options}
    return {**mount, "options": [word for word in mount["options"] if not word.startswith(("gid=", "uid="))]}
