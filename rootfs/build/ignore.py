# SPDX-License-Identifier: Apache-2.0
""".dockerignore: which files of a build context are left out, by the rules of moby/patternmatcher.

A line is a pattern for the whole path from the context's root, or with ! an exception; the last line that matches
decides, and what matches a directory matches all below it. * and ? stop at a slash, [a-z] and \\ are as in a shell, **
is any number of directories. Blanks around, a leading / and a trailing / do not count; `#` in the first column begins
a comment. It is docker's walk, with its quirk: a line is not looked at where it would change nothing, and so is not
handed down from there either. After `**/*.txt` and `!docs`, docs/a.txt stays excluded, because docs itself was not.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError
from pyrun.runtime.record import Record

from .expand import BLANKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STAR, _ANY, _DIRS, _REST = "star", "any", "dirs", "rest"  # longer than one character: no literals
_FEW = 3  # wildcards that a regular expression may have: it backtracks, and a context may come from anywhere
_GLOB = "*[]?^\\"


class Rule(Record):
    """One line: its number, the cleaned pattern, whether it is an exception, and what it matches."""

    line: int
    pattern: str
    exception: bool
    matches: Callable[[str], bool]


class Ignore:
    """The rules of one file. `path` arguments are relative to the context's root, with / and without a leading one."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.has_exceptions = any(rule.exception for rule in rules)
        # Exceptions without wildcards say where in an excluded directory something can be kept.
        self._plain = all(not _has_glob(_stem(rule.pattern)) for rule in rules if rule.exception)
        self._rows: dict[str, int] = {}  # of directories: which rules matched them, a bit for each

    @classmethod
    def parse(cls, text: str, *, path: str = ".dockerignore") -> Ignore:
        """The rules in `text`. Raises UsageError with the line for a malformed pattern."""
        rules = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.startswith("#") or not (line := line.strip(BLANKS)):
                continue
            exception = line.startswith("!")
            written = line[1:].strip(BLANKS) if exception else line
            pattern = clean(written)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
            if exception and (not written or pattern == "/"):
                raise UsageError(f"{path}:{number}", "an exception needs a pattern after the !")
            try:
                rules.append(Rule(number, pattern, exception, matcher(pattern)))
            except ValueError as error:
                raise UsageError(f"{path}:{number}", f"pattern '{pattern}': {error}") from None
        return cls(tuple(rules))

    def ignored(self, path: str, is_dir: bool = False) -> bool:
        """Whether `path` is left out. Directories and files match alike; is_dir only says that more will follow."""
        if not self.rules or path in ("", "."):
            return False
        excluded, row = self._match(path, self._row(_parent(path)))
        if is_dir:
            self._rows[path] = row
        return excluded

    def may_contain_exceptions(self, path: str) -> bool:
        """Whether something below the excluded directory `path` can be kept; if not, a walker skips all of it."""
        if not self.has_exceptions or not self._plain:
            return self.has_exceptions
        return any(f"{_stem(rule.pattern)}/".startswith(f"{path}/") for rule in self.rules if rule.exception)

    def decided_by(self, path: str) -> Rule | None:
        """The rule that excludes `path`, for messages; None if it is not excluded."""
        row = self._match(path, self._row(_parent(path)))[1]
        last = None
        for number, rule in enumerate(self.rules):
            if row >> number & 1:
                last = None if rule.exception else rule
        return last

    def _row(self, directory: str) -> int:
        """Which rules match a directory. Not by recursion: a path can have two thousand directories."""
        missing = []
        while directory and directory not in self._rows:
            missing.append(directory)
            directory = _parent(directory)
        row = self._rows[directory] if directory else 0
        for path in reversed(missing):
            row = self._rows[path] = self._match(path, row)[1]
        return row

    def _match(self, path: str, above: int) -> tuple[bool, int]:
        """(excluded, which rules match), given which rules match the directory that `path` is in."""
        excluded = False
        row = 0
        for number, rule in enumerate(self.rules):
            if above >> number & 1 or (rule.exception == excluded and rule.matches(path)):
                excluded = not rule.exception
                row |= 1 << number
        return excluded, row


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _stem(pattern: str) -> str:
    """A pattern without the ** or * that ends it."""
    return pattern.removesuffix("/**").removesuffix("/*")


