"""What a shell's builtins do to its variables and arguments."""

from __future__ import annotations

from collections.abc import Sequence

from baton.check.shell.assign import NAME
from baton.check.shell.scope import MAX_ITEMS, Scope
from baton.check.shell.words import Field, Word

DECLARES = frozenset({"export", "declare", "typeset", "local", "readonly"})
_READS = frozenset({"read", "mapfile", "readarray", "getopts", "let"})


def apply(scope: Scope, name: str, words: Sequence[tuple[Field, Word]]) -> None:
    """Do to a scope what a builtin does; any other program does nothing."""
    if name in {"exit", "return"} or (name == "exec" and len(words) > 1):
        scope.has_ended = True
    elif name in {"source", "."}:
        scope.is_sourced = True
    elif name in _READS or (name == "printf" and [word.value for _, word in words[1:2]] == ["-v"]):
        for _, word in words[1:]:
            found = NAME.match(word.value)
            if found:
                scope.forget(found[0], word.text)
    elif name == "set":
        _set(scope, words)
    elif name == "shift" and scope.arguments is not None:
        count = words[1][1].value if len(words) > 1 else "1"
        is_plain = count.isdecimal() and not any(piece.is_splitting for item in scope.arguments for piece in item)
        scope.arguments = scope.arguments[int(count) :] if is_plain else None


def _set(scope: Scope, words: Sequence[tuple[Field, Word]]) -> None:
    options = [word.value for _, word in words[1:]]
    if "--" in options:
        at = options.index("--")
        scope.arguments = tuple(pieces for pieces, _ in words[at + 2 :]) if len(words) <= MAX_ITEMS else None
        options = options[:at]
    for before, option in zip(["", *options], options, strict=False):
        if option[:1] in {"-", "+"} and "a" in option[1:]:
            scope.exports_all = option[0] == "-"
        elif option == "allexport":
            scope.exports_all = before == "-o"
