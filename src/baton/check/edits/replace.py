"""The fix for a name that is gone: what the catalogue says took its place, written where and as it must be.

A variable may have become a flag, a flag a key of a config, a switch a value: the old name goes, and the new one is put
in its place, or behind the launch's last word, or into the JSON of a config that is already there (a dotted key beside
it would make the engine drop that JSON). Where that cannot be done without a doubt, the fix is words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from baton.catalogue.history import Replacement
from baton.check.commands import values
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import entries, fixes, insertions
from baton.check.facts import lives, successors
from baton.check.facts.config_keys import GivenKey
from baton.check.facts.variables import Setting
from baton.check.finding import Edit, Fix
from baton.check.text import Text

_SHORT = re.compile(r"[\w.:/-]+")


def option(launch: Launch, given: Argument) -> tuple[Fix | None, Replacement | None]:
    """Return what to write instead of an option, and who says so; None if nothing that this release takes."""
    name = successors.long_name(given.written.value)
    instead = lives.replacement(launch, "flag", name, given.written.value)
    if instead is None or (instead.by and not successors.accepts(launch, instead.by)):
        return None, None
    return _of_option(launch, given, name, instead), instead


def _of_option(launch: Launch, given: Argument, name: str, instead: Replacement) -> Fix:
    by = _negated(instead.by) if _is_negated(given) else instead.by
    new = _value_of(launch, given, instead, by) if by else ""
    note = "" if new == instead.note else _note(instead)
    if new is None:
        return Fix(f"write {by} instead of {name}{note}")
    if not by or (new == "" and not _is_switch(launch, by)) or (new == "" and given.words):
        return Fix(f"remove {name}{note}", fixes.remove_option(given))
    if _gives(launch, by):
        return Fix(f"remove {name}: {by} is given{note}", fixes.remove_option(given))
    words = f"write {by}{f' {new}' if new and new != _written(given) else ''} instead of {name}{note}"
    refused = _refused(launch, by, new) if len(given.words) <= 1 and new else ""
    return Fix(f"{words}; it takes {refused}") if refused else Fix(words, _option_edits(launch, given, by, new))


def variable(settings: Sequence[Setting]) -> tuple[Fix | None, Replacement | None]:
    """Return what to write instead of a variable that reaches one launch or several; None as for an option."""
    instead = successors.of_name(settings[0].launch, "env", settings[0].name)
    if instead is None:
        return None, None
    if len({setting.launch.version.name for setting in settings}) > 1:
        return Fix(f"{successors.in_words(instead)}; launches of other releases get it too"), instead
    return _of_variable(settings, instead), instead


def _of_variable(settings: Sequence[Setting], instead: Replacement) -> Fix:
    first, by, note = settings[0], instead.by, _note(instead)
    new = instead.value(first.word.value) if first.word.is_known else None
    if not by or new == "":
        place = f"; {by} takes its place" if by else ""
        return Fix(f"remove {first.name}{place}{note}", first.removal())
    if not by.startswith("--"):
        is_new = all(by not in setting.launch.env for setting in settings) and not instead.values
        return Fix(f"write {by} instead{note}", first.renaming(by) if is_new else ())
    lacking = [setting.launch for setting in settings if not _gives(setting.launch, by)]
    if not lacking:
        return Fix(f"remove {first.name}: {by} is given{note}", first.removal())
    words = f"write {by}{f' {new}' if new and new != first.word.value else ''} instead{note}"
    refused = _refused(first.launch, by, new) if new else ""
    if refused:
        return Fix(f"{words}; it takes {refused}")
    removal, insertion = first.removal(), _into_launches(first, lacking, by, new) if new else ()
    return Fix(words, (*removal, *insertion) if removal and insertion else ())


def together(settings: Iterable[Setting]) -> list[list[Setting]]:
    """Return settings by the place that makes them: one `export` may reach several launches."""
    found: dict[tuple[str, int, int], list[Setting]] = {}
    for setting in settings:
        found.setdefault((setting.name, id(setting.span.source), setting.span.start), []).append(setting)
    return list(found.values())


def key(launch: Launch, given: GivenKey, removal: tuple[Edit, ...]) -> tuple[Fix | None, Replacement | None]:
    """Return what to write instead of a key of a config; `removal` takes it out."""
    instead = successors.of_name(launch, "key", given.name)
    if instead is None:
        return None, None
    shown = given.value.value.strip('"') if given.value is not None else ""
    new = instead.value(shown) if given.value is not None else shown
    if not instead.by or (new == "" and shown in instead.values):
        return Fix(f"remove it{_note(instead)}", removal), instead
    words = f"write {instead.by}{f' {new}' if new != shown else ''} instead{_note(instead)}"
    parent, _, name = instead.by.rpartition(".")
    is_given = launch.has_config(given.option.name, *instead.by.split(".")[1:])
    if parent != given.name.rpartition(".")[0] or is_given or (instead.values and given.value is None):
        return Fix(words), instead
    renaming = _renamed_key(given, name)
    replacing: tuple[Edit, ...] = ()
    if given.value is not None and new != shown and given.value.is_exact:
        replacing = (Edit(given.value.span(), f'"{new}"' if given.member is not None else new),)
    is_whole = renaming and (replacing or new == shown)
    return Fix(words, (*renaming, *replacing) if is_whole else ()), instead


def _value_of(launch: Launch, given: Argument, instead: Replacement, by: str) -> str | None:
    """What to write behind the new name: "" nothing, None if that is not known."""
    if not given.words:
        if "" in instead.values:
            return "" if _is_negated(given) else instead.values[""]
        return "" if _is_switch(launch, by) else "false" if _is_negated(given) else "true"
    if not instead.values:
        return _written(given)
    return instead.value(given.words[0].value) if len(given.words) == 1 and given.words[0].is_known else None


def _option_edits(launch: Launch, given: Argument, by: str, new: str) -> tuple[Edit, ...]:
    flag, *path = by.split(".")
    there = launch.given(flag) if path else None
    if there is not None:
        removal = fixes.remove_option(given)
        is_known = bool(new) and all(word.is_known for word in given.words)
        insertion = insertions.into_json(there, tuple(path), new) if is_known else ()
        return (*removal, *insertion) if removal and insertion else ()
    if not given.words:
        if not new:
            return fixes.rename_option(given, by)
        return fixes.rename_option(given, f"{by}={new}") if _SHORT.fullmatch(new) else ()
    renaming = fixes.rename_option(given, by)
    if new == _written(given):
        return renaming
    replacing = fixes.replace_value(given, new)
    return (*renaming, *replacing) if renaming and replacing else ()


def _into_launches(setting: Setting, launches: Sequence[Launch], by: str, value: str) -> tuple[Edit, ...]:
    """The flag for every launch that the variable reached; nothing if one of them cannot be given it."""
    flag, *path = by.split(".")
    there = [given for launch in launches if path and (given := launch.given(flag)) is not None]
    if setting.kind == "recipe" and not there:
        return entries.insert(setting.span, by, value)
    found: list[Edit] = []
    for launch in launches:
        config = launch.given(flag) if path else None
        edits = insertions.into_json(config, tuple(path), value) if config else insertions.option(launch, by, value)
        if not edits:
            return ()
        found += edits
    return tuple(dict.fromkeys(found))


def _refused(launch: Launch, by: str, value: str) -> str:
    """What a flag takes instead of a value that it does not know; "" if it takes it, or nobody can tell."""
    flag = launch.flag(by)
    if flag is None:
        return ""
    if flag.known and value not in flag.known:
        return values.listed(flag.known)
    try:
        values.of_word(flag, value)
    except ValueError as error:
        return values.listed(flag.choices) if flag.choices else str(error)
    return ""


def _renamed_key(given: GivenKey, name: str) -> tuple[Edit, ...]:
    option = given.option
    if given.member is not None and entries.is_key(option.written.text):
        entry = entries.entry_at(option.written.span, *given.path)
        return fixes.replace_text(entry.key.text, name) if entry is not None else ()
    if given.member is None and entries.is_key(option.written.text):
        return fixes.rename_option(option, option.written.value.rpartition(".")[0] + f".{name}")
    text: Text = given.key
    return fixes.replace_text(text, name)


def _written(given: Argument) -> str:
    return " ".join(word.value for word in given.words)


def _is_negated(given: Argument) -> bool:
    """Whether a switch is written as --no-NAME, also where no release that may run has it."""
    return given.negated or (not given.words and given.written.value.startswith("--no-"))


def _negated(by: str) -> str:
    return f"--{by[5:]}" if by.startswith("--no-") else by


def _is_switch(launch: Launch, name: str) -> bool:
    flag = launch.flag(f"--{name[5:]}" if name.startswith("--no-") else name)
    return "." not in name and flag is not None and (flag.bare or (flag.type == "bool" and flag.negation))


def _gives(launch: Launch, name: str) -> bool:
    """Whether a launch is given a flag, or a key of a config, whichever way."""
    flag, *path = (f"--{name[5:]}" if name.startswith("--no-") else name).split(".")
    return launch.has_config(flag, *path) if path else bool(launch.all_given(flag))


def _note(found: Replacement) -> str:
    return f" ({found.note.rstrip('.')})" if found.note else ""
