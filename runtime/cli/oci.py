# SPDX-License-Identifier: Apache-2.0
"""pyrun-oci: runc's command line, for orchestrators.

Flags as Go's programs take them: one dash or two, "-flag value" or "-flag=value". Errors: one line on stderr, and one
more appended to --log (a JSON object with --log-format json); exit code 1, and 255 from exec.

The commands that every container's life needs are here; each of the others is a module of its own, oci_<name>.py with
FLAGS and run(), that is imported when it runs.
"""

from __future__ import annotations

import os
import sys

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrun.runtime.oci.state import StateRoot

    #: flag -> its value; "1" for one without a value, and SEPARATOR between those of a flag that was given again
    Values = dict[str, str]
    #: name of a flag -> SWITCH, VALUE or MANY, or for a short name the long one
    Flags = dict[str, int | str]

SWITCH, VALUE, MANY = 0, 1, 2
SEPARATOR = "\0"  # no argument of a command line can have one

GLOBAL: Flags = {
    "root": VALUE, "log": VALUE, "log-format": VALUE, "debug": SWITCH, "systemd-cgroup": SWITCH, "rootless": VALUE,
    "cgroup-manager": VALUE, "criu": VALUE, "version": SWITCH, "v": "version", "help": SWITCH, "h": "help",
}  # fmt: skip

FLAGS: dict[str, Flags] = {
    "create": {
        "bundle": VALUE, "b": "bundle", "pid-file": VALUE, "no-pivot": SWITCH, "no-new-keyring": SWITCH,
        "console-socket": VALUE, "pidfd-socket": VALUE, "preserve-fds": VALUE,
    },
    "start": {},
    "state": {},
    "kill": {"all": SWITCH, "a": "all"},
    "delete": {"force": SWITCH, "f": "force"},
}  # fmt: skip
#: commands in modules of their own; after the id of FIRST's the words are the user's, whatever they look like
MODULES = ("events", "exec", "features", "list", "pause", "ps", "resume", "run", "spec", "update")
FIRST = ("exec", "ps")


def main() -> int:
    """The `pyrun-oci` command: gives the exit code."""
    values: Values = {}
    command = ""
    try:
        rest = parse(sys.argv[1:], GLOBAL, values)
        if values.get("version"):
            return version()
        if values.get("help") or rest[:1] == ["help"]:
            return usage()
        if not rest:
            raise UsageError("pyrun-oci", "no command", hint=f"one of {', '.join(sorted((*FLAGS, *MODULES)))}")
        command, arguments = rest[0], rest[1:]
        return run(command, arguments, values)
    except Exception as error:  # whatever it is, the caller reads one line
        if values.get("debug"):
            import traceback

            traceback.print_exc()
        return failed(error, values, 255 if command == "exec" else 1)


def run(command: str, arguments: Sequence[str], values: Values) -> int:
    """One command with the global flags in `values`: gives the exit code."""
    if command in FLAGS:
        flags, function = FLAGS[command], COMMANDS[command]
    elif command in MODULES:
        module = __import__(f"pyrun.runtime.cli.oci_{command}", fromlist=["run"])
        flags, function = module.FLAGS, module.run
    else:
        hint = f"one of {', '.join(sorted((*FLAGS, *MODULES)))}"
        raise UsageError(f"unknown command '{command}'", hint=hint)
    if values.get("systemd-cgroup") or values.get("cgroup-manager") == "systemd":
        raise UsageError("--systemd-cgroup", "the systemd driver is not supported yet")
    if values.get("cgroup-manager", "cgroupfs") != "cgroupfs":
        raise UsageError(f"--cgroup-manager {values['cgroup-manager']}", "only cgroupfs is supported")
    if values.get("log-format", "text") not in ("text", "json"):
        raise UsageError(f"--log-format {values['log-format']}", "it is text or json")
    if "--help" in arguments[:1] or "-h" in arguments[:1]:
        return usage(command, flags)
    found = parse(arguments, flags, values, interspersed=command not in FIRST)
    if values.get("debug"):
        from pyrun.runtime.cli.oci_log import debug

        debug(values)
    return function(state_root(values), found, values)


