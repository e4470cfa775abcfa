"""The environment variables that reach engines, each where it is set, and how to take one out there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.finding import Edit
from baton.check.kubernetes.container import Variable
from baton.check.shell.script import Word
from baton.check.text import Span


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One variable as an engine gets it.

    span: where it is set: the name in a manifest, the assignment in a script. variable: the container's entry, if it
    comes from there. kind: of the file it stands in.
    """

    launch: Launch
    name: str
    word: Word
    span: Span
    variable: Variable | None
    kind: str

    def removal(self) -> tuple[Edit, ...]:
        """Return the edits that take it out; () where that cannot be done without a doubt."""
        if self.variable is not None:
            return fixes.remove_item(self.variable.span)
        return fixes.remove_variable(self.name, self.span)

    def renaming(self, new: str) -> tuple[Edit, ...]:
        """Return the edits that call it by another name."""
        if self.variable is not None:
            return fixes.replace_text(self.variable.key.text, new)
        start = self.span.start
        is_here = self.span.source.text.startswith(self.name, start)
        return (Edit(self.span.source.span(start, start + len(self.name)), new),) if is_here else ()


def settings(bundle: Bundle, prefix: str = "VLLM_") -> Iterator[Setting]:
    """Yield every variable of every engine whose name begins with `prefix`."""
    kinds = {file.source: file.kind for file in bundle.files}
    for launch in bundle.engines:
        for name, word in launch.env.items():
            if name.startswith(prefix):
                variable = launch.container.env.get(name) if launch.container is not None else None
                if variable is not None and variable.word.span != word.span:
                    variable = None
                span = variable.key.span if variable is not None else _assignment(name, word.span)
                yield Setting(launch, name, word, span, variable, kinds.get(span.source, ""))


def _assignment(name: str, value: Span) -> Span:
    """The whole of NAME=value, of which the value's place is known."""
    start = value.start - len(name) - 1
    is_here = start >= 0 and value.source.text.startswith(f"{name}=", start)
    return value.source.span(start, value.end) if is_here else value
