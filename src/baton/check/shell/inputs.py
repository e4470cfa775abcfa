"""What redirects hand to a command: heredocs and here-strings, which may be scripts, and words behind a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tree_sitter import Node

from baton.check.shell.expand import Expander, Mode, Stretch
from baton.check.shell.nested import SCRIPT_SUFFIXES, reads_script
from baton.check.shell.words import Piece, Word
from baton.check.text import Text

REDIRECTS = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})


@dataclass(slots=True)
class Input:
    """What one redirect holds: text for the command to read, and statements that stand on a heredoc's first line."""

    pieces: Sequence[Piece] = ()
    statements: list[Node] = field(default_factory=list)


def read_input(expander: Expander, redirect: Node) -> Input:
    """Return what a redirect holds; commands in its substitutions are read."""
    if redirect.type == "herestring_redirect":
        return Input(expander.value(redirect, redirect.start_byte + 3, redirect.end_byte))
    if redirect.type == "file_redirect":
        target = redirect.child_by_field_name("destination")
        if target is not None:
            expander.words([Stretch(redirect, target.start_byte, target.end_byte)])
        return Input()
    found, is_raw = Input(), False
    for child in redirect.children:
        if child.type == "heredoc_start":
            is_raw = any(quote in expander.code[child.start_byte : child.end_byte] for quote in "'\"\\")
        elif child.type == "heredoc_body":
            found.pieces = _body(expander, child, is_raw=is_raw)
        elif child.type == "file_redirect":
            read_input(expander, child)
        elif child.child_count and child.type != "heredoc_end":
            found.statements.append(child)
    return found


def _body(expander: Expander, body: Node, *, is_raw: bool) -> Sequence[Piece]:
    """Return a heredoc's text, from the start of its first line, which the grammar leaves out if it is blank."""
    start = expander.code.rfind("\n", 0, body.start_byte) + 1
    is_blank = not expander.code[start : body.start_byte].strip()
    start = start if is_blank else body.start_byte
    if is_raw:
        return expander.verbatim(start, body.end_byte)
    return expander.value(body, start, body.end_byte, Mode.HEREDOC)


def is_script(expander: Expander, words: Sequence[Word], redirects: Sequence[Node], given: Input) -> bool:
    """Whether what a command is given to read is a script: one it runs, saves as one, or pipes to a shell."""
    body = "".join(piece.text.value for piece in given.pieces)
    if reads_script(words, body) or any(name.endswith(SCRIPT_SUFFIXES) for name in _targets(expander, redirects)):
        return True
    for statement in given.statements:
        if statement.type == "pipeline":
            names = expander.code[statement.start_byte : statement.end_byte].replace("|", " ").split()
            span = expander.text.span(statement.start_byte, statement.end_byte)
            if reads_script([Word(Text.at(name, span), span) for name in names], body):
                return True
    return False


def _targets(expander: Expander, redirects: Iterable[Node]) -> Iterator[str]:
    """Yield the names of the files that redirects write."""
    for redirect in redirects:
        target = redirect.child_by_field_name("destination")
        if redirect.type == "file_redirect" and target is not None:
            yield expander.code[target.start_byte : target.end_byte].strip("'\"")
        elif redirect.type == "heredoc_redirect":
            yield from _targets(expander, redirect.children)


def words_behind(redirects: Iterable[Node]) -> Iterator[Stretch]:
    """Yield the words that stand behind a redirect's target, which the grammar takes for targets too."""
    for redirect in redirects:
        if redirect.type == "file_redirect":
            targets = redirect.children_by_field_name("destination")
            if len(targets) > 1:
                yield Stretch(redirect, targets[0].end_byte, redirect.end_byte)
        elif redirect.type == "heredoc_redirect":
            yield from words_behind(redirect.children)
