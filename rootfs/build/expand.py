# SPDX-License-Identifier: Apache-2.0
"""Variables and quotes in a Dockerfile's words, as BuildKit's shell lexer takes them.

    $name ${name}                      the value, "" when it is not set
    ${name-word} ${name:-word}         word when it is not set (with the colon: or empty)
    ${name+word} ${name:+word}         word when it is set (with the colon: and not empty)
    ${name?word} ${name:?word}         an error with that message when it is not set (with the colon: or empty)
    ${name#pat} ${name##pat}           without the shortest (longest) beginning that matches; % and %% for the end
    ${name/pat/word} ${name//pat/word} the first match (every match) replaced

A pattern knows ? and *, and \\ before ? * \\ } /. Single quotes keep everything, double quotes all but $ and the
escape character, which is \\ or, after `# escape=`, `. Names are letters, digits and _, or a special parameter of sh's.
"""

from __future__ import annotations

from pyrun.runtime.errors import UsageError

from . import patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Lookup = Callable[[str], str | None]

# What Go's unicode.IsSpace() takes for a blank. Python's str.isspace() has U+001C to U+001F on top of it.
BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_SPECIAL = "@*#?-$!0"  # POSIX, section 2.5.2; one letter each
_CONDITIONS = ("-", "+", "?")
_DEEPEST = 50  # levels of ${a:-${b:-…}}; each takes six of the interpreter's own
_END = ""  # what peek() gives at the end


class ExpandError(UsageError):
    """A word that cannot be expanded; the caller knows the line and adds it."""


def expand(text: str, lookup: Lookup, *, escape: str = "\\", used: set[str] | None = None) -> str:
    """One word with its variables replaced and its quotes taken away; blanks stay where they are.

    Args:
        lookup: the value of a variable, None when it is not set.
        escape: the file's escape character.
        used: gets the name of every variable that was asked for, set or not.
    Raises ExpandError: a quote or brace is not closed, an unknown operator, or ${name?message}.
    """
    if not _is_special(text, escape):
        return text
    return _Lexer(text, lookup, escape, used).run()[0]


def expand_words(text: str, lookup: Lookup, *, escape: str = "\\", used: set[str] | None = None) -> list[str]:
    """As expand(), split at the blanks outside of quotes, those that came from variables included. "" is no word."""
    return _Lexer(text, lookup, escape, used).run()[1]


def raw(text: str, lookup: Lookup, *, escape: str = "\\", used: set[str] | None = None) -> str:
    """As expand(), but quotes are ordinary characters: for the contents of a heredoc."""
    if not _is_special(text, escape):
        return text
    return _Lexer(text, lookup, escape, used, quotes=False).run()[0]


def unset(_: str) -> None:
    """The lookup of an empty environment."""


def split_raw(text: str) -> list[str]:
    """The words of a line with quotes, escapes and variables left as they are: `<<  EOF` is one word.

    This is how heredocs are found, always with \\ as the escape character. A line that cannot be split has no words.
    """
    try:
        return _Lexer(text, unset, "\\", None, keep_quotes=True, keep_escapes=True, keep_unset=True).run()[1]
    except ExpandError:
        return []


def heredoc_name(text: str) -> tuple[str, bool] | None:
    """What stands after `<<`: (name without quotes, whether the contents are expanded); None unless it is one word."""
    plain = _Lexer(text, unset, "\\", None, keep_unset=True).run()[1]
    if len(plain) != 1:
        return None
    quoted = _Lexer(text, unset, "\\", None, keep_quotes=True, keep_unset=True).run()[1]
    return plain[0], _quotes(plain[0]) == _quotes(quoted[0])


def quoted_words(text: str, escape: str = "\\") -> list[str]:
    """The words of ENV, LABEL and ARG: split at blanks outside of quotes; quotes and escapes stay for expand()."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    chars = iter(text)
    for char in chars:
        if char in BLANKS and not quote:
            if word:
                words.append("".join(word))
            word = []
            continue
        if char == escape and quote != "'":
            following = next(chars, "")
            if following:  # an escape character at the very end is dropped
                word += (char, following)
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        word.append(char)
    return [*words, "".join(word)] if word else words


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


def _is_special(text: str, escape: str) -> bool:
    return "$" in text or escape in text or "'" in text or '"' in text


class _Words:
    """Collects words: a blank ends one, unless it comes from quotes or an escape."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._word: list[str] = []

    def add(self, text: str, *, quoted: bool) -> None:
        if quoted:
            self._word.append(text)
            return
        for char in text:
            if char in BLANKS:
                self.end()
            else:
                self._word.append(char)

    def end(self) -> list[str]:
        word = "".join(self._word)
        if word:
            self.done.append(word)
        self._word = []
        return self.done


