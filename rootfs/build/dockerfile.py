# SPDX-License-Identifier: Apache-2.0
"""A Dockerfile taken apart into instructions: lines, directives, flags, exec forms and heredocs, as BuildKit does it.

`parse()` is the first of two steps: it knows which instructions there are and where each begins and ends, not what
their arguments mean; that is instructions.py.

Why this parser is our own: the PyPI package `dockerfile` is BuildKit's parser, in Go. Importing it is cheap (1 ms), but
brings Go's runtime into the process: six threads and 790 MB of address space after the first call, handlers for signals
such as SIGSEGV, SIGBUS and SIGPIPE; and a child forked after that hangs in its first garbage collection, because Go's
threads are not in it, while the monitor forks for every container. It has no types, no place for an error, knows what
an instruction looks like and not what it means, and is built for x86-64 only. It is the tests' oracle instead.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

from .expand import BLANKS, ExpandError, heredoc_name, split_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_EXEC_FORM = frozenset(("ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME", "HEALTHCHECK"))
_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))
_DIRECTIVES = ("syntax", "escape", "check")
SEPARATORS = "\t\v\f\r "  # between the words of an instruction
_BOM = b"\xef\xbb\xbf"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")


class DockerfileError(UsageError):
    """What is wrong in a Dockerfile: `what` is "Dockerfile:7"; `line` is 1-based, 0 for the file as a whole."""

    def __init__(self, path: str, line: int, why: str, *, hint: str = "") -> None:
        super().__init__(f"{path}:{line}" if line else path, _shown(why), hint=_shown(hint))
        self.line = line


def _shown(text: str) -> str:
    """Control characters made visible: progress is printed as it comes, and a file may come from anywhere."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else repr(char)[1:-1] for char in text)


class Heredoc(Record):
    """`<<NAME`: `content` is as written, with the tabs that `<<-` takes away (`chomp`); see text()."""

    name: str
    content: str
    expand: bool = True  # no part of the name was quoted
    chomp: bool = False
    fd: int = 0
    spaced: bool = False  # written `<< NAME`

    def text(self) -> str:
        """The contents as the instruction gets them: without leading tabs after `<<-`."""
        if not self.chomp:
            return self.content
        return "\n".join(line.lstrip("\t") for line in self.content.split("\n"))


class Instruction(Record):
    """One instruction as written: its name in upper case, its flags, and the rest with comments and line ends gone."""

    name: str
    flags: tuple[tuple[str, str | None], ...]  # ("mount", "type=cache,…"), ("link", None): without the dashes
    text: str
    json: tuple[str, ...] | None  # the exec form; of HEALTHCHECK: what follows CMD
    heredocs: tuple[Heredoc, ...]
    line: int
    end_line: int
    original: str  # the joined lines, without heredocs
    keyword: str = ""  # the name as written
    comments: tuple[str, ...] = ()  # the lines of comment right above, without the #
    escape: str = "\\"
    path: str = "Dockerfile"

    def error(self, why: str, hint: str = "") -> DockerfileError:
        """An error at this instruction, to be raised."""
        return DockerfileError(self.path, self.line, why, hint=hint)


class Warned(Record):
    """Something that is understood but should be written differently; lint.py gives it its rule."""

    line: int
    message: str


class Dockerfile(Record):
    """A parsed file. `syntax` and `checks` are the values of their directives, "" without."""

    path: str
    lines: tuple[str, ...]
    syntax: str
    escape: str
    checks: str
    instructions: tuple[Instruction, ...]
    warnings: tuple[Warned, ...] = ()
    checks_line: int = 0


def parse(data: bytes, *, path: str = "Dockerfile") -> Dockerfile:
    """The instructions in `data`, which need not be UTF-8: other bytes are kept (surrogateescape).

    Raises DockerfileError with the line: unknown instruction, exec form with something else than strings, heredoc
    without end, directive given twice or wrong, and a file without any instruction.
    """
    return _Parser(data, path).parse()


