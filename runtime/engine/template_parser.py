# SPDX-License-Identifier: Apache-2.0
"""Go templates, parsed: text in, a tuple of Nodes out."""

from __future__ import annotations

from pyrun.runtime.engine.template_functions import FUNCTIONS, TemplateError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
WORDS = {"true": True, "false": False, "nil": None}
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class Literal(Record):
    """A constant: string, number, true, false, nil."""

    value: Any


class Variable(Record):
    """$name, or $ for the whole data."""

    name: str


class Chain(Record):
    """.A.B, or (pipeline).A, or $x.A; no fields is the dot itself."""

    start: Any  # None for the dot, a Pipeline or a Variable
    fields: tuple[str, ...]


class Command(Record):
    """A function (by name, as str) or a value, and the operands after it."""

    operands: tuple[Any, ...]


class Pipeline(Record):
    """commands joined by |; `names` are the variables that it declares."""

    names: tuple[str, ...]
    commands: tuple[Command, ...]


class Node(Record):
    """text, print, if, with or range."""

    kind: str
    text: str = ""
    pipeline: Pipeline | None = None
    body: tuple[Node, ...] = ()
    orelse: tuple[Node, ...] = ()


def parse(text: str) -> tuple[Node, ...]:
    """The template as nodes. Raises TemplateError with what is wrong and where."""
    reader = _Reader(_pieces(text))
    nodes, stop = reader.nodes()
    if stop:
        raise TemplateError(f"{{{{{stop}}}}} without a beginning")
    return nodes


def _pieces(text: str) -> list[tuple[str, str]]:
    """("text", …) and ("action", inside of {{…}}), with {{- and -}} having eaten their white space."""
    pieces: list[tuple[str, str]] = []
    at, trim = 0, False
    while at <= len(text):
        start = text.find("{{", at)
        plain = text[at:] if start < 0 else text[at:start]
        plain = plain.lstrip() if trim else plain
        if start < 0:
            pieces.append(("text", plain))
            break
        end = _action_end(text, start + 2)
        inside = text[start + 2 : end]
        if inside.startswith("-") and inside[1:2].isspace():
            plain, inside = plain.rstrip(), inside[1:]
        trim = inside.endswith("-") and inside[-2:-1].isspace()
        inside = (inside[:-1] if trim else inside).strip()
        pieces.append(("text", plain))
        if not (inside.startswith("/*") and inside.endswith("*/")):
            pieces.append(("action", inside))
        at = end + 2
    return [piece for piece in pieces if piece != ("text", "")]


def _action_end(text: str, at: int) -> int:
    """Where the }} of the action that began before `at` is: not inside a string."""
    quote = ""
    start = at
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\" and quote == '"':
                at += 1
            elif char == quote:
                quote = ""
        elif char in "\"`'":
            quote = char
        elif text.startswith("}}", at):
            return at
        at += 1
    raise TemplateError(f"{{{{{text[start : start + 20]} is not closed with }}}}")


class _Reader:
    """Reads nodes until the {{end}} or {{else}} that belongs to somebody further out."""

    def __init__(self, pieces: list[tuple[str, str]]) -> None:
        self.pieces = pieces
        self.at = 0

    def nodes(self) -> tuple[tuple[Node, ...], str]:
        """The nodes up to an end or else of the block around them, and that word ("" at the end of the template)."""
        found: list[Node] = []
        while self.at < len(self.pieces):
            kind, text = self.pieces[self.at]
            self.at += 1
            if kind == "text":
                found.append(Node("text", text))
                continue
            word, _, rest = text.partition(" ")
            if word == "end" or word == "else":
                return tuple(found), text
            found.append(self._block(word, rest) if word in ("if", "with", "range") else _print(text))
        return tuple(found), ""

    def _block(self, word: str, rest: str) -> Node:
        pipeline = _Tokens(rest).pipeline_to_end()
        body, stop = self.nodes()
        orelse: tuple[Node, ...] = ()
        if stop.startswith("else "):
            inner, _, condition = stop[5:].strip().partition(" ")
            return Node(word, "", pipeline, body, (self._block(inner, condition),))
        if stop == "else":
            orelse, stop = self.nodes()
        if stop != "end":
            raise TemplateError(f"{{{{{word}}}}} has no {{{{end}}}}")
        return Node(word, "", pipeline, body, orelse)


