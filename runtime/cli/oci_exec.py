# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci exec: another process in a container, by --process FILE or by flags on top of the container's own.

Exit code: the program's, 128 and the signal that ended it, or 255 when it could not be started.
"""

from __future__ import annotations

import os

from pyrun.runtime.cli.oci import MANY, SEPARATOR, SWITCH, VALUE
from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.oci import Flags, Values
    from pyrun.runtime.oci.spec import Process
    from pyrun.runtime.oci.state import StateRoot

FLAGS: Flags = {
    "process": VALUE, "p": "process", "cwd": VALUE, "env": MANY, "e": "env", "tty": SWITCH, "t": "tty", "user": VALUE,
    "u": "user", "additional-gids": MANY, "g": "additional-gids", "cap": MANY, "c": "cap", "no-new-privs": SWITCH,
    "apparmor": VALUE, "process-label": VALUE, "cgroup": VALUE, "ignore-paused": SWITCH, "detach": SWITCH,
    "d": "detach", "pid-file": VALUE, "console-socket": VALUE, "pidfd-socket": VALUE, "preserve-fds": VALUE,
}  # fmt: skip


def run(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """exec [flags] ID COMMAND [ARG...], or exec --process FILE [flags] ID"""
    from pyrun.runtime import paths
    from pyrun.runtime.cli.oci import no_preserved_fds, sender
    from pyrun.runtime.cli.oci_foreground import Foreground
    from pyrun.runtime.oci.create import write_pid_file
    from pyrun.runtime.oci.exec import exec_, load_config

    if not arguments:
        raise UsageError("container id", "exactly one is needed")
    no_preserved_fds(values)
    container_id, *command = arguments
    config = load_config(root, container_id)
    if values.get("process"):
        process = read_process(values["process"])
    else:
        if config.process is None:
            raise PyrunError("config.json: process", "is missing: there is nothing to start from")
        process = from_flags(config.process, command, values)
    detach, socket = bool(values.get("detach")), values.get("console-socket", "")
    if socket and not (detach and process.terminal):
        raise UsageError("--console-socket", "cannot be used without a terminal, or in the foreground")
    if process.terminal and detach and not socket:
        raise UsageError("cannot allocate a terminal", "the process is detached and --console-socket is not given")
    console, pidfd = sender(socket, "/dev/ptmx"), sender(values.get("pidfd-socket", ""), "setns")
    with Foreground() as foreground:
        launched = exec_(
            root, container_id, config, process, console=console or foreground.console, sub_cgroup=sub_cgroup(values),
            ignore_paused=bool(values.get("ignore-paused")), seccomp_cache=f"{paths.default().data}/cache/seccomp",
        )  # fmt: skip
        try:
            if pidfd is not None:
                pidfd(launched.pidfd)
            if values.get("pid-file"):
                write_pid_file(values["pid-file"], launched.pid)
        except BaseException:
            launched.abort()
            raise
        try:
            return 0 if detach else foreground.wait(launched.pidfd)
        finally:
            os.close(launched.pidfd)


def read_process(path: str) -> Process:
    """The process in the file of --process. Raises SpecError, PyrunError."""
    from pyrun.runtime.oci import json, spec

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise PyrunError(f"--process {path}", (error.strerror or "").lower()) from None
    return spec.parse_process(json.loads(data, path), path)


def from_flags(base: Process, command: Sequence[str], values: Values) -> Process:
    """The container's own process with what the flags say in place of its parts. Raises UsageError."""
    if not command:
        raise UsageError("exec", "no command", hint="name one after the id, or give --process FILE")
    changes: dict[str, object] = {"args": tuple(command), "terminal": bool(values.get("tty")), "console_size": None}
    if values.get("cwd"):
        changes["cwd"] = values["cwd"]
        if not values["cwd"].startswith("/"):
            raise UsageError(f"--cwd {values['cwd']}", "is not an absolute path")
    if "env" in values:
        changes["env"] = (*base.env, *[variable(item) for item in values["env"].split(SEPARATOR)])
    user = base.user
    if values.get("user"):
        uid, colon, gid = values["user"].partition(":")
        user = user.replace(uid=kernel_id("--user", uid))
        if colon:
            user = user.replace(gid=kernel_id("--user", gid))
    if "additional-gids" in values:
        more = [kernel_id("--additional-gids", gid) for gid in values["additional-gids"].split(SEPARATOR)]
        user = user.replace(additional_gids=(*user.additional_gids, *more))
    if "no-new-privs" in values:
        changes["no_new_privileges"] = bool(values["no-new-privs"])
    for flag, field in (("apparmor", "apparmor_profile"), ("process-label", "selinux_label")):
        if values.get(flag):
            changes[field] = values[flag]
    if "cap" in values:
        changes["capabilities"] = with_capabilities(base, values["cap"].split(SEPARATOR))
    return base.replace(user=user, **changes)


def with_capabilities(base: Process, names: Sequence[str]) -> object:
    """More capabilities in the bounding, effective and permitted sets; ambient ones where they are inheritable."""
    from pyrun.runtime.oci.capabilities import normalize
    from pyrun.runtime.oci.spec import Capabilities

    added = tuple([normalize(name) for name in names])
    caps = base.capabilities or Capabilities()
    return caps.replace(
        bounding=(*caps.bounding, *added),
        effective=(*caps.effective, *added),
        permitted=(*caps.permitted, *added),
        ambient=(*caps.ambient, *[name for name in added if name in caps.inheritable]),
    )


def variable(text: str) -> str:
    """NAME=value. Raises UsageError."""
    if text.find("=") < 1:
        raise UsageError(f"--env {text}", "is not of the form NAME=value")
    return text


def kernel_id(flag: str, text: str) -> int:
    """A uid or gid: digits, below (uid_t)-1. Raises UsageError."""
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) >= 2**32 - 1:
        raise UsageError(f"{flag} {text}", "is not a number that can be an id")
    return int(text)


def sub_cgroup(values: Values) -> str:
    """--cgroup [CONTROLLER:]PATH: cgroup v2 has one hierarchy, so a controller can only be wrong."""
    text = values.get("cgroup", "")
    if ":" in text:
        raise UsageError(f"--cgroup {text}", "cgroup v2 has no controllers to choose from: give a path")
    return text