def _has_glob(text: str) -> bool:
    return any(char in _GLOB for char in text)


def clean(path: str) -> str:
    """Go's path.Clean(): no double slashes, no dots, `..` only in front; "" is "."."""
    import posixpath

    cleaned = posixpath.normpath(path) if path else "."
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def matcher(pattern: str) -> Callable[[str], bool]:
    """What decides whether a path matches a cleaned pattern. Raises ValueError for a malformed one."""
    tokens, escaped = tokenize(pattern)
    plain = "".join(token for token in tokens if len(token) == 1)
    wild = [token for token in tokens if len(token) > 1]
    if not wild:
        return lambda path: path == plain
    if wild == [_REST] and tokens[-1] == _REST:
        return lambda path: path.startswith(plain)
    if wild == [_DIRS] and tokens[0] == _DIRS and not escaped:
        if not pattern.startswith("**/"):
            return lambda path: path.endswith(plain)  # `**file` is any name that ends so, not only `file`
        return lambda path: path == plain or path.endswith(f"/{plain}")
    return by_expression(tokens) if len(wild) <= _FEW else by_steps(tokens)


def tokenize(pattern: str) -> tuple[list[str], bool]:
    """(literals and wildcards, whether a literal was escaped). A class is the text of a regular expression's."""
    tokens: list[str] = []
    at, escaped = 0, False
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern[at : at + 1] == "*":
            at += 1 + (pattern[at + 1 : at + 2] == "/")
            tokens.append(_DIRS if at < len(pattern) else _REST)
        elif char == "*":
            tokens.append(_STAR)
        elif char == "?":
            tokens.append(_ANY)
        elif char == "[":
            text, at = _class(pattern, at)
            tokens.append(text)
        elif char == "\\":
            if at == len(pattern):
                raise ValueError("it ends in a backslash")
            tokens.append(pattern[at])
            at, escaped = at + 1, True
        else:
            tokens.append(char)
    return tokens, escaped


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class that begins at `at`, behind its bracket, as a regular expression has it, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges = ""
    while not ranges or pattern[at : at + 1] != "]":
        low, at = _class_char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_char(pattern, at + 1)
        if high < low:
            raise ValueError(f"the range {low}-{high} is empty")
        ranges += f"\\U{ord(low):08x}-\\U{ord(high):08x}"
    return f"[{'^' if negated else ''}{ranges}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    elif char in ("-", "]"):
        raise ValueError(f"'{char}' is out of place in [ ]")
    if not char:
        raise ValueError("a [ is not closed")
    return char, at + 1


_EXPRESSIONS = {_STAR: "[^/]*", _ANY: "[^/]", _DIRS: "(?:.*/)?", _REST: ".*"}


def by_expression(tokens: list[str]) -> Callable[[str], bool]:
    """A matcher that is a regular expression: fast, but its time can grow with a power of the wildcards' number."""
    import re  # 5 ms: only a file with wildcards pays that

    text = "".join(_EXPRESSIONS.get(token, re.escape(token) if len(token) == 1 else token) for token in tokens)
    compiled = re.compile(text, re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def by_steps(tokens: list[str]) -> Callable[[str], bool]:
    """A matcher that keeps the set of places that the pattern can have reached: length × length at worst."""
    import re

    classes = {token: re.compile(token, re.DOTALL) for token in tokens if token.startswith("[") and len(token) > 1}

    def matches(path: str) -> bool:
        places = {0}
        for token in tokens:
            places = _step(path, places, token, classes.get(token))
            if not places:
                return False
        return len(path) in places

    return matches


def _step(path: str, places: set[int], token: str, one_of: object) -> set[int]:
    if token == _REST:
        return set(range(min(places), len(path) + 1))
    if token == _DIRS:
        return places | {at + 1 for at in range(min(places), len(path)) if path[at] == "/"}
    if token == _STAR:
        reached = set(places)
        for at in range(min(places), len(path)):
            if at in reached and path[at] != "/":
                reached.add(at + 1)
        return reached
    if token == _ANY:
        return {at + 1 for at in places if at < len(path) and path[at] != "/"}
    if one_of is not None:
        import re

        assert isinstance(one_of, re.Pattern)
        return {at + 1 for at in places if at < len(path) and one_of.match(path[at])}
    return {at + 1 for at in places if path[at : at + 1] == token}