def _print(text: str) -> Node:
    return Node("print", "", _Tokens(text).pipeline_to_end())


class _Tokens:
    """The inside of one action."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def pipeline_to_end(self) -> Pipeline:
        pipeline = self._pipeline()
        if self.at < len(self.text):
            raise TemplateError(f"unexpected '{self.text[self.at :]}'")
        return pipeline

    def _pipeline(self) -> Pipeline:
        names = self._declared()
        commands = [self._command()]
        while self._skip() == "|":
            self.at += 1
            commands.append(self._command())
        return Pipeline(names, tuple(commands))

    def _declared(self) -> tuple[str, ...]:
        """$x := or $i, $x := in front of a pipeline."""
        head, assign, _ = self.text[self.at :].partition(":=")
        names = tuple(name.strip() for name in head.split(","))
        if not assign or not all(name[:1] == "$" and LETTERS.issuperset(name[1:]) for name in names):
            return ()
        self.at += len(head) + 2
        return names

    def _command(self) -> Command:
        operands: list[Any] = []
        while self._skip() not in ("", "|", ")"):
            operands.append(self._operand())
        if not operands:
            raise TemplateError(f"nothing to show in '{{{{{self.text}}}}}'")
        return Command(tuple(operands))

    def _operand(self) -> Any:
        char = self._skip()
        if char in "\"`'":
            return Literal(self._string(char))
        if char == "(":
            self.at += 1
            inner = self._pipeline()
            if self._skip() != ")":
                raise TemplateError(f"'(' is not closed in '{{{{{self.text}}}}}'")
            self.at += 1
            return self._chain(inner)
        if char == "$":
            self.at += 1
            return self._chain(Variable("$" + self._word()))
        if char == ".":
            return self._chain(None)
        word = self._word()
        number = word.removeprefix("-")
        if number.isascii() and number.isdigit():
            if self.text[self.at : self.at + 1] == ".":
                self.at += 1
                word += "." + self._word()
                return Literal(float(word))
            return Literal(int(word))
        if word in WORDS:
            return Literal(WORDS[word])
        if word not in FUNCTIONS:
            raise self._unknown(word or self.text[self.at :])
        return word

    def _unknown(self, word: str) -> TemplateError:
        from pyrun.runtime.oci.nearest import did_you_mean

        hint = did_you_mean(word, FUNCTIONS) or f"a field begins with a dot: .{word}"
        return TemplateError(f"there is no function '{word}'", hint=hint)

    def _chain(self, start: Any) -> Any:
        fields: list[str] = []
        while self.text[self.at : self.at + 1] == ".":
            self.at += 1
            name = self._word()
            if name:
                fields.append(name)
            elif start is not None or fields:
                raise TemplateError(f"a field's name is missing in '{{{{{self.text}}}}}'")
        return start if start is not None and not fields else Chain(start, tuple(fields))

    def _string(self, quote: str) -> str:
        self.at += 1
        out = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == quote:
                return out
            if char == "\\" and quote != "`":
                letter = self.text[self.at : self.at + 1]
                if letter not in ESCAPES:
                    raise TemplateError(f"unknown escape \\{letter}")
                char = ESCAPES[letter]
                self.at += 1
            out += char
        raise TemplateError(f"a string is not closed in '{{{{{self.text}}}}}'")

    def _word(self) -> str:
        start = self.at
        if self.text[start : start + 1] == "-":
            self.at += 1
        while self.text[self.at : self.at + 1] and self.text[self.at] in LETTERS:
            self.at += 1
        return self.text[start : self.at]

    def _skip(self) -> str:
        """The next character that is not white space; "" at the end."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]
