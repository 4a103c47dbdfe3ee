# SPDX-License-Identifier: Apache-2.0
"""The command line in docker's conventions, driven by tables of flags.

`--flag value`, `--flag=value`, `-f value`, `-fvalue`, `-f=value`, grouped short flags (`-dit`), `--flag=false`,
repeated flags (the last one counts, or all of them for a list), `--`. With `stops_at_argument` everything from the
first argument on belongs to the container's command, as in run, create and exec.

argparse does not know half of this and takes 9 ms to import; click takes 60.
"""

from __future__ import annotations

from pyrun.runtime.errors import PyrunError, UsageError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pyrun.runtime.cli.context import Context

SWITCH, VALUE, LIST = "switch", "value", "list"
TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Flag(Record):
    """One flag. `parse` turns the text into the value, raising ValueError(reason) or a PyrunError."""

    name: str  # the long name, without dashes
    short: str = ""
    kind: str = VALUE
    help: str = ""
    metavar: str = "string"
    default: Any = None  # for `value` and `switch`; shown in the help when it is true
    parse: Callable[[str], Any] | None = None
    group: str = "Options"
    aliases: tuple[str, ...] = ()  # further long names
    hidden: bool = False  # accepted, not shown
    refused: str = ""  # why pyrun does not have this flag of docker's; the hint of the error


class Command(Record):
    """One command: what its arguments are called, which flags it takes, and the function that runs it."""

    name: str  # "run", "image ls"
    usage: str  # "IMAGE [COMMAND] [ARG...]"
    summary: str
    run: Callable[[Args, Context], int]
    flags: tuple[Flag, ...] = ()
    least: int = 0  # arguments
    most: int | None = None  # None is any number
    stops_at_argument: bool = False
    fault: int = 1  # exit code of an error that is not about the command line; run's is 125
    details: str = ""  # a paragraph or examples after the flags in the help
    aliases: tuple[str, ...] = ()  # other ways to say it, for the help


class Args:
    """What a command line said: flags by long name, and the arguments."""

    def __init__(self, command: Command, flags: dict[str, Any], arguments: list[str]) -> None:
        self.command = command
        self.flags = flags  # only those that were given
        self.arguments = arguments
        self._defaults = {flag.name: flag.default for flag in command.flags}

    def given(self, name: str) -> bool:
        """Whether the flag is on the command line."""
        return name in self.flags

    def on(self, name: str) -> bool:
        """The value of a switch."""
        return bool(self.flags.get(name, self._defaults[name]))

    def value(self, name: str) -> Any:
        """The parsed value of a flag, or its default."""
        return self.flags.get(name, self._defaults[name])

    def text(self, name: str) -> str:
        """The value of a flag that is text; "" when it is absent and has no default."""
        value = self.flags.get(name, self._defaults[name])
        return "" if value is None else str(value)

    def many(self, name: str) -> list[Any]:
        """All values of a repeatable flag, in order."""
        assert name in self._defaults, name
        return list(self.flags.get(name, ()))


def parse(command: Command, argv: Sequence[str]) -> Args:
    """Reads the words after the command's name. Raises UsageError, or what a flag's own parser raises."""
    long, short = _index(command)
    flags: dict[str, Any] = {}
    arguments: list[str] = []
    words = list(argv)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            arguments += words[at:]
            break
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            if command.stops_at_argument:
                arguments += words[at:]
                break
            continue
        for flag, value, shown in _split(command, word, long, short):
            if value is None and flag.kind != SWITCH:
                if at == len(words):
                    raise UsageError(f"{command.name}: flag {shown}", "needs a value", hint=_help_hint(command))
                value = words[at]
                at += 1
            _store(flags, flag, shown, value)
    check_count(command, arguments)
    return Args(command, flags, arguments)


def check_count(command: Command, arguments: list[str]) -> None:
    """Raises UsageError when there are too few or too many arguments."""
    count, least, most = len(arguments), command.least, command.most
    if count >= least and (most is None or count <= most):
        return
    if most == 0:
        why = f"takes no arguments, got '{arguments[0]}'"
    else:
        bound = "exactly" if least == most else "at least" if count < least else "at most"
        number = least if count < least else most
        why = f"needs {bound} {number} argument{'' if number == 1 else 's'}"
    raise UsageError(command.name, why, hint=f"pyrun {command.name} {usage(command)}")


def usage(command: Command) -> str:
    """The words after the command's name in its usage line."""
    return f"[OPTIONS] {command.usage}".rstrip() if command.flags else command.usage


def _index(command: Command) -> tuple[dict[str, Flag], dict[str, Flag]]:
    long = {name: flag for flag in command.flags for name in (flag.name, *flag.aliases)}
    return long, {flag.short: flag for flag in command.flags if flag.short}


def _split(
    command: Command, word: str, long: dict[str, Flag], short: dict[str, Flag]
) -> list[tuple[Flag, str | None, str]]:
    """The flags in one word, each with the value joined to it (None: none is) and how the user wrote it."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        if name not in long:
            raise _unknown(command, f"--{name}", name)
        return [(long[name], value if equals else None, f"--{name}")]
    found: list[tuple[Flag, str | None, str]] = []
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        if letter not in short:
            raise _unknown(command, f"-{letter}" + (f" in {word}" if len(word) > 2 else ""), word[1:])
        flag = short[letter]
        if rest.startswith("="):
            return [*found, (flag, rest[1:], f"-{letter}")]
        if flag.kind != SWITCH:
            return [*found, (flag, rest or None, f"-{letter}")]
        found.append((flag, None, f"-{letter}"))
    return found


def _store(flags: dict[str, Any], flag: Flag, shown: str, text: str | None) -> None:
    if flag.refused:
        raise UsageError(f"flag {shown}", "pyrun does not have it", hint=flag.refused)
    if flag.kind == SWITCH:
        if text is not None and text not in TRUE + FALSE:
            raise UsageError(f"flag {shown}={text}", "it is on or off", hint=f"use {shown}=true or {shown}=false")
        flags[flag.name] = text is None or text in TRUE
        return
    assert text is not None
    try:
        value = flag.parse(text) if flag.parse else text
    except PyrunError:
        raise
    except ValueError as error:
        raise UsageError(f"flag {shown} '{text}'", str(error)) from None
    if flag.kind == LIST:
        flags.setdefault(flag.name, []).append(value)
    else:
        flags[flag.name] = value


def _unknown(command: Command, shown: str, word: str) -> UsageError:
    from pyrun.runtime.oci.nearest import nearest  # only a mistake pays for it

    shown_names = [flag.name for flag in command.flags if not (flag.hidden or flag.refused)]
    meant = nearest(word, shown_names) if len(word) > 1 else ""
    hint = f"did you mean --{meant}?" if meant else _help_hint(command)
    return UsageError(command.name, f"unknown flag {shown}", hint=hint)


def _help_hint(command: Command) -> str:
    return f"pyrun {command.name} --help lists the flags"
