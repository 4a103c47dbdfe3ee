# SPDX-License-Identifier: Apache-2.0
"""The instructions of a Dockerfile with their arguments understood, and the stages that they make.

`stages(parse(data))` checks everything that can be checked before a build begins: flags, argument counts, names, ports,
durations. Variables are still in the text; `expanded(step, lookup)` gives a step without them, which words are expanded
being each instruction's own rule. Every step has `.at`, the Instruction with its lines, and `.at.error()` for messages.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError

from . import quantities
from .dockerfile import SEPARATORS, DockerfileError, first_word, heredoc_mark, parse, split
from .expand import BLANKS, quoted_words
from .flags import Flags
from .runmount import Mount, parse_mount
from .steps import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    FileStep,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Script,
    Shell,
    Stage,
    Step,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from .substitute import expanded, exposed, resolve_args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .dockerfile import Dockerfile, Heredoc, Instruction


__all__ = [
    "Add",
    "Arg",
    "Cmd",
    "Copy",
    "Entrypoint",
    "Env",
    "Expose",
    "FileStep",
    "From",
    "Healthcheck",
    "Label",
    "Maintainer",
    "Mount",
    "Onbuild",
    "Run",
    "Script",
    "Shell",
    "Stage",
    "Step",
    "StopSignal",
    "User",
    "Volume",
    "Workdir",
    "expanded",
    "exposed",
    "find_stage",
    "one",
    "parse_mount",
    "resolve_args",
    "script",
    "stages",
    "typed",
]

NETWORKS = ("default", "none", "host")
SECURITY = ("sandbox", "insecure")
_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz")
_NAME = _NAME_FIRST | frozenset("0123456789-_.")
_MILLISECOND = 10**6


def stages(file: Dockerfile) -> tuple[tuple[Arg, ...], tuple[Stage, ...]]:
    """The ARGs before the first FROM, and the stages. Raises DockerfileError for the first thing that is wrong."""
    arguments: list[Arg] = []
    found: list[Stage] = []
    steps: list[Step] = []
    for instruction in file.instructions:
        step = typed(instruction)
        if isinstance(step, From):
            if found:
                found[-1] = found[-1].replace(steps=tuple(steps))
            found.append(Stage(len(found), step.alias, step, ()))
            steps = []
        elif found:
            steps.append(step)
        elif isinstance(step, Arg):
            arguments.append(step)
        else:
            raise instruction.error(f"{instruction.name} before the first FROM", "only ARG can stand there")
    if not found:
        raise DockerfileError(file.path, 0, "there is no FROM in it", hint="the first instruction is FROM <image>")
    found[-1] = found[-1].replace(steps=tuple(steps))
    return tuple(arguments), tuple(found)


def find_stage(all_stages: Sequence[Stage], name: str, *, before: int | None = None) -> Stage | None:
    """The stage that `name` means in FROM, COPY --from or --target: the last of that name, else that number.

    Names are compared without case. `before`: only stages with a lower index count.
    """
    candidates = all_stages[:before]
    for stage in reversed(candidates):
        if stage.name and stage.name == name.lower():
            return stage
    if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(candidates):
        return candidates[int(name)]
    return None


def one(text: str, *, path: str = "", escape: str = "\\") -> Step:
    """The single instruction in `text`: a trigger of ONBUILD, or a --change. Raises DockerfileError."""
    data = text.encode("utf-8", "surrogateescape")
    if escape != "\\":
        data = f"# escape={escape}\n".encode() + data
    found = parse(data, path=path or f"'{text}'").instructions
    if len(found) != 1:
        raise found[1].error("this must be one instruction, not several")
    return typed(found[0])


def typed(at: Instruction) -> Step:
    """One instruction with its arguments understood. Raises DockerfileError with its line."""
    return _TYPED[at.name](at, Flags(at))


def script(run: Run) -> Script:
    """What a RUN starts. One heredoc alone is the script itself: a file when it begins with #!, else shell text.

    Other heredocs are left to the shell, their contents put back below the command.
    """
    if not run.heredocs:
        return Script(run.args, run.shell)
    first = run.heredocs[0]
    if heredoc_mark(run.text) is not None:
        content = first.text()
        if content.startswith("#!"):
            return Script((f"/dev/pipes/{first.name}",), False, (first.name, content))
        return Script((content,), True)
    return Script((_with_heredocs(run.text, run.heredocs),), True)


def _with_heredocs(text: str, heredocs: tuple[Heredoc, ...]) -> str:
    return text + "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in heredocs)


def _text(at: Instruction, what: str) -> str:
    if not at.text:
        raise at.error(f"{at.name} needs {what}")
    return at.text


def _words(at: Instruction, what: str) -> list[str]:
    """The words of FROM, EXPOSE, VOLUME, COPY and ADD: between blanks, quotes mean nothing."""
    text = _text(at, what)
    for blank in SEPARATORS:
        text = text.replace(blank, " ")
    return [word for word in text.split(" ") if word]


def _from(at: Instruction, flags: Flags) -> From:
    words = _words(at, "an image")
    if len(words) == 1:
        return From(at, words[0], flags.value("platform"))
    if len(words) != 3 or words[1].lower() != "as":
        raise at.error(f"FROM {at.text}: it takes an image, or an image AS a name", "FROM <image> [AS <name>]")
    alias = words[2].lower()
    if alias[0] not in _NAME_FIRST or not _NAME.issuperset(alias):
        hint = "it begins with a letter, then come letters, digits, '-', '_' and '.'"
        raise at.error(f"'{words[2]}' cannot be the name of a stage", hint)
    return From(at, words[0], flags.value("platform"), alias)


def _arg(at: Instruction, _: Flags) -> Arg:
    pairs: list[tuple[str, str | None]] = []
    _text(at, "a name")
    for word in quoted_words(at.text, at.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise at.error(f"ARG {word}: the name is empty", "write ARG name=default")
        pairs.append((name, value if equals else None))
    return Arg(at, tuple(pairs))


def _pairs(at: Instruction) -> tuple[tuple[tuple[str, str], ...], bool]:
    """(pairs, whether they are one pair in the old form) of ENV and LABEL; nothing is expanded, quotes stay."""
    _text(at, "name=value")
    words = quoted_words(at.text, at.escape)
    if words and "=" not in words[0]:
        name, value = first_word(at.text)
        if not value:
            raise at.error(f"{at.name} {name}: the value is missing", f"write {at.name} {name}=<value>")
        return ((name, value),), True
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            hint = "put quotes around a value with blanks in it"
            raise at.error(f"{at.name}: '{word}' is not of the form name=value", hint)
        if not name:
            raise at.error(f"{at.name} {word}: the name is empty", f"write {at.name} name=value")
        pairs.append((name, value))
    return tuple(pairs), False


def _command(at: Instruction) -> tuple[tuple[str, ...], bool]:
    """(arguments, whether the shell gets them) of RUN, CMD and ENTRYPOINT."""
    if at.json is not None:
        return at.json, False
    return (_text(at, "a command"),), True


def _run(at: Instruction, flags: Flags) -> Run:
    args, shell = _command(at)
    if not args:
        raise at.error("RUN [] starts nothing", 'name a program: RUN ["program", "argument"]')
    network, security = flags.value("network", "default"), flags.value("security", "sandbox")
    _one_of(at, "network", network, NETWORKS)
    _one_of(at, "security", security, SECURITY)
    mounts = flags.values("mount")
    for mount in mounts:
        try:
            parse_mount(mount, escape=at.escape)
        except UsageError as error:
            raise at.error(str(error), error.hint) from None
    return Run(at, args, shell, at.heredocs, mounts, network, security, flags.values("device"))


def _one_of(at: Instruction, flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        from .nearest import did_you_mean

        raise at.error(f"--{flag}={value} is unknown", did_you_mean(value, known) or f"known are {', '.join(known)}")


def _files(at: Instruction, flags: Flags, kind: type[FileStep]) -> FileStep:
    words = list(at.json) if at.json is not None else _words(at, "sources and a destination")
    if len(words) < 2:
        raise at.error(f"{at.name} needs sources and a destination", f"write {at.name} {at.text} <destination>")
    marks = {word: mark for word in words if at.json is None and (mark := heredoc_mark(word))}
    if words[-1] in marks:
        raise at.error(f"the destination of {at.name} is a heredoc", "the heredoc comes first, then the path")
    sources = words[:-1]
    contents = {heredoc.name: heredoc for heredoc in at.heredocs}
    if not all(mark.name in contents for mark in marks.values()) or len(marks) < len(contents):
        raise at.error(f"{at.name}: a heredoc's name has blanks or quotes in it", "write <<NAME in one word")
    return kind(
        at=at,
        sources=tuple(word for word in sources if word not in marks),
        destination=words[-1],
        heredocs=tuple(contents[marks[word].name] for word in sources if word in marks),
        from_=flags.value("from"),
        chown=flags.value("chown"),
        chmod=flags.value("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        excludes=flags.values("exclude"),
        checksum=flags.value("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"),
        unpack=flags.switch("unpack"),
    )


def _shell(at: Instruction, _: Flags) -> Shell:
    if not at.json:
        raise at.error(f"SHELL {at.text}: it is a JSON array", 'write SHELL ["/bin/sh", "-c"]')
    return Shell(at, at.json)


def _expose(at: Instruction, _: Flags) -> Expose:
    return Expose(at, tuple(_words(at, "a port")))


def _volume(at: Instruction, _: Flags) -> Volume:
    paths = list(at.json) if at.json is not None else _words(at, "a path")
    paths = [path.strip(BLANKS) for path in paths]
    if not paths or not all(paths):
        raise at.error("VOLUME needs a path", "write VOLUME /data")
    return Volume(at, tuple(paths))


def _healthcheck(at: Instruction, flags: Flags) -> Healthcheck:
    kind, command = first_word(_text(at, "CMD <command> or NONE"))
    if kind.upper() == "NONE":
        if command or at.flags:
            raise at.error("HEALTHCHECK NONE takes nothing else")
        return Healthcheck(at, ("NONE",))
    if kind.upper() != "CMD":
        raise at.error(f"HEALTHCHECK {kind}: it begins with CMD or NONE", "write HEALTHCHECK CMD <command>")
    if not command or at.json == ():
        raise at.error("HEALTHCHECK CMD needs a command")
    test = ("CMD", *at.json) if at.json is not None else ("CMD-SHELL", command)
    times = {}
    for name in ("interval", "timeout", "start-period", "start-interval"):
        times[f"{name.replace('-', '_')}_ns"] = _time(at, name, flags.value(name))
    retries = flags.value("retries")
    try:
        count = quantities.number(retries, most=2**31 - 1) if retries else 0
    except ValueError as error:
        raise at.error(f"--retries={retries}: {error}") from None
    return Healthcheck(at, test, retries=count, **times)


def _time(at: Instruction, name: str, text: str) -> int:
    try:
        value = quantities.duration(text) if text else 0
    except ValueError as error:
        raise at.error(f"--{name}={text}: {error}") from None
    if 0 < value < _MILLISECOND:
        raise at.error(f"--{name}={text}: it must be at least 1ms")
    return value


def _onbuild(at: Instruction, _: Flags) -> Onbuild:
    text = _text(at, "an instruction")
    name = first_word(text)[0].upper()
    if name in ("ONBUILD", "MAINTAINER", "FROM"):
        raise at.error(f"{name} cannot be a trigger of ONBUILD")
    inner = split(text, escape=at.escape, path=at.path, line=at.line)
    inner = inner.replace(heredocs=at.heredocs, end_line=at.end_line, comments=at.comments)
    return Onbuild(at, _with_heredocs(text, at.heredocs), typed(inner))


def _of_text(kind: Callable[[Instruction, str], Step], what: str) -> Callable[[Instruction, Flags], Step]:
    return lambda at, _: kind(at, _text(at, what))


_TYPED: dict[str, Callable[[Instruction, Flags], Step]] = {
    "ADD": lambda at, flags: _files(at, flags, Add),
    "ARG": _arg,
    "CMD": lambda at, _: Cmd(at, *_command(at)),
    "COPY": lambda at, flags: _files(at, flags, Copy),
    "ENTRYPOINT": lambda at, _: Entrypoint(at, *_command(at)),
    "ENV": lambda at, _: Env(at, *_pairs(at)),
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda at, _: Label(at, *_pairs(at)),
    "MAINTAINER": _of_text(Maintainer, "a name"),
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _of_text(StopSignal, "a signal"),
    "USER": _of_text(User, "a user"),
    "VOLUME": _volume,
    "WORKDIR": _of_text(Workdir, "a path"),
}
