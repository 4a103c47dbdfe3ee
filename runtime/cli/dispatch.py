# SPDX-License-Identifier: Apache-2.0
"""Runs one command line, in this process or in a worker of the monitor, and renders its error once."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

from pyrun.runtime import events
from pyrun.runtime import paths as roots
from pyrun.runtime.cli import flags, main
from pyrun.runtime.cli.context import Context, render
from pyrun.runtime.cli.table import COMMANDS, GROUPS
from pyrun.runtime.errors import EXIT_FAULT, PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pyrun.runtime.paths import Paths

# docker's commands that pyrun does not have, and what helps instead
LATER = {
    "update": "remove the container and run it again with other limits",
    "events": "pyrun ps, pyrun wait and pyrun logs -f tell what happens",
    "compose": "start the containers one by one",
    **dict.fromkeys(
        ("network create", "network rm", "network remove", "network connect", "network disconnect", "network prune"),
        "there are bridge, none, host and container:NAME; see pyrun run --network",
    ),
}
ALSO_TOP_LEVEL = ("container", "image", "system")  # groups whose commands docker has without the group's name too
EXIT_INTERRUPTED = 130  # 128 + SIGINT
HINTS = {
    errno.EACCES: "pyrun needs root: sudo pyrun …",
    errno.ENOSPC: "free some space, or use another --data-root",
    errno.EDQUOT: "free some space, or use another --data-root",
    errno.EROFS: "the file system is mounted read-only: remount it, or use another --data-root",
}
EXIT_PIPE = 141  # 128 + SIGPIPE


def run_command(argv: Sequence[str], link: Any = None, paths: Paths | None = None) -> int:
    """Runs the command line `argv` (without the program's name) and gives its exit code; never raises.

    In a worker `link` is its connection to the client, and the standard streams, the environment and the working
    directory are the client's already. `paths` are the monitor's roots there.
    """
    command = None
    try:
        words = main.global_flags(argv)
        if not words or words[0].startswith("-") or words[0] == "help":
            return _without_command(words)
        if words[0] in GROUPS and words[1:2] in (["--help"], ["-h"]):
            return _help(words[:1])
        command, rest = resolve(words)
        if _wants_help(command, rest):
            return _help([command.name])
        args = flags.parse(command, rest)
        if link is None and _is_warm(command) and not (args.given("explain") and args.on("explain")):
            return main.forward(words)
        _tolerate_any_bytes()
        context = Context(paths or roots.default(), link)
        events.set_warner(context.warn)
        code = command.run(args, context)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:  # the one place that turns any failure into words
        return failed(error, command)


def failed(error: BaseException, command: flags.Command | None = None) -> int:
    """Says what went wrong on stderr, once, and gives the exit code."""
    if os.environ.get("PYRUN_DEBUG") and not isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _silence_stdout()  # or Python complains when it flushes at exit
        return EXIT_PIPE
    if not isinstance(error, PyrunError):
        error = _unexpected(error)
    render(error, sys.stderr)
    if command is None or isinstance(error, UsageError) or error.code != EXIT_FAULT:
        return error.code
    return command.fault


def resolve(words: Sequence[str]) -> tuple[flags.Command, list[str]]:
    """The Command that the words name, loaded, and the words after its name. Raises UsageError for an unknown one."""
    name, rest = main.find(words)
    if not name:
        raise _unknown_command(words)
    return load(name), rest


def load(name: str) -> flags.Command:
    """The Command called `name` in the table."""
    module, attribute, _ = COMMANDS[name]
    command: flags.Command = getattr(import_module(f"pyrun.runtime.cli.{module}"), attribute)
    return command


def _unknown_command(words: Sequence[str]) -> UsageError:
    from pyrun.runtime.oci.nearest import nearest  # only a mistake pays for it

    if words[0] in GROUPS:
        known = list(GROUPS[words[0]])
        if len(words) == 1:
            return UsageError(words[0], "needs a command", hint=f"one of {', '.join(known)}")
        what, word, prefix = f"unknown command '{words[0]} {words[1]}'", words[1], f"{words[0]} "
    else:
        known = [name for name in COMMANDS if " " not in name] + list(GROUPS)
        what, word, prefix = f"unknown command '{words[0]}'", words[0], ""
    later = LATER.get(f"{prefix}{word}") or (LATER.get(word) if words[0] in ALSO_TOP_LEVEL else "")
    if later:
        return UsageError(what, "pyrun does not have it yet", hint=later)
    meant = nearest(word, known)
    return UsageError(what, hint=f"did you mean '{prefix}{meant}'?" if meant else "pyrun --help lists the commands")


def _without_command(words: Sequence[str]) -> int:
    if words and words[0] in ("-v", "--version"):
        from pyrun.runtime import __version__

        print(f"pyrun version {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        return _help(words[1:])
    raise UsageError(f"unknown flag {words[0]}", hint="pyrun --help lists the global flags")


def _help(words: Sequence[str]) -> int:
    from pyrun.runtime.cli import help as pages

    sys.stdout.write(pages.page(words))
    sys.stdout.flush()
    return 0


def _wants_help(command: flags.Command, words: Sequence[str]) -> bool:
    """--help anywhere among the flags, also behind a mistake; -h where the command has no such flag."""
    taken = {flag.short for flag in command.flags}
    values = {f"--{name}" for flag in command.flags if flag.kind != flags.SWITCH for name in (flag.name, *flag.aliases)}
    values |= {f"-{flag.short}" for flag in command.flags if flag.kind != flags.SWITCH and flag.short}
    before = ""
    for word in words:
        if word == "--" or (command.stops_at_argument and not word.startswith("-") and before not in values):
            return False
        if (word == "--help" or (word == "-h" and "h" not in taken)) and before not in values:
            return True
        before = word
    return False


def _is_warm(command: flags.Command) -> bool:
    return COMMANDS[command.name][2]


def _unexpected(error: BaseException) -> PyrunError:
    """An error that nobody below gave words to: the system's, or a bug of ours."""
    if isinstance(error, OSError):
        why = (error.strerror or str(error)).lower()
        return PyrunError(str(error.filename or "system call"), why, hint=HINTS.get(error.errno or 0, ""))
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f" at {os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}" if where else ""
    what = f"internal error{place}"
    return PyrunError(
        what, f"{type(error).__name__}: {error}", hint="pyrun --debug … shows the traceback; please report it"
    )


def _tolerate_any_bytes() -> None:
    """Names and paths of files need not be UTF-8: write out the bytes that came in."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")


def _silence_stdout() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
