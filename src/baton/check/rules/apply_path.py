"""A `kubectl apply -f` of a file that is not there.

A relative path is looked up from where the reader stands, which is the folder of the file that says it. With one `../`
too few, kubectl says `the path does not exist`, and what comes after waits for an object that was never made.

Write the path from this file's folder.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.facts import kubectl
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word
from baton.check.text import Source

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/ai-dynamo/dynamo/pull/5953",)
FIRES = """\
# Weights first

The token: `kubectl apply -f no-such-folder/token.yaml`
"""
SILENT = """\
# Weights first

The operator: `kubectl apply -f https://example.org/operator.yaml`
"""
_VERBS = ("apply", "create", "replace")
_NOT_LITERAL = re.compile(r"[$<>*?{\[]|://")
_ELSEWHERE = re.compile(
    r"(?:^|[\s;&`])(?:cd|pushd|git clone|wget|curl|tar)\s"
    r"|\b(?:from|in|inside|within) [^\n.]*\b(?:director(?:y|ies)|folder|root)\b",
    re.MULTILINE,
)
_LEVELS = 5


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every literal relative path that no folder above has either."""
    given = {posixpath.normpath(file.source.name) for file in bundle.files}
    moved = {file.source for file in bundle.files if _ELSEWHERE.search(file.source.text)}
    for command in kubectl.commands(bundle):
        source = command.span.source
        if command.verb in _VERBS and source not in moved:
            for word in command.values("-f", "--filename", "-k", "--kustomize"):
                path = word.value
                is_literal = word.is_known and path != "-" and not _NOT_LITERAL.search(path)
                if is_literal and not path.startswith(("/", "~")) and not _is_written(source, path):
                    yield from _findings(source, word, given)


def _findings(source: Source, word: Word, given: set[str]) -> Iterator[Finding]:
    folder = posixpath.dirname(source.name) or "."
    if source.name in ("-", "") or source.name.startswith("<") or not Path(folder).is_dir():
        return
    if any(posixpath.normpath(posixpath.join(folder, part)) in given for part in (word.value, _bare(word.value))):
        return
    above = [Path(folder, *[".."] * level) for level in range(_LEVELS)]
    starts = above[:1] if word.value.startswith("..") else above
    if any((place / word.value).exists() for place in starts):
        return
    meant = next((place / _bare(word.value) for place in above if (place / _bare(word.value)).exists()), None)
    instead = os.path.relpath(meant, folder) if meant is not None else None
    yield Finding(
        span=word.span,
        message=f"{word.value} is not there: kubectl says that the path does not exist",
        evidence=(f"looked for from the folder of {source.name}, and from those above it",),
        fix=Fix(f"write {instead}", fixes.replace_text(word.text, instead))
        if instead
        else Fix("write the path from this file's folder, or say how the file is made"),
        harm=None if instead or word.value.startswith("..") else Harm.FRAGILE,
    )


def _is_written(source: Source, path: str) -> bool:
    """Whether the text speaks of the file in another place too: then it may well make it."""
    name = re.escape(posixpath.basename(path.rstrip("/")) or path)
    return (
        re.search(rf"(?<![\w./-])(?<!-f )(?<!-f=)(?<!filename )(?<!filename=)(?:[\w.-]+/|/)*{name}", source.text)
        is not None
    )


def _bare(path: str) -> str:
    """A path without its way up."""
    return re.sub(r"^(?:\.\.?/)+", "", path)
