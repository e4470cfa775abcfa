"""New words for a launch: a flag behind its last word, a key in the JSON that one of its options carries."""

from __future__ import annotations

import re

from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits.entries import insert_key, is_key, quoted
from baton.check.facts import json_text
from baton.check.finding import Edit
from baton.check.text import Span

_PLAIN = re.compile(r"[\w.+:/=,@%-]+")
_BARE_JSON = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?|true|false")


def option(launch: Launch, name: str, value: str) -> tuple[Edit, ...]:
    """Put `name value` behind the last word of a launch, as its words are written; the value is plain, or JSON."""
    last = launch.words[-1].span if launch.words else launch.start
    is_elsewhere = last.source is not launch.start.source or last.start < launch.start.start
    is_json = value.startswith("{") and "'" not in value
    if is_elsewhere or not (is_json or _PLAIN.fullmatch(value)) or any(word.value == "--" for word in launch.words):
        return ()
    shown = f"'{value}'" if is_json else quoted(value)
    text = last.source.text
    line_start = text.rfind("\n", 0, last.start) + 1
    item = re.fullmatch(r"[ \t]*-[ \t]+", text[line_start : last.start])
    if item:
        end = len(text[: last.end].rstrip())
        line_end = text.find("\n", end)
        line_end = len(text) if line_end < 0 else line_end
        line_end -= text[:line_end].endswith("\r")
        return (Edit(_at(last, line_end), f"{_newline(text)}{item[0]}{name}{_newline(text)}{item[0]}{shown}"),)
    if re.search(r"[\[,]\s*$", text[: last.start]) and re.match(r"\s*[,\]]", text[last.end :]):
        mark = text[last.start] if text[last.start] in "\"'" else ""
        shown = f"{mark}{value}{mark}" if mark and not is_json else shown
        return (Edit(_at(last, last.end), f", {mark}{name}{mark}, {shown}"),)
    indent = re.match(r"[ \t]*", text[line_start:])
    is_continued = text[:line_start].rstrip("\r\n").endswith("\\")
    lead = f" \\{_newline(text)}{indent[0]}" if is_continued and indent is not None else " "
    return (Edit(_at(last, last.end), f"{lead}{name} {shown if is_json else value}"),)


def into_json(given: Argument, path: tuple[str, ...], value: str) -> tuple[Edit, ...]:
    """Put a key into the JSON object that an option carries, in the innermost object that is there."""
    if is_key(given.written.text):
        return insert_key(given, path, value)
    word = given.value
    if word is None or not word.text.is_exact:
        return ()
    members = {member.path: member for member in json_text.members(word.text)}
    if not members or path in members:
        return ()
    depth = next(d for d in range(len(path) - 1, -1, -1) if d == 0 or path[:d] in members)
    inside = members[path[:depth]] if depth else None
    if inside is not None and not isinstance(inside.data, dict):
        return ()
    body = value if _BARE_JSON.fullmatch(value) else f'"{value}"'
    for key in reversed(path[depth + 1 :]):
        body = f'{{"{key}": {body}}}'
    brace = inside.value if inside is not None else word.text
    at = brace.value.index("{") + 1
    comma = "" if inside is not None and not inside.data else ", "
    return (Edit(brace.span(at, at), f'"{path[depth]}": {body}{comma}'),)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _at(span: Span, offset: int) -> Span:
    return span.source.span(offset, offset)
