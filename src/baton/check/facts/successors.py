"""What took the place of a name that is gone or going, as a fix that the release which runs accepts."""

from __future__ import annotations

import difflib
import re

from baton.catalogue.engine import EngineCatalogue
from baton.catalogue.history import Replacement
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import lives
from baton.check.facts.absent import Absence
from baton.check.finding import Edit, Fix

_NEAR = 0.8
_SHORT = re.compile(r"[\w-]+")


def of_flag(launch: Launch, option: Argument) -> tuple[Fix | None, Replacement | None]:
    """Return what to write instead of an option, and who says so; None if nothing that this release takes."""
    written = option.written.value
    name = long_name(written)
    instead = lives.replacement(launch, "flag", name, written)
    if instead is None or (instead.by and not accepts(launch, instead.by)):
        return None, None
    if not instead.by:
        return Fix(f"remove {name}{_note(instead)}", fixes.remove_option(option)), instead
    by, value = instead.by, ""
    flag = launch.flag(by.split(".", maxsplit=1)[0])
    if flag is not None and instead.note in flag.choices:
        value = instead.note
    note = "" if value else _note(instead)
    words = f"write {by}{f' {value}' if value else ''} instead of {name}{note}"
    return Fix(words, _edits(launch, option, instead, value)), instead


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


def _edits(launch: Launch, option: Argument, instead: Replacement, value: str) -> tuple[Edit, ...]:
    """The option renamed in place, where that is all there is to do."""
    by = instead.by
    base = by.split(".", maxsplit=1)[0]
    is_switch = not option.words
    if value:
        return fixes.rename_option(option, f"{by}={value}") if is_switch and _SHORT.fullmatch(value) else ()
    if launch.all_given(base):
        return ()
    flag = launch.flag(base)
    takes_value = "." in by or (flag is not None and not flag.bare and not flag.negation)
    return fixes.rename_option(option, by) if takes_value is not is_switch else ()


def _note(found: Replacement) -> str:
    return f" ({found.note.rstrip('.')})" if found.note else ""
