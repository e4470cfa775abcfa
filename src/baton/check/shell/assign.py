"""Assignments: the name and value of `X=...`, `X+=...` and `A=(...)`, and words that assign (`export "X=..."`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tree_sitter import Node

from baton.check.shell.expand import Expander, Stretch
from baton.check.shell.scope import Scope, Variable
from baton.check.shell.words import Field, Piece, Word, to_word
from baton.check.text import Span

NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=", re.ASCII)


def assignment(expander: Expander, node: Node) -> tuple[str, Variable]:
    """Return the name and the value of an assignment."""
    target, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    found = _ASSIGNMENT.match(expander.code, node.start_byte, node.end_byte)
    if target is None or found is None:
        name = NAME.match(expander.code, node.start_byte, node.end_byte)
        word = Word(expander.text[node.start_byte : node.end_byte], expander.text.span(node.start_byte, node.end_byte))
        return (name[0] if name else ""), Variable.unknown(word)
    old = expander.scope.variables.get(found[1])
    start, end = found.end(), max(found.end(), node.end_byte)
    span = expander.text.span(start, end)
    if value is not None and value.type == "array":
        return found[1], _array(expander, value, span, old if found[2] else None)
    pieces = expander.value(node, start, end)
    if found[2] and old is not None and old.items is not None:
        return found[1], Variable.unknown(Word(expander.text[start:end], span))
    if found[2]:
        before = old.pieces if old is not None else None
        at = expander.text[found.start(1) : found.end(1)]
        pieces = (*(before if before is not None else (Piece(at, is_known=False),)), *pieces)
    return found[1], Variable.of(to_word(pieces, span), pieces)


def _array(expander: Expander, node: Node, span: Span, old: Variable | None) -> Variable:
    stretch = Stretch(node, node.start_byte + 1, max(node.start_byte + 1, node.end_byte - 1))
    words = expander.words([stretch])
    if any(word.value.startswith("[") and "]=" in word.value for _, word in words):
        return Variable.unknown(Word(expander.text[node.start_byte : node.end_byte], span))
    items = tuple(pieces for pieces, _ in words)
    word = Word(expander.text[node.start_byte : node.end_byte], span, is_known=False)
    if old is None:
        return Variable.array(word, items)
    if old.items is None and old.pieces is None:
        return Variable.unknown(word)
    before = old.items if old.items is not None else (old.pieces or (),)
    return Variable.array(word, (*before, *items))


def declare(scope: Scope, words: Sequence[tuple[Field, Word]]) -> list[str]:
    """Set the variables of words like NAME=VALUE; return their names."""
    names = []
    for _, word in words:
        name, equals, _ = word.value.partition("=")
        if NAME.fullmatch(name):
            names.append(name)
            if equals:
                value = Word(word.text[len(name) + 1 :], word.span, word.is_known)
                scope.set(name, Variable.of(value, (Piece(value.text, word.is_known),)))
    return names
