"""A flag that only later releases than the one which runs have.

The engine's parser stops at a flag it does not know: `unrecognized arguments`, exit code 2, and the pod restarts for
ever. It comes of a manifest that was updated while its image was not, or of a guide for a newer release.

Run a release that has the flag, or write what this one has in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from baton.catalogue import history
from baton.catalogue.history import Replacement
from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import absent, lives, successors
from baton.check.facts.absent import Absence
from baton.check.finding import Edit, Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.13.0 --model m --moe-backend auto
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.17.1 --model m --moe-backend auto
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that only later releases have."""
    for launch, option, absence in absent.flags(bundle, "new"):
        yield _finding(launch, option, absence)


def _finding(launch: Launch, option: Argument, absence: Absence) -> Finding:
    name = successors.long_name(option.written.value)
    first = absence.life.first if absence.life is not None else "a later release"
    older = _older(launch, option, name)
    fix = Fix(f"run {first} or later, or remove {name}", fixes.remove_option(option), is_guess=True)
    if older is not None and older.kind == "flag":
        fix = Fix(f"write {older.name} instead, or run {first} or later", _edits(option, older))
    elif older is not None:
        fix = Fix(f"set the variable {older.name} instead, or run {first} or later")
    return Finding(
        span=option.written.span,
        message=f"{launch.version.name} has no flag {name} yet",
        evidence=(absent.words(launch, absence),),
        fix=fix,
        see=lives.threads(older),
    )


def _older(launch: Launch, option: Argument, name: str) -> Replacement | None:
    """What this release has of which the flag took the place later; by the value, where that decides."""
    engines = (launch.engine, "vllm")
    value = option.value.value if option.value is not None else None
    found = [r for r in history.replacements() if r.by in (name, option.written.value) and r.engine in engines]
    found = [r for r in found if r.kind in ("flag", "env") and successors.accepts(launch, r.name)]
    by_value = [r for r in found if value and r.note == value]
    return by_value[0] if by_value else found[0] if len(found) == 1 else None


def _edits(option: Argument, older: Replacement) -> tuple[Edit, ...]:
    """A plain change of names, or `--new value` made the switch that stood for that value."""
    if not older.note:
        return fixes.rename_option(option, older.name)
    if option.value is None or option.value.value != older.note:
        return ()
    if option.span.written == f"{option.written.value}={older.note}":
        return (Edit(option.span, older.name),)
    value_alone = replace(option, written=option.value, words=(), span=option.value.span)
    renaming, removal = fixes.rename_option(option, older.name), fixes.remove_option(value_alone)
    return (*renaming, *removal) if renaming and removal else ()
