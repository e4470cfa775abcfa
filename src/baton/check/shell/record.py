"""What reading a script brings to light: commands and faults, over all scripts inside one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from baton.check.shell.words import Word
from baton.check.text import Span
from baton.check.yaml.tree import Fault


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One simple command: its words, the program first, and every variable set for it (exported or before it).

    span: from its first word to its last.
    """

    words: tuple[Word, ...]
    env: Mapping[str, Word]
    span: Span


@dataclass(slots=True)
class Record:
    """What has been read so far, over all scripts inside one another."""

    commands: list[Command] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    num_scripts: int = 0