def parse(words: Sequence[str], flags: Flags, values: Values, *, interspersed: bool = False) -> list[str]:
    """Takes flags off a command line into `values`; gives the arguments. Raises UsageError.

    With `interspersed` flags may come after arguments too, else the first argument ends them.
    """
    rest: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            return [*rest, *words[position:]]
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not interspersed:
                return [*rest, *words[position:]]
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        kind = flags.get(name)
        if isinstance(kind, str):
            name, kind = kind, flags[kind]
        if kind is None:
            raise UsageError(f"unknown flag: {word}")
        if kind == SWITCH:
            if equals and value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise UsageError(f"{word.partition('=')[0]}={value}", "it is true or false")
            values[name] = "" if value.lower() in ("false", "0", "f") else "1"
            continue
        if not equals:
            if position == len(words):
                raise UsageError(f"flag needs an argument: {word}")
            value = words[position]
            position += 1
        values[name] = f"{values[name]}{SEPARATOR}{value}" if kind == MANY and name in values else value
    return rest


def usage(command: str = "", flags: Flags = GLOBAL) -> int:
    """The flags of a command, or of all of them and the commands' names."""
    long = [(name, kind) for name, kind in flags.items() if not isinstance(kind, str)]
    names = " ".join([f"[--{name}{' VALUE' if kind else ''}]" for name, kind in long])
    sys.stdout.write(f"usage: pyrun-oci {f'{command} {names}'.strip()}{'' if command else ' COMMAND …'}\n")
    if not command:
        sys.stdout.write(f"commands: {' '.join(sorted((*FLAGS, *MODULES)))}\n")
    return 0


def state_root(values: Values) -> StateRoot:
    """--root, else below the run root of this user."""
    from pyrun.runtime import paths
    from pyrun.runtime.oci.state import StateRoot

    return StateRoot(os.path.abspath(values["root"]) if values.get("root") else f"{paths.default().run}/oci")


def failed(error: Exception, values: Values, code: int = 1) -> int:
    """One line on stderr, one in the log; gives the exit code."""
    text = " ".join(str(error).split())
    sys.stderr.write(f"pyrun-oci: {text}\n")
    if values.get("log"):
        from pyrun.runtime.cli.oci_log import write

        write(values, "error", text)
    return code


def one_id(arguments: Sequence[str]) -> str:
    """The only argument. Raises UsageError."""
    if len(arguments) != 1:
        raise UsageError("container id", "exactly one is needed")
    return arguments[0]


def no_preserved_fds(values: Values) -> None:
    """Raises UsageError for --preserve-fds N, unless N is 0."""
    if values.get("preserve-fds", "0") != "0":
        raise UsageError(f"--preserve-fds {values['preserve-fds']}", "is not supported yet: the program gets 0, 1, 2")


def version() -> int:
    """As go-runc and docker parse it."""
    from pyrun.runtime import __version__
    from pyrun.runtime.oci.state import SPEC_VERSION

    # An installed package does not know its commit.
    sys.stdout.write(f"pyrun-oci version {__version__}\ncommit: unknown\nspec: {SPEC_VERSION}\n")
    return 0


def create(root: StateRoot, arguments: Sequence[str], values: Values) -> int:
    """create --bundle B --pid-file F ID"""
    from pyrun.runtime import paths
    from pyrun.runtime.oci.create import create

    no_preserved_fds(values)
    create(
        root,
        one_id(arguments),
        os.path.abspath(values.get("bundle") or "."),
        pid_file=values.get("pid-file", ""),
        seccomp_cache=f"{paths.default().data}/cache/seccomp",
        keyring=not values.get("no-new-keyring"),
        console=sender(values.get("console-socket", ""), "/dev/ptmx"),
        pidfd=sender(values.get("pidfd-socket", ""), "standard"),
    )
    return 0


def sender(path: str, name: str) -> Callable[[int], None] | None:
    """Connects to the socket at `path`, and gives the function that hands it a descriptor; None without a path.

    `name` is the payload: what runc's callers get. Raises PyrunError.
    """
    if not path:
        return None
    from pyrun.runtime.oci import handover

    connection = handover.connect(path)
    return lambda fd: handover.send(connection, name, fd)


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

    if len(arguments) == 2:
        signal = 0 if arguments[1] == "0" else number(arguments[1])
        arguments = arguments[:1]
    else:
        signal = 15
    lifecycle.kill(root, one_id(arguments), signal, everything=bool(values.get("all")))
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
