# SPDX-License-Identifier: Apache-2.0
"""The help pages, made from the tables of commands and flags, so that they cannot disagree with the parser."""

from __future__ import annotations

from pyrun.runtime.cli.flags import LIST, SWITCH, Args, Command, Flag, usage
from pyrun.runtime.cli.table import COMMANDS, GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrun.runtime.cli.context import Context

WIDTH = 110
CHAPTERS = (
    ("Everyday commands", ("run", "exec", "ps", "logs", "stop", "rm", "images", "build", "pull", "push")),
    ("Containers", ("create", "start", "restart", "kill", "pause", "unpause", "attach", "wait", "rename", "cp")),
    ("Look", ("inspect", "top", "stats", "port", "diff", "version", "info")),
    ("Images", ("load", "save", "import", "commit", "export", "tag", "rmi", "history", "search", "login", "logout")),
)
GROUP_WORDS = {
    "container": "the container commands under docker's names",
    "image": "the image commands: build ls rm inspect tag pull push load save import history tree diff mount prune",
    "manifest": "one name for several platforms: create annotate inspect push rm",
    "volume": "volumes: ls create rm inspect prune",
    "network": "networks: ls inspect",
    "builder": "the build cache: prune du debug, and build",
    "buildx": "docker's other name for builder",
    "system": "the machine: df prune info",
}
GLOBAL = (
    ("    --data-root DIR", "images, containers and volumes live here (default /var/lib/pyrun)"),
    ("    --run-root DIR", "what does not survive a reboot lives here (default /run/pyrun)"),
    ("-D, --debug", "show the traceback of an error"),
    ("-v, --version", "print the version"),
)


def page(words: Sequence[str]) -> str:
    """The help for a command ("run", "image ls"), a group ("image"), or for everything. Raises UsageError."""
    from pyrun.runtime.cli import dispatch

    words = [word for word in words if word not in ("-h", "--help")]
    if not words:
        return _overview()
    if len(words) == 1 and words[0] in COMMANDS:
        return _command(dispatch.load(words[0]))
    if words[0] in GROUPS and len(words) == 1:
        return _group(words[0])
    return _command(dispatch.resolve(words)[0])


def _overview() -> str:
    from pyrun.runtime.cli import dispatch

    lines = [
        "Usage: pyrun [OPTIONS] COMMAND",
        "",
        "Runs containers, and shows how. Every command: pyrun COMMAND --help",
        "",
    ]
    for title, names in CHAPTERS:
        lines += [f"{title}:", *_columns([(f"  {name}", dispatch.load(name).summary) for name in names]), ""]
    lines += ["Groups:", *_columns([(f"  {name}", text) for name, text in GROUP_WORDS.items()]), ""]
    lines += ["Options:", *_columns([(f"  {name}", text) for name, text in GLOBAL]), ""]
    lines += ["pyrun run --explain …  shows what would be done; pyrun run --trace …  shows it being done."]
    return "\n".join(lines) + "\n"


def _group(group: str) -> str:
    from pyrun.runtime.cli import dispatch

    rows = [(f"  {name}", dispatch.load(command).summary) for name, command in sorted(GROUPS[group].items())]
    return "\n".join([f"Usage: pyrun {group} COMMAND", "", *_columns(rows)]) + "\n"


def _command(command: Command) -> str:
    lines = [f"Usage: pyrun {command.name} {usage(command)}".rstrip(), "", command.summary, ""]
    if command.aliases:
        lines += [f"Also: {', '.join(f'pyrun {alias}' for alias in command.aliases)}", ""]
    shown = [flag for flag in command.flags if not (flag.hidden or flag.refused)]
    for group in dict.fromkeys(flag.group for flag in shown):
        rows = [_flag(flag) for flag in sorted(shown, key=lambda flag: flag.name) if flag.group == group]
        lines += [f"{group}:", *_columns(rows), ""]
    if command.details:
        lines += [command.details, ""]
    return "\n".join(lines)


def _flag(flag: Flag) -> tuple[str, str]:
    left = f"  -{flag.short}, " if flag.short else "      "
    left += f"--{flag.name}" if flag.kind == SWITCH else f"--{flag.name} {flag.metavar}"
    notes = ["repeatable"] if flag.kind == LIST else []
    if flag.default not in (None, False, "", -1):
        notes.append(f"default {str(flag.default).lower() if flag.kind == SWITCH else flag.default}")
    return left, flag.help + (f" ({', '.join(notes)})" if notes else "")


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns, the second wrapped."""
    indent = min(max(len(left) for left, _ in rows) + 3, 38)
    lines: list[str] = []
    for left, right in rows:
        line = left.ljust(indent) if len(left) < indent else f"{left}  "
        for word in right.split():
            if len(line) + len(word) > WIDTH and line.strip():
                lines.append(line.rstrip())
                line = " " * indent
            line += f"{word} "
        lines.append(line.rstrip())
    return lines


def run(args: Args, ctx: Context) -> int:
    """pyrun help COMMAND; dispatch usually answers before it comes to this."""
    ctx.stdout.write(page(args.arguments))
    return 0


HELP = Command("help", "[COMMAND]", "Show the help for a command", run)
