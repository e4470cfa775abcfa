"""`kubectl` command lines: those that scripts run, and those that a Markdown file shows, inline or fenced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from baton.check.bundle import Bundle, File
from baton.check.shell.script import Word
from baton.check.text import Span

_SHOWN = re.compile(r"\bkubectl[ \t]+(?:[^\n`\\;|&]|\\\n)+")
_WORD = re.compile(r"[^\s\\]+")
_GLOBAL_OPTIONS = ("-n", "--namespace", "--context", "--kubeconfig", "--cluster", "--user")


@dataclass(frozen=True, slots=True, eq=False)
class Kubectl:
    """One command line: what it does ("apply"), the words after that, and where it stands."""

    verb: str
    words: tuple[Word, ...]
    span: Span

    def values(self, *names: str) -> tuple[Word, ...]:
        """Return what an option is given, every time: -f X, -fX is not looked for, --filename=X."""
        found = []
        for at, word in enumerate(self.words):
            name, equals, _ = word.value.partition("=")
            if name in names and equals:
                value = word.text[len(name) + 1 :]
                found.append(Word(value, value.span() if word.text.is_exact else word.span, word.is_known))
            elif name in names and at + 1 < len(self.words):
                found.append(self.words[at + 1])
        return tuple(found)


def commands(bundle: Bundle) -> Iterator[Kubectl]:
    """Yield every kubectl command line of a bundle."""
    prose = {file.source for file in bundle.files if file.kind == "markdown"}
    for invocation in bundle.invocations:
        words = invocation.command.words
        at = next((i for i, w in enumerate(words) if w.value.rsplit("/", maxsplit=1)[-1] == "kubectl"), None)
        if at is not None and invocation.command.span.source not in prose:
            yield from _command(words[at + 1 :], invocation.command.span)
    for file in bundle.files:
        if file.kind == "markdown":
            yield from _shown(file)


def _shown(file: File) -> Iterator[Kubectl]:
    whole = file.source.whole()
    for found in _SHOWN.finditer(whole.value):
        words = []
        for word in _WORD.finditer(found[0]):
            quote = 1 if word[0][0] in "'\"" and word[0][-1] == word[0][0] and len(word[0]) > 1 else 0
            start, end = found.start() + word.start() + quote, found.start() + word.end() - quote
            text = whole[start:end]
            words.append(Word(text, text.span(), is_known="$" not in text.value))
        yield from _command(tuple(words[1:]), whole.span(found.start(), found.end()))


def _command(words: tuple[Word, ...], span: Span) -> Iterator[Kubectl]:
    rest = list(words)
    while rest and rest[0].value.startswith("-"):
        option = rest.pop(0).value
        if option in _GLOBAL_OPTIONS and rest:
            rest.pop(0)
    if rest:
        yield Kubectl(rest[0].value, tuple(rest[1:]), span)
