"""Downloads of models from the Hugging Face Hub that scripts make: what, which revision, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.commands.launches import Invocation
from baton.check.facts import storage
from baton.check.facts.storage import Place
from baton.check.shell.script import Word

_PROGRAMS = ("hf", "huggingface-cli")
_SWITCHES = ("--quiet", "--force-download", "--resume-download", "--dry-run", "--json")
_MANY = ("--include", "--exclude")


@dataclass(frozen=True, slots=True, eq=False)
class Download:
    """One `hf download`.

    repo: as written. revision: None if not given. is_whole: all of the repository, not some files. folder: where it
    goes, None if not known. is_cached: into the Hub's cache layout (hub/models--org--name/snapshots/...) below folder.
    """

    repo: Word
    revision: Word | None
    is_whole: bool
    folder: str | None
    is_cached: bool
    invocation: Invocation

    @property
    def place(self) -> Place | None:
        """The claim it goes to, and the path there; None if that is not known or no claim."""
        workload, container = self.invocation.workload, self.invocation.container
        if self.folder is None or workload is None or container is None:
            return None
        return storage.place(workload, container, self.folder)


def downloads(bundle: Bundle) -> Iterator[Download]:
    """Yield every download of a model."""
    for invocation in bundle.invocations:
        words = invocation.command.words
        for at in range(len(words) - 2):
            program = words[at].value.rsplit("/", maxsplit=1)[-1]
            if program in _PROGRAMS and words[at + 1].value == "download":
                found = _download(words[at + 2 :], invocation)
                if found is not None:
                    yield found
                break


def _download(words: tuple[Word, ...], invocation: Invocation) -> Download | None:
    options, positionals = _parsed(words)
    kind = options.get("--repo-type")
    if not positionals or (kind is not None and kind.value != "model"):
        return None
    is_whole = len(positionals) == 1 and not any(name in options for name in _MANY)
    local = options.get("--local-dir")
    cache = options.get("--cache-dir")
    if local is not None or cache is not None:
        word = local or cache
        folder = word.value if word is not None and word.is_known else None
    else:
        folder = storage.cache_folder(invocation.command.env)
    return Download(positionals[0], options.get("--revision"), is_whole, folder, local is None, invocation)


def _parsed(words: tuple[Word, ...]) -> tuple[dict[str, Word], list[Word]]:
    """Options with their (last) values, and the rest."""
    options: dict[str, Word] = {}
    positionals: list[Word] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.value.partition("=")
        if not name.startswith("-"):
            positionals.append(word)
        elif equals:
            options[name] = Word(word.text[len(name) + 1 :], word.span, word.is_known)
        elif name in _MANY:
            options[name] = word
            while rest and not rest[0].value.startswith("-"):
                options[name] = rest.pop(0)
        elif name not in _SWITCHES and rest:
            options[name] = rest.pop(0)
    return options, positionals
