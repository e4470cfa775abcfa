"""Shell scripts read without running them: every simple command, its words, and what is known of them.

Parsed by tree-sitter's bash grammar, which goes on after a syntax error. Variables that the script or its environment
sets to a literal are filled in; what only a run can tell (`$(hostname)`, an unset variable, a loop's) is left unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from baton.check.shell.nested import nested
from baton.check.shell.record import Command, Record
from baton.check.shell.run import read_nested, read_script
from baton.check.shell.scope import Scope
from baton.check.shell.words import TEMPLATE, Word, to_field
from baton.check.text import Text
from baton.check.yaml.tree import Fault

__all__ = ["Command", "Script", "Word", "command_of", "read"]


@dataclass(frozen=True, slots=True)
class Script:
    """The commands of a script in order, those inside $( ), quotes of `bash -c`, ssh, srun and heredocs among them."""

    commands: tuple[Command, ...]
    faults: tuple[Fault, ...]


def read(text: Text, variables: Mapping[str, Word] | None = None) -> Script:
    """Read a script; `variables` are those its environment sets.

    Wrappers are kept as words: `exec nohup numactl -N0 vllm serve m` is one command of six words.
    """
    record = Record()
    is_known = TEMPLATE.search(text.value) is None
    word = Word(text, text.span(), is_known)
    read_script(to_field(word), Scope.of(variables or {}), record)
    return Script(tuple(record.commands), tuple(record.faults))


def command_of(words: tuple[Word, ...], env: Mapping[str, Word]) -> Script:
    """Return the commands that an argument vector runs: itself, or the script of its `sh -c`."""
    if not words:
        return Script((), ())
    record = Record()
    script = nested(words)
    if script is None or script.runner > 0:
        record.commands.append(Command(words, dict(env), words[0].span.to(words[-1].span)))
    if script is not None:
        read_nested(script, [(to_field(word), word) for word in words], Scope.of(env), record)
    return Script(tuple(record.commands), tuple(record.faults))
