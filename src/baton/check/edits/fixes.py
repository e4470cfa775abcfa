"""Edits that do what a fix says, in the file as it is written: a YAML list, a shell script, JSON inside either.

An edit is offered only where the text stands in the file as itself; what was put together from variables or escapes
gets none, and a person follows the words. New text is plain: letters, digits and _.+:/=-, which no quoting changes.
"""

from __future__ import annotations

import re

from baton.check.commands.arguments import Argument
from baton.check.edits import entries
from baton.check.edits.entries import is_key
from baton.check.edits.removals import remove_entry, remove_item, remove_variable, remove_word
from baton.check.finding import Edit
from baton.check.shell.script import Word
from baton.check.text import Span, Text

__all__ = [
    "remove_entry",
    "remove_item",
    "remove_key",
    "remove_option",
    "remove_variable",
    "rename_option",
    "replace_text",
    "replace_value",
    "split_option",
]

_PLAIN = re.compile(r"[\w.+:/=,@%-]*")


def replace_text(text: Text, new: str) -> tuple[Edit, ...]:
    """Put `new` in the place of a text."""
    return (Edit(text.span(), new),) if text.is_exact and _PLAIN.fullmatch(new) else ()


def replace_value(option: Argument, new: str) -> tuple[Edit, ...]:
    """Put `new` in the place of an option's only value."""
    return replace_text(option.words[0].text, new) if len(option.words) == 1 else ()


def rename_option(option: Argument, new: str) -> tuple[Edit, ...]:
    """Write an option by another name, its values unchanged; for a switch, `--name=value` gives it one."""
    if is_key(option.written.text):
        return entries.rename(option, new)
    return replace_text(option.written.text, new)


def split_option(option: Argument, name: str) -> tuple[Edit, ...]:
    """Write --a=b as two words, the first of them `name`."""
    lead, is_item = _lead(option)
    if not lead or len(option.words) != 1 or not option.written.text.is_exact or not option.words[0].text.is_exact:
        return ()
    value, span = option.words[0].value, option.written.span.to(option.words[0].span)
    if not _PLAIN.fullmatch(value) or span.written != f"{option.written.value}={value}":
        return ()
    return (Edit(span, f'{name}{lead}"{value}"' if is_item else f"{name}{lead}{value}"),)


def remove_option(option: Argument) -> tuple[Edit, ...]:
    """Take an option and its values out."""
    if is_key(option.written.text):
        entry = entries.entry_at(option.written.span)
        return remove_entry(entry.span) if entry is not None else ()
    words = [option.written, *option.words]
    if not all(_stands_where_written(word) for word in words):
        return ()
    whole = words[0].span.to(words[-1].span)
    pieces = [whole] if "\n" not in whole.written or _is_in_flow(whole) else [word.span for word in words]
    return tuple(remove_word(_with_quotes(span)) for span in pieces)


def remove_key(text: Text, start: int, end: int) -> tuple[Edit, ...]:
    """Take `"key": value` out of JSON: [start, end) is where it stands in `text`, with the comma that goes with it."""
    if not text.is_exact:
        return ()
    value = text.value
    after = re.match(r"\s*,\s*", value[end:])
    before = re.search(r",\s*$", value[:start])
    if after:
        end += after.end()
    elif before:
        start = before.start()
    return (Edit(text.span(start, end), ""),)


def _lead(option: Argument) -> tuple[str, bool]:
    """What belongs between an option and a word put beside it, "" if unclear; and whether both are items of a list."""
    span = option.written.span
    text = span.source.text
    line_start = text.rfind("\n", 0, span.start) + 1
    before, after = text[line_start : span.start], text[span.end :].split("\n", maxsplit=1)[0]
    if re.fullmatch(r"[ \t]*-[ \t]+", before) and re.fullmatch(r"(?:=\S*)?[ \t]*(?:#.*)?", after):
        return f"\n{before}", True
    is_word = before == "" or (before[-1] in " \t" and not re.search(r"[,\[{][ \t]*$", before))
    return (" " if is_word else ""), False


def _stands_where_written(word: Word) -> bool:
    text, span = word.text, word.span
    is_inside = text.source is span.source and span.start <= text.offsets[0] and text.offsets[-1] <= span.end
    return is_inside or not word.is_known


def _is_in_flow(span: Span) -> bool:
    text = span.source.text
    return bool(re.search(r"[\[,]\s*$", text[: span.start]) and re.match(r"\s*[,\]]", text[span.end :]))


def _with_quotes(span: Span) -> Span:
    """The stretch with the quotes that stand right around it."""
    text, start, end = span.source.text, span.start, span.end
    is_quoted = start > 0 and text[start - 1] in "\"'" and text[end : end + 1] == text[start - 1]
    is_word = is_quoted and text[start - 2 : start - 1] in (" ", "\t", "\n", "[", ",", "(") and " " not in span.written
    return span.source.span(start - 1, end + 1) if is_word else span
