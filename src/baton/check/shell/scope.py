"""Variables of a shell as far as reading the script tells them, and what is left of that where branches meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TypeVar

from baton.check.shell.words import Field, Piece, Quoting, Word, to_field
from baton.check.text import Text

_Part = TypeVar("_Part", Piece, Field)

MAX_VALUE_CHARS = 1 << 14
MAX_ITEMS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """One variable.

    word: its value as a program gets it in its environment. pieces: what is known of it; None if nothing is. items: an
    array's elements; None if it is not an array, or nothing is known of it.
    """

    word: Word
    pieces: Field | None
    items: tuple[Field, ...] | None = None

    @staticmethod
    def of(word: Word, pieces: Field) -> Variable:
        """Return a variable of a value; wholly unknown pieces, or too many, are nothing known."""
        is_known = not pieces or any(piece.is_known and piece.text.value for piece in pieces) or word.is_known
        is_small = len(word.text) <= MAX_VALUE_CHARS and len(pieces) <= MAX_ITEMS
        return Variable(word, pieces) if is_known and is_small else Variable.unknown(word)

    @staticmethod
    def array(word: Word, items: tuple[Field, ...]) -> Variable:
        """Return an array of elements."""
        if len(items) > MAX_ITEMS or sum(len(piece.text) for item in items for piece in item) > MAX_VALUE_CHARS:
            return Variable.unknown(word)
        return Variable(word, items[0] if items else (), items)

    @staticmethod
    def unknown(word: Word) -> Variable:
        """Return a variable that is set to something only a run can tell."""
        return Variable(replace(word, is_known=False, is_splitting=False), None)


@dataclass(slots=True)
class Scope:
    """What a shell knows at one point of its script.

    arguments: $1 and on; None if unknown. name: $0. is_sourced: another file has been read in, so anything may be set.
    has_ended: the commands from here to the end of the branch are not reached.
    """

    variables: dict[str, Variable] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    arguments: tuple[Field, ...] | None = None
    name: Field | None = None
    exports_all: bool = False
    is_sourced: bool = False
    has_ended: bool = False

    @staticmethod
    def of(environment: Mapping[str, Word]) -> Scope:
        """Return the scope of a shell that starts with an environment."""
        variables = {name: Variable.of(word, to_field(word)) for name, word in environment.items()}
        return Scope(variables, set(variables))

    def copy(self) -> Scope:
        """Return a scope that may change without this one changing."""
        return replace(self, variables=dict(self.variables), exported=set(self.exported))

    def set(self, name: str, variable: Variable) -> None:
        """Assign a variable."""
        self.variables[name] = variable
        if self.exports_all:
            self.exported.add(name)

    def forget(self, name: str, at: Text) -> None:
        """Take it that a variable may have any value from here on."""
        self.set(name, Variable.unknown(Word(at, at.span())))

    def unset(self, name: str) -> None:
        """Take a variable away."""
        self.variables.pop(name, None)
        self.exported.discard(name)

    def environment(self) -> dict[str, Word]:
        """Return what a program started here gets."""
        variables = self.variables
        return {name: variable.word for name, variable in variables.items() if name in self.exported}

    def elements(self, name: str, index: str | None) -> tuple[Field, ...] | None:
        """Return the elements that are known of an array, or of the arguments."""
        if name in {"@", "*"}:
            return self.arguments
        variable = self.variables.get(name) if index is not None else None
        if variable is None or variable.items is not None or variable.pieces is None:
            return variable.items if variable else None
        return (variable.pieces,)

    def is_set(self, name: str, *, is_empty_set: bool) -> bool | None:
        """Return whether a variable is set; None if that is not known. One nobody sets is taken to be unset."""
        if name.isdecimal() and self.arguments is None:
            return False
        if not name.isdecimal() and name not in self.variables:
            return None if self.is_sourced else False
        value = self.value(name)
        return None if value is None else bool(value) or is_empty_set

    def value(self, name: str) -> Field | None:
        """Return a variable's value; None if it is not known."""
        if name == "0":
            return self.name
        if not name.isdecimal():
            variable = self.variables.get(name)
            return variable.pieces if variable else None
        before = (self.arguments or ())[: int(name)]
        if self.arguments is None or any(piece.is_splitting for item in before for piece in item):
            return None
        return before[-1] if len(before) == int(name) else ()

    def number(self, name: str) -> str | None:
        """Return a variable's value as arithmetic reads it; None if it is not known."""
        value = self.value(name)
        if value is None or not all(piece.is_known for piece in value):
            return None
        return "".join(piece.text.value for piece in value)

    def become(self, branches: Sequence[Scope]) -> None:
        """Go on after branches of which any may have been taken; those that ended do not reach this point."""
        reached = [branch for branch in branches if not branch.has_ended]
        self.has_ended = not reached
        if not reached:
            return
        names = {name: None for branch in reached for name in branch.variables}
        merged: dict[str, Variable] = {}
        for name in names:
            found = [branch.variables.get(name) for branch in reached]
            variable = found[0]
            for other in found[1:]:
                variable = _either(variable, other)
            if variable is not None:
                merged[name] = variable
        self.variables = merged
        self.exported = set().union(*(branch.exported for branch in reached))
        first = reached[0]
        same = all(branch.arguments is first.arguments for branch in reached)
        self.arguments, self.name = (first.arguments if same else None), first.name
        self.exports_all = any(branch.exports_all for branch in reached)
        self.is_sourced = any(branch.is_sourced for branch in reached)


def _either(one: Variable | None, other: Variable | None) -> Variable | None:
    """Return what is known of a variable that is one or the other: what they begin with, if they do so alike."""
    if one is None or other is None:
        there = one or other
        return Variable.unknown(there.word) if there is not None else None
    if one is other:
        return one
    word = replace(one.word, is_known=False)
    if one.items is not None and other.items is not None:
        items = _common(one.items, other.items)
        longer = max(one.items, other.items, key=len)
        first = next((piece for item in longer[len(items) :] for piece in item), Piece(word.text))
        rest = Piece(first.text, is_known=False, quoting=Quoting.EXPANDED)
        return one if len(items) == len(longer) else Variable.array(word, (*items, (rest,)))
    if one.pieces is not None and other.pieces is not None and one.items is other.items is None:
        pieces = _common(one.pieces, other.pieces)
        rests = [piece.text for there in (one.pieces, other.pieces) for piece in there[len(pieces) : len(pieces) + 1]]
        return Variable.of(word, (*pieces, *_uncertain(rests))) if rests else one
    return Variable.unknown(word)


def _uncertain(rests: Sequence[Text]) -> Field:
    """Return what may follow or not: nothing known, but for the blank that sets it apart from what stands before."""
    text = rests[0]
    num_blanks = len(text) - len(text.value.lstrip())
    if not num_blanks or not all(rest.value[:1].isspace() for rest in rests):
        return (Piece(text, is_known=False),)
    return Piece(text[:num_blanks]), Piece(text[num_blanks:], is_known=False)


def _common(one: tuple[_Part, ...], other: tuple[_Part, ...]) -> tuple[_Part, ...]:
    pairs = zip(one, other, strict=False)
    return tuple(a for a, _ in takewhile(lambda pair: _plain(pair[0]) == _plain(pair[1]), pairs))


def _plain(part: Piece | Field) -> object:
    """Return what two parts must have in common to be alike: their value, or the place if that is not known."""
    if isinstance(part, Piece):
        return part.text.value if part.is_known else id(part.text)
    return [_plain(piece) for piece in part]
