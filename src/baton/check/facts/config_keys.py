"""The keys of config flags that a launch gives, in JSON or as --flag.key words, and which config class each is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from baton.catalogue.engine import EngineCatalogue, Key
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.facts.json_text import Member, members
from baton.check.text import Text

_NO_DATA = object()


@dataclass(frozen=True, slots=True, eq=False)
class GivenKey:
    """One key.

    path: the keys down to it. key: its name where it stands. value: its value where it stands, None if that is not
    known or the key only leads to another. data: what the value means. member: its place in JSON, None for a word.
    """

    option: Argument
    path: tuple[str, ...]
    key: Text
    value: Text | None
    data: Any
    member: Member | None

    @property
    def name(self) -> str:
        """The key with its flag, as it would be written as a word."""
        return ".".join((self.option.name, *self.path))

    def of(self, catalogue: EngineCatalogue) -> Key | None:
        """Return the key in one release; None if it has it not."""
        flag = catalogue.flags.get(self.option.name)
        return catalogue.key(flag.config, self.path) if flag is not None and flag.config else None

    def parent(self, catalogue: EngineCatalogue) -> str:
        """Return the config class that it would be a key of; "" if that is not known."""
        flag = catalogue.flags.get(self.option.name)
        if flag is None or not flag.config or len(self.path) == 1:
            return flag.config if flag is not None else ""
        key = catalogue.key(flag.config, self.path[:-1])
        return key.config if key is not None else ""


def given(launch: Launch) -> Iterator[GivenKey]:
    """Yield the keys of every option that carries a config whose keys are known."""
    for option in launch.options:
        if option.flag is not None and option.flag.config and option.written.is_known:
            yield from _given(option)


def in_parent(key: GivenKey) -> Callable[[EngineCatalogue], bool]:
    """Return whether a catalogue has a key, or cannot tell; False where it lacks the flag."""

    def has(catalogue: EngineCatalogue) -> bool:
        flag = catalogue.flags.get(key.option.name)
        if flag is None:
            return False
        return not flag.config or catalogue.is_open(flag.config, key.path) or key.of(catalogue) is not None

    return has


def _given(option: Argument) -> Iterator[GivenKey]:
    value = option.value
    if option.path:
        yield from _words(option, value.text if value is not None else None)
    if value is not None:
        is_loose = option.name == "--speculative-config"
        for member in members(value.text):
            path = (*option.path, *member.path)
            # vLLM turns dashes of the first level of --speculative-config into underscores; of no other config.
            path = (path[0].replace("-", "_"), *path[1:]) if is_loose else path
            yield GivenKey(option, path, member.key, member.value, member.data, member)


def _words(option: Argument, value: Text | None) -> Iterator[GivenKey]:
    """The keys of --flag.key.key, each with its own place."""
    text = option.written.text
    at = text.value.find(".") + 1
    for number, part in enumerate(option.path, start=1):
        is_last = number == len(option.path)
        name = part.removesuffix("+")
        path = tuple(p.removesuffix("+") for p in option.path[:number])
        is_list = part.endswith("+")
        data = _data(value.value) if is_last and value is not None and not is_list else _NO_DATA
        shown = value if data is not _NO_DATA else None
        yield GivenKey(option, path, text[at : at + len(name)], shown, None if shown is None else data, None)
        at += len(part) + 1


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