class _Parser:
    def __init__(self, data: bytes, path: str) -> None:
        self.path = path
        text = data.removeprefix(_BOM).decode("utf-8", "surrogateescape")
        self.lines = text.split("\n")  # only \n ends a line; a \r before it is taken away where that is the rule
        if not self.lines[-1]:  # what follows the last \n
            self.lines.pop()
        self.at = 0  # how many lines were read: the 1-based number of the last one
        self.directives: dict[str, tuple[str, int]] = {}
        self.escape = "\\"
        self.warnings: list[Warned] = []

    def parse(self) -> Dockerfile:
        self._read_directives()
        found = tuple(self._instructions())
        if not found:
            raise DockerfileError(self.path, 0, "there is no instruction in it", hint="start with FROM <image>")
        syntax, checks = self.directives.get("syntax", ("", 0)), self.directives.get("check", ("", 0))
        lines = tuple(line.rstrip("\r") for line in self.lines)
        return Dockerfile(
            self.path, lines, syntax[0], self.escape, checks[0], found, tuple(self.warnings), checks_line=checks[1]
        )

    def _read_directives(self) -> None:
        """`# name=value` lines at the very top, or below a #! line; the first line that is something else ends them."""
        shebang = self.lines[:1] and self.lines[0].startswith("#!")
        for line in self.lines[1:] if shebang else self.lines:
            found = directive(line.strip(BLANKS))
            if found is None or (shebang and found[0] == "escape"):  # BuildKit's parser itself knows no #!
                return
            self.at = max(self.at, int(bool(shebang))) + 1
            name, value = found
            if name in self.directives:
                raise DockerfileError(self.path, self.at, f"the directive '{name}' can be given only once")
            self.directives[name] = (value, self.at)
            if name == "escape":
                if value not in ("\\", "`"):
                    raise DockerfileError(self.path, self.at, f"escape cannot be '{value}'", hint="it is \\ or `")
                self.escape = value
            if name == "syntax" and not is_own_syntax(value):
                hint = "docker/dockerfile is built in; there are no other frontends"
                raise DockerfileError(self.path, self.at, f"syntax '{value}' is another language", hint=hint)

    def _instructions(self) -> Iterator[Instruction]:
        comments: list[str] = []
        while self.at < len(self.lines):
            line = self._next_line().lstrip(BLANKS)
            if line.startswith("#"):
                comment = line[1:].strip(BLANKS)
                comments = [*comments, comment] if comment else []
                continue
            if not line:
                comments = []
                continue
            start = self.at
            text = self._joined(line)
            if not text.strip(BLANKS):  # nothing but continuation characters
                continue
            yield self._instruction(text, start, tuple(comments))
            comments = []

    def _next_line(self) -> str:
        self.at += 1
        return self.lines[self.at - 1].rstrip("\r")

    def _joined(self, line: str) -> str:
        """The whole logical line that starts with `line`: comments inside are left out, and so are empty lines."""
        parts = []
        empty = False
        line, more = self._without_continuation(line)
        parts.append(line)
        while more and self.at < len(self.lines):
            line = self._next_line()
            stripped = line.lstrip(BLANKS)
            if stripped.startswith("#"):
                continue
            if not stripped:
                empty = True
                continue
            line, more = self._without_continuation(line)
            parts.append(line)
        if empty:
            self.warnings.append(Warned(self.at, "empty continuation line"))
        return "".join(parts)

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        """The line without the escape character that ends it, and whether there was one. Two of them are none."""
        cut = line.rstrip(" \t")
        if cut.endswith(self.escape) and cut[-2:-1] != self.escape:
            return cut[:-1], True
        return line, False

    def _instruction(self, text: str, start: int, comments: tuple[str, ...]) -> Instruction:
        found = split(text, escape=self.escape, path=self.path, line=start, comments=comments)
        carrier = found
        if found.name == "ONBUILD" and found.text:
            try:
                carrier = split(found.text, escape=self.escape, path=self.path, line=start)
            except DockerfileError:
                return found.replace(end_line=self.at)  # instructions.py says what is wrong with the trigger
        if carrier.name in _HEREDOCS and carrier.json is None and "<<" in text:
            heredocs = [self._heredoc(mark, start) for mark in heredoc_marks(text)]
            found = found.replace(heredocs=tuple(filter(None, heredocs)))
        return found.replace(end_line=self.at)

    def _heredoc(self, mark: Heredoc, start: int) -> Heredoc | None:
        """The contents up to the line that is the name. None if it is none after all: the 1 << 2 of an arithmetic."""
        content: list[str] = []
        for at in range(self.at, len(self.lines)):
            line = self.lines[at]
            end = line.rstrip("\r")
            if (end.lstrip("\t") if mark.chomp else end) == mark.name:
                self.at = at + 1
                return mark.replace(content="".join(content))
            content.append(f"{line}\n")
        if mark.spaced:
            return None
        raise DockerfileError(
            self.path, start, f"the heredoc '{mark.name}' has no end", hint=f"a line must consist of {mark.name} alone"
        )


