"""What took the place of a name that is gone or going, as a fix that the release which runs accepts."""

from __future__ import annotations

import difflib

from baton.catalogue.engine import EngineCatalogue
from baton.catalogue.history import Replacement
from baton.check.commands.launch import Launch
from baton.check.facts import lives
from baton.check.facts.absent import Absence
from baton.check.finding import Fix

_NEAR = 0.8


def of_name(launch: Launch, kind: str, name: str) -> Replacement | None:
    """Return what took the place of a variable or key, if this release accepts it."""
    found = lives.replacement(launch, kind, name)
    return found if found is not None and (not found.by or accepts(launch, found.by)) else None


def if_newer(launch: Launch, absence: Absence, kind: str, *names: str) -> Fix:
    """Return what to do about a name that the newest releases lack, where it is not known which one runs."""
    found = lives.replacement(launch, kind, *names)
    if found is not None and found.by and not _accepts(launch.version.catalogues[-1], found.by):
        found = None
    then = in_words(found) if found is not None else "remove it"
    until = absence.life.until if absence.life is not None else None
    return Fix(f"from {until or 'there'} on {then}; give --engine, or an image tag that says which release runs")


def is_slip(written: str, meant: str) -> bool:
    """Say whether a name is so near another that it must be a slip of the pen; less near ones are only a guess."""
    return difflib.SequenceMatcher(None, written.lower(), meant.lower()).ratio() >= _NEAR


def in_words(found: Replacement) -> str:
    """Return what to do about a name that was replaced, in words."""
    return f"write {found.by} instead{_note(found)}" if found.by else f"remove it{_note(found)}"


def long_name(written: str) -> str:
    """Return an option as the catalogue spells it, without keys and value."""
    name = written.split("=", 1)[0].split(".", 1)[0]
    return "--" + name[2:].replace("_", "-") if name.startswith("--") else name


def accepts(launch: Launch, name: str) -> bool:
    """Say whether every release that it may be has a flag, a key of a config flag, or a variable."""
    return all(_accepts(catalogue, name) for catalogue in launch.version.catalogues)


def _accepts(catalogue: EngineCatalogue, name: str) -> bool:
    if not name.startswith("--"):
        return name in catalogue.envs
    first, _, path = name.partition(".")
    match = catalogue.flag(first)
    if match is None or match.is_abbreviated:
        return False
    config = match.flag.config
    return not (path and config) or catalogue.key(config, path) is not None or catalogue.is_open(config, path)


def _note(found: Replacement) -> str:
    return f" ({found.note.rstrip('.')})" if found.note else ""
