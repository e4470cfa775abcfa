"""Words of a shell command line, and the pieces they are made of: what is known of each piece, and how it was quoted.

Knows how pieces become words (brace expansion, splitting at blanks); not where pieces come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

from baton.check.text import Span, Text

MAX_BRACE_WORDS = 256
TEMPLATE = re.compile(
    r"\{\{(?:(?!\{\{).)*?\}\}|(?<![<\\\w&])<[A-Za-z][\w.-]*(?:[ /|:][\w.-]+)*>(?![<>&(|])"
    r"|(?<![\w./$])\{[A-Za-z]+(?: [A-Za-z]+)+\}|(?<![\w./])\.\.\.(?![\w./])",
    re.DOTALL,
)
"""What somebody else will put in: a template's `{{ .Values.model }}`, a reader's `<model>`, `{model path}` or `...`."""
_UNSPLIT = re.compile(r"[^ \t\n]+")
_RANGE = re.compile(r"(-?\d{1,9})\.\.(-?\d{1,9})|([A-Za-z])\.\.([A-Za-z])")


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """One word of a command line.

    text: its value with the place of every character; for an unknown one, as it is written. span: where it is written
    (for `$X` the two characters, while `text` stands where X was set). is_known: whether `text` is what the program
    will get. is_splitting: unknown, and not quoted: it may become any number of words, or none.
    """

    text: Text
    span: Span
    is_known: bool = True
    is_splitting: bool = False

    @property
    def value(self) -> str:
        """Its value; as written if not known."""
        return self.text.value


class Quoting(Enum):
    """BARE text may hold braces to expand, an EXPANDED one is split at blanks, a QUOTED one stays as it is."""

    BARE = "bare"
    QUOTED = "quoted"
    EXPANDED = "expanded"


class Piece(NamedTuple):
    """A part of a word; `text` is as written if it is not known."""

    text: Text
    is_known: bool = True
    quoting: Quoting = Quoting.QUOTED

    @property
    def is_splitting(self) -> bool:
        """Whether it may become any number of words."""
        return not self.is_known and self.quoting is Quoting.EXPANDED


Field = tuple[Piece, ...]


def to_word(field: Sequence[Piece], span: Span) -> Word:
    """Return the word that pieces make, written at `span`."""
    if not field:
        return Word(Text("", span.source, [span.start]), span)
    if len(field) == 1:
        return Word(closed(field[0].text), span, field[0].is_known, field[0].is_splitting)
    text = closed(Text.join([piece.text for piece in field if piece.text.value] or [field[0].text]))
    is_known = all(piece.is_known for piece in field)
    is_splitting = not is_known and all(piece.is_splitting for piece in field if piece.text.value)
    return Word(text, span, is_known, is_splitting)


def closed(text: Text) -> Text:
    """Return a text that ends with its last character, not where the next one begins (behind an escape's backslash)."""
    if isinstance(text.offsets, range) or not text.value or text.offsets[-1] <= text.offsets[-2] + 1:
        return text
    end, last = text.offsets[-2], text.value[-1]
    if last in "\\'\"" or text.source.text[end : end + 1] != last:
        return text
    return Text(text.value, text.source, [*text.offsets[:-1], end + 1])


def to_field(word: Word) -> Field:
    """Return the pieces of a word: one, or what stands around the templates in it."""
    if word.is_known:
        return (Piece(word.text),)
    pieces, at = [], 0
    for found in TEMPLATE.finditer(word.value):
        if found.start() > at:
            pieces.append(Piece(word.text[at : found.start()]))
        pieces.append(Piece(word.text[found.start() : found.end()], is_known=False))
        at = found.end()
    if not pieces:
        return (Piece(word.text, is_known=False),)
    return (*pieces, Piece(word.text[at:])) if at < len(word.text) else tuple(pieces)


def quoted(pieces: Iterable[Piece]) -> Field:
    """Return pieces as they are inside double quotes."""
    return tuple(p if p.quoting is Quoting.QUOTED else Piece(p.text, p.is_known) for p in pieces)


def expanded(pieces: Iterable[Piece]) -> Field:
    """Return pieces as the expansion of an unquoted variable gives them."""
    return tuple(Piece(piece.text, piece.is_known, Quoting.EXPANDED) for piece in pieces)


def fields(pieces: Sequence[Piece | None]) -> list[Field]:
    """Split the pieces of one written word into those it becomes; None stands between two elements of an array."""
    found: list[Field] = []
    current: list[Piece] = []
    if len(pieces) == 1 and pieces[0] is not None and pieces[0].quoting is not Quoting.EXPANDED:
        return [quoted([pieces[0]])]

    def flush() -> None:
        if current:
            is_splitting = all(piece.is_splitting for piece in current)
            found.append(tuple(current) if is_splitting else quoted(current))
            current.clear()

    for piece in pieces:
        if piece is None:
            flush()
        elif piece.quoting is not Quoting.EXPANDED or not piece.is_known:
            current.append(piece)
        else:
            at = 0
            for part in _UNSPLIT.finditer(piece.text.value):
                if part.start() > at:
                    flush()
                current.append(piece._replace(text=piece.text[part.start() : part.end()]))
                at = part.end()
            if at < len(piece.text):
                flush()
    flush()
    return found


def braces(pieces: list[Piece | None]) -> list[list[Piece | None]]:
    """Return the words that brace expansion makes of one: a{b,c} becomes ab and ac."""
    if not any(p is not None and p.quoting is Quoting.BARE and "{" in p.text.value for p in pieces):
        return [pieces]
    pending, found = [_atoms(pieces)], list[list[Piece | None]]()
    while pending:
        atoms = pending.pop()
        alternatives = _first_group(atoms)
        if alternatives is None:
            found.append(atoms)
        else:
            pending.extend(reversed(alternatives))
        if len(pending) + len(found) > MAX_BRACE_WORDS:
            return [pieces]
    return [_joined(atoms) for atoms in found]


def _atoms(pieces: list[Piece | None]) -> list[Piece | None]:
    """Cut bare pieces into single characters."""
    atoms: list[Piece | None] = []
    for piece in pieces:
        if piece is not None and piece.quoting is Quoting.BARE and piece.is_known:
            atoms.extend(piece._replace(text=piece.text[at : at + 1]) for at in range(len(piece.text)))
        else:
            atoms.append(piece)
    return atoms


def _joined(atoms: list[Piece | None]) -> list[Piece | None]:
    joined: list[Piece | None] = []
    for atom in atoms:
        last = joined[-1] if joined else None
        if atom and last and atom.quoting is last.quoting is Quoting.BARE and atom.is_known and last.is_known:
            joined[-1] = last._replace(text=Text.join([last.text, atom.text]))
        else:
            joined.append(atom)
    return joined


def _char(atom: Piece | None) -> str:
    return atom.text.value if atom is not None and atom.quoting is Quoting.BARE and atom.is_known else ""


def _first_group(atoms: list[Piece | None]) -> list[list[Piece | None]] | None:
    """Return the words that the first {...} worth expanding makes; None if there is no such."""
    for start, atom in enumerate(atoms):
        if _char(atom) != "{":
            continue
        depth, commas = 0, [start]
        for at in range(start + 1, len(atoms)):
            char = _char(atoms[at])
            if char == "," and depth == 0:
                commas.append(at)
            elif char == "{":
                depth += 1
            elif char == "}" and depth:
                depth -= 1
            elif char == "}":
                bounds = [*commas, at]
                inner = [atoms[a + 1 : b] for a, b in pairwise(bounds)]
                parts = inner if len(inner) > 1 else _range(inner[0])
                if parts:
                    return [[*atoms[:start], *part, *atoms[at + 1 :]] for part in parts]
                break
    return None


def _range(atoms: list[Piece | None]) -> list[list[Piece | None]]:
    """Return the numbers or letters of a {1..3}; nothing if it is not one."""
    found = _RANGE.fullmatch("".join(map(_char, atoms)))
    first = atoms[0] if atoms else None
    if found is None or first is None or not all(map(_char, atoms)):
        return []
    numbers = found[1] is not None
    start, end = (int(found[1]), int(found[2])) if numbers else (ord(found[3]), ord(found[4]))
    step = 1 if end >= start else -1
    if abs(end - start) > MAX_BRACE_WORDS:
        return []
    values = range(start, end + step, step)
    return [[first._replace(text=Text.at(str(v) if numbers else chr(v), first.text.span()))] for v in values]