def split(
    text: str, *, escape: str = "\\", path: str = "Dockerfile", line: int = 1, comments: tuple[str, ...] = ()
) -> Instruction:
    """One logical line as an Instruction without heredocs. Raises DockerfileError."""
    keyword, rest = first_word(text.strip(BLANKS))
    name = keyword.upper() if keyword.isascii() else ""  # "workdır" is WORKDIR to str.upper()
    if name not in NAMES:
        raise DockerfileError(path, line, f"unknown instruction '{keyword}'", hint=_meant(keyword))
    flags, rest = _flags(rest, escape)
    rest = rest.strip(BLANKS)
    command = first_word(rest)[1] if name == "HEALTHCHECK" else rest
    listed = exec_form(command) if name in _EXEC_FORM else None
    if isinstance(listed, str):
        raise DockerfileError(path, line, f"{name}: {listed}")
    return Instruction(
        name, flags, rest, listed, (), line, line, text, keyword=keyword, comments=comments, escape=escape, path=path
    )


def _meant(keyword: str) -> str:
    from .nearest import did_you_mean

    return did_you_mean(keyword, NAMES)


def first_word(text: str, separators: str = SEPARATORS) -> tuple[str, str]:
    """The text up to the first separator, and what follows all of them."""
    for at, char in enumerate(text):
        if char in separators:
            return text[:at], text[at:].lstrip(separators)
    return text, ""


def directive(line: str) -> tuple[str, str] | None:
    """("escape", "`") for "# escape = `"; None for a line that is no directive, known names only."""
    if not line.startswith("#"):
        return None
    name, equals, value = line[1:].lstrip(BLANKS).partition("=")
    name, value = name.rstrip(BLANKS).lower(), value.strip(BLANKS)
    return (name, value) if equals and value and name in _DIRECTIVES else None


def is_own_syntax(text: str) -> bool:
    """Whether `# syntax=` names the frontend that this is: docker/dockerfile, of any tag and from any registry."""
    name = text.partition(" ")[0].partition("@")[0]
    name, _, last = name.rpartition("/")
    return last.partition(":")[0] in ("dockerfile", "dockerfile-upstream") and (f"/{name}").endswith("/docker")


def _flags(text: str, escape: str) -> tuple[tuple[tuple[str, str | None], ...], str]:
    """The leading --words of an instruction and what follows them. Quotes in them are taken away; `--` ends them."""
    flags: list[tuple[str, str | None]] = []
    at = 0
    while True:
        while at < len(text) and text[at] in BLANKS:
            at += 1
        if text[at : at + 2] != "--":
            return tuple(flags), text[at:]
        word, at = _flag_word(text, at, escape)
        if word == "--":
            return tuple(flags), text[at:]
        name, equals, value = word[2:].partition("=")
        flags.append((name, value if equals else None))


def _flag_word(text: str, at: int, escape: str) -> tuple[str, int]:
    """The word that starts at `at`, without quotes and escapes, and where it ends."""
    word: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char in BLANKS:
            break
        if quote and char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif char == escape:
            at += 1
            word.append(text[at : at + 1])
        else:
            word.append(char)
        at += 1
    return "".join(word), at


def exec_form(text: str) -> tuple[str, ...] | str | None:
    """A JSON array of strings; None for anything that is no JSON array (the shell form); else what is wrong with it.

    As in BuildKit, text that only looks like an array, such as `[ -f x ] && y` or ['a'], is a shell command.
    """
    if not text.startswith("["):
        return None
    import json  # imports re: only a file with an exec form pays that

    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=float)
    except ValueError:
        return None
    except RecursionError:
        value = [[]]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return "the exec form is a JSON array of strings only"
    # what is no UTF-8 becomes U+FFFD, as Go's json does it: a lone \udc80 must not become the byte 0x80
    return tuple(item.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for item in value)


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def heredoc_marks(text: str) -> list[Heredoc]:
    """The heredocs that a logical line announces, in order, without their contents."""
    return [mark for word in split_raw(text) if (mark := heredoc_mark(word))]


def heredoc_mark(word: str) -> Heredoc | None:
    """`3<<-"EOF"` as a Heredoc without contents; None for a word that is no heredoc."""
    fd, mark, rest = word.partition("<<")
    chomp = rest.startswith("-")
    rest = rest[1:] if chomp else rest
    name = rest.lstrip("\t\n\f\r ")
    if not mark or not name or "<" in name or not _DIGITS.issuperset(fd):
        return None
    try:
        named = heredoc_name(name)
    except ExpandError:
        return None
    if named is None:
        return None
    return Heredoc(named[0], "", expand=named[1], chomp=chomp, fd=int(fd[-9:] or "0"), spaced=name != rest)