class _Lexer:
    """One pass over a text. `keep_*` leaves things as they are written, for words that are looked at and not used."""

    def __init__(
        self,
        text: str,
        lookup: Lookup,
        escape: str,
        used: set[str] | None,
        *,
        quotes: bool = True,
        keep_quotes: bool = False,
        keep_escapes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.lookup = lookup
        self.escape = escape
        self.used = used
        self.quotes = quotes
        self.keep_quotes = keep_quotes
        self.keep_escapes = keep_escapes
        self.keep_unset = keep_unset

    def run(self) -> tuple[str, list[str]]:
        return self._until(_END)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += len(char)
        return char

    def _until(self, stop: str) -> tuple[str, list[str]]:
        """Everything up to `stop`, which is consumed, or to the end."""
        result: list[str] = []
        words = _Words()
        while char := self._peek():
            if char == stop:
                self._next()
                return "".join(result), words.end()
            if char == "$":
                piece, quoted = self._variable(), False
            elif char == "<":
                piece, quoted = self._heredoc_mark(), True
            elif self.quotes and char == "'":
                piece, quoted = self._single_quoted(), True
            elif self.quotes and char == '"':
                piece, quoted = self._double_quoted(), True
            elif char == self.escape:
                self._next()
                piece, quoted = (char if self.keep_escapes else "") + self._next(), True
            else:
                piece, quoted = self._next(), False
            result.append(piece)
            words.add(piece, quoted=quoted)
        if stop:
            raise self._error("'}' is missing" if stop == "}" else f"'{stop}' is missing in ${{…}}")
        return "".join(result), words.end()

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise self._error("a single quote is not closed")
        inside = self.text[self.at + 1 : end]
        self.at = end + 1
        return f"'{inside}'" if self.keep_quotes else inside

    def _double_quoted(self) -> str:
        mark = '"' if self.keep_quotes else ""
        result = [mark]
        self._next()
        while char := self._peek():
            if char == "$":
                result.append(self._variable())
                continue
            self._next()
            if char == '"':
                return "".join([*result, mark])
            if char == self.escape and self._peek() in ('"', "$", self.escape):
                char = (char if self.keep_escapes else "") + self._next()
            result.append(char)
        raise self._error("a double quote is not closed")

    def _heredoc_mark(self) -> str:
        """`<`, or `<<` with the blanks after it, which belong to the word that names the heredoc."""
        start = self.at
        self._next()
        if self._peek() == "<":
            self._next()
            while self._peek() in ("\t", "\r", " "):
                self._next()
        return self.text[start : self.at]

    def _name(self) -> str:
        first = self._peek()
        end = self.at
        if first.isdecimal():
            while self.text[end : end + 1].isdecimal():
                end += 1
        elif first and first in _SPECIAL:
            end += 1
        else:
            while (char := self.text[end : end + 1]) and (char.isalpha() or char.isdecimal() or char == "_"):
                end += 1
        name = self.text[self.at : end]
        self.at = end
        return name

    def _get(self, name: str) -> str | None:
        if self.used is not None:
            self.used.add(name)
        return self.lookup(name)

    def _variable(self) -> str:
        self._next()
        if self._peek() == "{":
            self._next()
            return self._braced()
        name = self._name()
        if not name:
            return "$"
        value = self._get(name)
        if value is None:
            return f"${name}" if self.keep_unset else ""
        return value

    def _braced(self) -> str:
        if self._peek() == _END:
            raise self._error("'}' is missing")
        if self._peek() in "{}:":
            raise self._error("${ must be followed by a name")
        name = self._name()
        operator = self._next()
        if operator == "}":
            value = self._get(name)
            if value is None:
                return f"${{{name}}}" if self.keep_unset else ""
            return value
        if operator == ":":
            condition = self._next()
            if condition not in _CONDITIONS:
                raise self._error(f"unknown operator ':{condition}' in ${{{name}…}}", "use :-, :+ or :?")
            return self._conditional(name, condition, colon=True)
        if operator in _CONDITIONS:
            return self._conditional(name, operator, colon=False)
        if operator in ("#", "%"):
            return self._trimmed(name, operator)
        if operator == "/":
            return self._replaced(name)
        if operator == _END:
            raise self._error("'}' is missing")
        raise self._error(f"unknown operator '{operator}' in ${{{name}…}}", "known are - + ? # % / and :- :+ :?")

    def _conditional(self, name: str, condition: str, *, colon: bool) -> str:
        word = self._word("}", keep_escapes=False)
        value = self._get(name)
        if self.keep_unset and value is None:
            return f"${{{name}{':' if colon else ''}{condition}{word}}}"
        missing = value is None or (colon and value == "")
        if condition == "+":
            return "" if missing else word
        if not missing:
            return value or ""
        if condition == "-":
            return word
        state = "unset" if value is None else "empty"
        raise ExpandError(name, word or f"it must not be {state}")

    def _trimmed(self, name: str, operator: str) -> str:
        pattern = self._word("}", keep_escapes=True)
        value = self._get(name)
        if value is None:
            return f"${{{name}{operator}{pattern}}}" if self.keep_unset else ""
        longest = pattern.startswith(operator)
        trim = patterns.without_prefix if operator == "#" else patterns.without_suffix
        return trim(value, self._pattern(pattern[1:] if longest else pattern), longest=longest)

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = self._word("/", keep_escapes=True)
        word = self._word("}", keep_escapes=True)
        value = self._get(name)
        if value is None:
            return f"${{{name}/{pattern}/{word}}}" if self.keep_unset else ""
        return patterns.replace(value, self._pattern(pattern), word, everywhere=everywhere)

    def _word(self, stop: str, *, keep_escapes: bool) -> str:
        """The word of an operator, up to `stop`. An error ends the lexer, so nothing is restored then."""
        before = self.keep_escapes
        self.keep_escapes = keep_escapes or before
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error(f"more than {_DEEPEST} nested ${{…}}")
        word = self._until(stop)[0]
        self.depth -= 1
        self.keep_escapes = before
        return word

    def _pattern(self, text: str) -> list[str]:
        try:
            return patterns.parse(text)
        except ValueError as error:
            raise self._error(str(error)) from None

    def _error(self, why: str, hint: str = "") -> ExpandError:
        return ExpandError(f"cannot expand '{self.text}'", why, hint=hint)
