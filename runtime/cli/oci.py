# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci: runc's command line, for orchestrators. create, start, state, kill, delete, run so far.

Flags as Go's programs take them: one dash or two, "-flag value" or "-flag=value". Errors: one line on stderr, and one
JSON object appended to --log when --log-format is json; exit code 1.
"""

from __future__ import annotations

import os
import sys

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrun.runtime.oci.state import StateRoot

    Values = dict[str, str]

GLOBAL = {"root": True, "log": True, "log-format": True, "debug": False, "systemd-cgroup": False, "rootless": True}

#: command -> its flags (True: takes a value); one letter names stand beside their long ones in SHORT
FLAGS = {
    "create": {"bundle": True, "pid-file": True, "no-pivot": False, "no-new-keyring": False},
    "start": {},
    "state": {},
    "kill": {"all": False},
    "delete": {"force": False},
}
SHORT = {"b": "bundle", "a": "all", "f": "force"}


def main() -> int:
    """The `pyrun-oci` command: gives the exit code."""
    values: Values = {}
    try:
        rest = parse(sys.argv[1:], GLOBAL, values)
        if "version" in values or rest[:1] == ["--version"]:
            return version()
        if not rest:
            raise UsageError("pyrun-oci", "no command", hint=f"one of {', '.join(FLAGS)}")
        command, arguments = rest[0], rest[1:]
        if command not in FLAGS:
            raise UsageError(f"unknown command '{command}'", hint=f"one of {', '.join(FLAGS)}")
        if values.get("systemd-cgroup"):
            raise UsageError("--systemd-cgroup", "the systemd driver is not supported yet")
        arguments = parse(arguments, FLAGS[command], values, interspersed=True)
        return COMMANDS[command](state_root(values), arguments, values)
    except Exception as error:  # whatever it is, the caller reads one line
        if values.get("debug"):
            import traceback

            traceback.print_exc()
        return failed(error, values)


def parse(argv: Sequence[str], flags: dict[str, bool], values: Values, *, interspersed: bool = False) -> list[str]:
    """Takes flags off a command line into `values`; gives the arguments. Raises UsageError."""
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return rest + words
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not interspersed:
                return rest + words
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = SHORT.get(name, name)
        if name in ("version", "v") and not rest:
            values["version"] = "1"
            return rest
        if name not in flags:
            raise UsageError(f"unknown flag: {word}")
        if not flags[name]:
            values[name] = "" if value in ("false", "0") else "1"
            continue
        if not equals:
            if not words:
                raise UsageError(f"flag needs an argument: {word}")
            value = words.pop(0)
        values[name] = value
    return rest


def state_root(values: Values) -> StateRoot:
    """--root, else below the run root of this user."""
    from pyrun.runtime import paths
    from pyrun.runtime.oci.state import StateRoot

    return StateRoot(os.path.abspath(values["root"]) if values.get("root") else f"{paths.default().run}/oci")


def failed(error: Exception, values: Values) -> int:
    """One line on stderr, one JSON object in the log."""
    text = " ".join(str(error).split())
    sys.stderr.write(f"pyrun-oci: {text}\n")
    if values.get("log") and values.get("log-format") == "json":
        import time

        from pyrun.runtime.oci import json

        line = {"level": "error", "msg": text, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        try:
            fd = os.open(values["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.write(fd, f"{json.dumps(line)}\n".encode())
            os.close(fd)
        except OSError:
            pass  # the line on stderr has been written
    return 1


def one_id(arguments: Sequence[str]) -> str:
    """The only argument. Raises UsageError."""
    if len(arguments) != 1:
        raise UsageError("container id", "exactly one is needed")
    return arguments[0]


def version() -> int:
    """As go-runc parses it."""
    from pyrun.runtime import __version__

    sys.stdout.write(f"pyrun-oci version {__version__}\nspec: 1.2.0\n")
    return 0


def create(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """create --bundle B --pid-file F ID"""
    from pyrun.runtime import paths
    from pyrun.runtime.oci.create import create

    bundle = os.path.abspath(values.get("bundle") or ".")
    create(
        root,
        one_id(arguments),
        bundle,
        pid_file=values.get("pid-file", ""),
        seccomp_cache=f"{paths.default().data}/cache/seccomp",
    )
    return 0


def start(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """start ID"""
    from pyrun.runtime.oci import lifecycle

    lifecycle.start(root, one_id(arguments))
    return 0


def state(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """state ID"""
    from pyrun.runtime.oci import json, lifecycle

    sys.stdout.write(json.dumps(lifecycle.state_json(root, one_id(arguments)), indent=2) + "\n")
    return 0


def kill(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """kill [--all] ID [SIGNAL]"""
    from pyrun.runtime.engine.signals import number
    from pyrun.runtime.oci import lifecycle

    signal = number(arguments[1]) if len(arguments) == 2 else 15
    lifecycle.kill(root, one_id(arguments[:1]), signal, everything=bool(values.get("all")))
    return 0


def delete(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """delete [--force] ID"""
    from pyrun.runtime.oci import lifecycle

    lifecycle.delete(root, one_id(arguments), force=bool(values.get("force")))
    return 0


COMMANDS: dict[str, Callable[[StateRoot, Sequence[str], Values], int]] = {
    "create": create, "start": start, "state": state, "kill": kill, "delete": delete,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
