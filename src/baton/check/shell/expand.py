"""Words and values as a shell makes them from what is written: quotes removed, variables filled in, the rest unknown.

Works on a tree-sitter node's stretch of the script. The grammar says where quotes and expansions are; all between them
is read here, since the tree leaves out blanks and joined lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import NamedTuple

from tree_sitter import Node

from baton.check.shell.arithmetic import evaluate
from baton.check.shell.scope import Scope, Variable
from baton.check.shell.words import Field, Piece, Quoting, Word, braces, closed, expanded, fields, quoted, to_word
from baton.check.text import Text

MAX_TRIMMED_CHARS = 1000

Pieces = list[Piece | None]

_EXPANSIONS = frozenset({"simple_expansion", "expansion", "command_substitution", "arithmetic_expansion"})
_QUOTES = frozenset({"string", "raw_string", "ansi_c_string", "process_substitution"})
_ASIDE = frozenset(
    {"comment", "ERROR", "file_redirect", "heredoc_redirect", "herestring_redirect", "variable_assignment"}
)
_BARE_KINDS = _EXPANSIONS | _QUOTES | _ASIDE
_QUOTED_KINDS = _EXPANSIONS | {"string"}
_PARAMETER = re.compile(r"\$\{(\w+|[@*#?$!-])(?:\[([^\]]*)\])?(:?[-=+?]|%%?|##?|(?=\}))?", re.ASCII)
_BARE = re.compile(r"(?P<blank>(?:[ \t\n]|\r\n)+)|\\\r?\n|\\(?P<escaped>.)|(?P<plain>[^\\ \t\n\r]+|.)", re.DOTALL)
_ANSI = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})|c(.)|(.))", re.DOTALL
)
_LITERAL = re.compile(r"[^$`<>{]*")
_ANSI_CHARS = dict(zip("abeEfnrtv", "\a\b\x1b\x1b\f\n\r\t\v", strict=True))


class Mode(Enum):
    """Where text stands, which decides what a backslash does there, and what splits."""

    WORDS = "words"
    VALUE = "value"
    OPERAND = "operand"
    QUOTES = "quotes"
    HEREDOC = "heredoc"


_ESCAPES = {
    Mode.QUOTES: re.compile(r"\\(?:\r?\n|([$`\"\\]))"),
    Mode.HEREDOC: re.compile(r"\\(?:\r?\n|([$`\\]))"),
}


class Stretch(NamedTuple):
    """Part of a node that words stand in."""

    node: Node
    start: int
    end: int


class _Found(NamedTuple):
    """What a stretch of the script gives; `pieces` is None where words are set apart."""

    start: int
    end: int
    pieces: Pieces | None


@dataclass(slots=True)
class Expander:
    """Reads words of one script.

    code: the script as it was parsed, of the same length. holes: stretches that are not known (templates, and what an
    outer shell filled in). run: reads the commands of a substitution.
    """

    text: Text
    code: str
    holes: tuple[tuple[int, int], ...]
    scope: Scope
    run: Callable[[Node], None]

    def words(self, stretches: Iterable[Stretch]) -> list[tuple[Field, Word]]:
        """Return the words written in some stretches of a command, each with its pieces."""
        words: list[tuple[Field, Word]] = []
        for start, end, pieces in self._written(stretches):
            only = pieces[0] if len(pieces) == 1 else None
            if only and only.is_known and only.quoting is Quoting.BARE and "{" not in only.text.value:
                text = closed(only.text)
                words.append(((Piece(text),), Word(text, text.span())))
                continue
            span = closed(self.text[start:end]).span()
            for alternative in braces(pieces):
                words.extend((field, to_word(field, span)) for field in fields(alternative))
        return words

    def value(self, node: Node, start: int, end: int, mode: Mode = Mode.VALUE) -> Field:
        """Return the pieces of a value that is not split into words: an assignment's, or a heredoc."""
        found = [piece for part in self._read(node, start, end, mode) for piece in part.pieces or ()]
        return quoted(piece for piece in found if piece is not None and piece.text.value)

    def _written(self, stretches: Iterable[Stretch]) -> Iterator[tuple[int, int, Pieces]]:
        """Yield start, end and pieces of every word as written."""
        for node, first, last in stretches:
            start, end, current = -1, -1, list[Piece | None]()
            for a, b, pieces in self._read(node, first, last, Mode.WORDS):
                if pieces is not None:
                    start, end = (a if start < 0 else start), b
                    current.extend(pieces)
                elif start >= 0:
                    yield start, end, current
                    start, current = -1, []
            if start >= 0:
                yield start, end, current

    def _read(self, node: Node, start: int, end: int, mode: Mode) -> Iterator[_Found]:
        """Yield what a stretch gives, quotes and expansions by the tree, the text between them by itself."""
        is_bare = mode not in _ESCAPES
        at = start
        for inner in _inner(node, _BARE_KINDS if is_bare else _QUOTED_KINDS, start, end):
            first = inner.start_byte
            while self.code[first] in " \t\r\n" and first < inner.end_byte - 1:
                first += 1
            is_translated = inner.type == "string" and is_bare and self.code[at:first].endswith("$")
            if first - is_translated > at:
                yield from self._literal(at, first - is_translated, mode)
            at = max(at, inner.end_byte)
            if inner.type not in _ASIDE:
                yield _Found(first, at, self._active(inner, first, is_quoted=not is_bare))
            elif mode is Mode.WORDS:
                yield _Found(first, first, None)
        if end > at:
            yield from self._literal(at, end, mode)

    def _literal(self, start: int, end: int, mode: Mode) -> Iterator[_Found]:
        if mode not in _ESCAPES and not self.holes:
            yield from self._bare(start, end, mode)
            return
        for a, b, is_known in self._cut(start, end):
            if not is_known:
                yield _Found(a, b, [self._unknown(a, b, is_quoted=mode in _ESCAPES)])
            elif mode in _ESCAPES:
                yield from self._escaped(a, b, _ESCAPES[mode])
            else:
                yield from self._bare(a, b, mode)

    def _escaped(self, start: int, end: int, escapes: re.Pattern[str]) -> Iterator[_Found]:
        """Yield text inside double quotes, where a backslash only means something before a few characters."""
        at = start
        for found in escapes.finditer(self.text.value, start, end):
            if found.start() > at:
                yield _Found(at, found.start(), [Piece(self.text[at : found.start()])])
            at = found.end()
            if found[1]:
                yield _Found(found.start(), at, [Piece(self.text[at - 1 : at])])
        if end > at:
            yield _Found(at, end, [Piece(self.text[at:end])])

    def _bare(self, start: int, end: int, mode: Mode) -> Iterator[_Found]:
        quoting = Quoting.EXPANDED if mode is Mode.OPERAND else Quoting.BARE
        for found in _BARE.finditer(self.text.value, start, end):
            a, b = found.span()
            kind = found.lastgroup
            if kind == "plain" or (kind == "blank" and mode is not Mode.WORDS):
                yield _Found(a, b, [Piece(self.text[a:b], True, quoting)])
            elif kind == "blank":
                yield _Found(a, b, None)
            elif kind == "escaped":
                yield _Found(a, b, [Piece(self.text[b - 1 : b])])

    def _cut(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yield a stretch cut where it is not known."""
        for a, b in self.holes:
            if start < b and a < end:
                if start < a:
                    yield start, a, True
                yield max(start, a), min(b, end), False
                start = min(b, end)
        if start < end:
            yield start, end, True

    def _unknown(self, start: int, end: int, *, is_quoted: bool) -> Piece:
        return Piece(self.text[start:end], False, Quoting.QUOTED if is_quoted else Quoting.EXPANDED)

    def _active(self, node: Node, start: int, *, is_quoted: bool) -> Pieces:
        """Return the pieces of a quoted string or an expansion."""
        end = node.end_byte
        pieces: Pieces
        match node.type:
            case "string":
                found = list(self._read(node, start + 1, max(start + 1, end - 1), Mode.QUOTES))
                pieces = [p for part in found for p in part.pieces or ()] if found else [Piece(self.text[start:start])]
            case "raw_string":
                pieces = [*self.verbatim(start + 1, max(start + 1, end - 1))]
            case "ansi_c_string":
                pieces = self._ansi(start + 2, max(start + 2, end - 1))
            case "simple_expansion":
                pieces = self._parameter(node, start, self.code[start + 1 : end], None, is_quoted=is_quoted)
            case "expansion":
                pieces = self._braced(node, start, is_quoted=is_quoted)
            case "arithmetic_expansion":
                pieces = [self._arithmetic(node, start)]
            case _:
                self.run(node)
                is_one = is_quoted or node.type != "command_substitution"
                pieces = [self._unknown(start, end, is_quoted=is_one)]
        return pieces

    def _arithmetic(self, node: Node, start: int) -> Piece:
        """Return the number that $((...)) gives if all in it is known; it never splits."""
        self.run(node)
        text = self.code[start : node.end_byte]
        inner = text[3:-2] if text.startswith("$((") else text[2:-1]
        result = evaluate(inner, self.scope.number)
        if result is None:
            return self._unknown(start, node.end_byte, is_quoted=True)
        return Piece(Text.at(str(result), self.text.span(start, node.end_byte)))

    def verbatim(self, start: int, end: int) -> list[Piece]:
        """Return a stretch as it stands."""
        if start >= end:
            return [Piece(self.text[start:start])]
        return [Piece(self.text[a:b], is_known) for a, b, is_known in self._cut(start, end)]

    def _ansi(self, start: int, end: int) -> Pieces:
        """Return the pieces of $'...': what stands there, and a piece for every escape."""
        pieces: Pieces = []
        at = start
        for found in _ANSI.finditer(self.text.value, start, end):
            pieces.extend(self.verbatim(at, found.start()) if found.start() > at else [])
            at = found.end()
            pieces.append(Piece(Text.at(_ansi_char(found), self.text.span(found.start(), at))))
        return [*pieces, *self.verbatim(at, end)] if end > at or not pieces else pieces

    def _braced(self, node: Node, start: int, *, is_quoted: bool) -> Pieces:
        """Return what ${...} gives."""
        found = _PARAMETER.match(self.code, start, node.end_byte)
        name, index, operator = (found[1], found[2], found[3]) if found else ("", None, None)
        if found is None or operator is None or (operator and index is not None):
            is_list = "@" in {name, index} and name != "#"
            return [self._unknown(start, node.end_byte, is_quoted=is_quoted and not is_list)]
        if not operator:
            return self._parameter(node, start, name, index, is_quoted=is_quoted)
        operand = Stretch(node, found.end(), node.end_byte - 1)
        if operator[0] in "%#":
            pieces = self._trimmed(name, operator, operand, is_quoted=is_quoted)
        else:
            pieces = self._chosen(name, operator, operand, start, is_quoted=is_quoted)
        return [self._unknown(start, node.end_byte, is_quoted=is_quoted)] if pieces is None else pieces

    def _chosen(self, name: str, operator: str, operand: Stretch, start: int, *, is_quoted: bool) -> Pieces | None:
        """Return what ${X:-operand} and its like give; None if that is not known."""
        is_set = self.scope.is_set(name, is_empty_set=operator[0] != ":")
        is_absent = not name.isdecimal() and name not in self.scope.variables
        is_alternative = operator[-1] == "+"
        if is_set is None or (is_alternative and is_absent) or (operator[-1] == "?" and not is_set):
            return None
        nothing = [Piece(self.text[start:start])] * is_quoted
        if is_set == is_alternative:
            read = self._read(*operand, Mode.QUOTES if is_quoted else Mode.OPERAND)
            given = [piece for part in read for piece in part.pieces or ()]
            if operator[-1] == "=":
                self._assign(name, [p for p in given if p is not None], operand.node, start)
            return [*given] or [*nothing]
        if is_alternative:
            return [*nothing]
        return self._parameter(operand.node, start, name, None, is_quoted=is_quoted)

    def _assign(self, name: str, given: list[Piece], node: Node, start: int) -> None:
        pieces = quoted(given)
        word = to_word(pieces, self.text.span(start, node.end_byte))
        self.scope.set(name, Variable.of(word, pieces))

    def _trimmed(self, name: str, operator: str, operand: Stretch, *, is_quoted: bool) -> Pieces | None:
        """Return a value without what ${X%pattern} takes off; None if that is not known."""
        value = self.scope.value(name)
        pattern = self.code[operand.start : operand.end]
        if value is None or not all(piece.is_known for piece in value) or re.search(r"[$\\'\"`\[]", pattern):
            return None
        text = to_word(value, self.text.span(operand.start, operand.end)).text
        is_end, is_long = operator[0] == "%", len(operator) == 2
        if len(text) > MAX_TRIMMED_CHARS or pattern.count("*") > 2:
            return None
        cuts = range(len(text) + 1)
        for cut in cuts if is_long == is_end else reversed(cuts):
            part = text.value[cut:] if is_end else text.value[:cut]
            if fnmatchcase(part, pattern):
                text = text[:cut] if is_end else text[cut:]
                break
        return [Piece(text, quoting=Quoting.QUOTED if is_quoted else Quoting.EXPANDED)]

    def _parameter(self, node: Node, start: int, name: str, index: str | None, *, is_quoted: bool) -> Pieces:
        """Return what $name, or an element or all of an array, gives."""
        items = self.scope.elements(name, index)
        if name in {"@", "*"} or index in {"@", "*"}:
            if items is None:
                splits = name == "@" or index == "@" or not is_quoted
                return [self._unknown(start, node.end_byte, is_quoted=not splits)]
            blank = Piece(Text.at(" ", self.text.span(start, node.end_byte)))
            items = tuple(self._named(item, start, node.end_byte) for item in items)
            return _spread(items, blank if is_quoted and "*" in {name, index} else None, is_quoted=is_quoted)
        if index is not None:
            is_there = items is not None and index.isdecimal() and int(index) < len(items)
            value = items[int(index)] if items is not None and is_there else None
        else:
            value = self.scope.value(name)
        if value is None:
            return [self._unknown(start, node.end_byte, is_quoted=is_quoted)]
        if not value:
            return [Piece(self.text[start:start])] if is_quoted else []
        value = self._named(value, start, node.end_byte)
        return list(quoted(value) if is_quoted else expanded(value))

    def _named(self, pieces: Field, start: int, end: int) -> Field:
        """Return pieces, those that may be there or not as the expansion that says so, lest they look like given."""
        if all(piece.is_known or not _LITERAL.fullmatch(piece.text.value) for piece in pieces):
            return pieces
        name = self.text[start:end]
        return tuple(p if p.is_known or not _LITERAL.fullmatch(p.text.value) else p._replace(text=name) for p in pieces)


def _inner(node: Node, kinds: frozenset[str], start: int, end: int) -> Iterator[Node]:
    """Yield the outermost nodes of some kinds within a stretch."""
    for child in node.children:
        if child.end_byte > start and child.start_byte < end:
            if child.type in kinds:
                yield child
            elif child.child_count:
                yield from _inner(child, kinds, start, end)


def _spread(items: tuple[Field, ...], between: Piece | None, *, is_quoted: bool) -> Pieces:
    """Return the elements of an array as pieces, with `between` or a gap between two of them."""
    pieces: Pieces = []
    for item in items:
        pieces.extend(item if is_quoted else expanded(item))
        pieces.append(between)
    return pieces[:-1]


def _ansi_char(found: re.Match[str]) -> str:
    hexadecimal = found[1] or found[2] or found[3]
    if hexadecimal or found[4]:
        code = int(hexadecimal, 16) if hexadecimal else int(found[4], 8) & 0xFF
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    if found[5]:
        return chr(ord(found[5]) & 0x1F)
    return _ANSI_CHARS.get(found[6], found[6] if found[6] in "\\'\"?" else found[0])
