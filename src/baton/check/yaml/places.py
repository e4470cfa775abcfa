"""How YAML writes a scalar, undone: its value, and where in the text each character of it stands.

libyaml says what a scalar's value is and where the scalar begins and ends, not which character came from where. Here
the same rules are gone through again, keeping count; who calls compares values, and does without places if they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Undone(NamedTuple):
    """A scalar's value; the offset of each of its characters and of its end; and where the last of its writing ends."""

    value: str
    offsets: list[int]
    end: int


_BREAK = r"(?:\r\n|[\n\r\x85\u2028\u2029])"
_BREAKS = re.compile(_BREAK)
_FOLD = rf"(?P<fold>[ \t]*+{_BREAK}(?:[ \t]*+{_BREAK})*+[ \t]*+)|(?P<blank>[ \t]++)"
_TOKENS = {
    "": re.compile(rf"{_FOLD}|(?P<run>[^ \t\n\r\x85\u2028\u2029]++)"),
    "'": re.compile(rf"{_FOLD}|(?P<quote>'')|(?P<run>[^ \t\n\r\x85\u2028\u2029']++|')"),
    '"': re.compile(
        rf"\\(?P<join>{_BREAK}(?:[ \t]*+{_BREAK})*+[ \t]*+)|\\(?P<code>x..|u....|U........|.)"
        rf"|{_FOLD}|(?P<run>[^ \t\n\r\x85\u2028\u2029\\]++|\\)"
    ),
}
_ESCAPES = dict(zip("0abt\tnvfreN_LP", "\0\a\b\t\t\n\v\f\r\x1b\x85\xa0\u2028\u2029", strict=True))
_HEADER = re.compile(r"[|>][-+0-9]*+")
_DIGIT = re.compile(r"[1-9]")
_MAX_INDENTS = 100  # tried for a block scalar that says its own


def flow(text: str, start: int, end: int, style: str) -> Undone:
    """Undo a plain ("") or quoted scalar whose characters, without the quotes, are text[start:end]."""
    parts: list[str] = []
    offsets: list[int] = []
    for token in _TOKENS[style].finditer(text, start, end):
        at = token.start()
        match token.lastgroup:
            case "fold":
                breaks = [found.end() - 1 for found in _BREAKS.finditer(text, at, token.end())]
                parts.append("\n" * (len(breaks) - 1) or " ")
                offsets.extend(breaks[1:] or breaks)
            case "join":
                breaks = [found.end() - 1 for found in _BREAKS.finditer(text, at, token.end())]
                parts.append("\n" * (len(breaks) - 1))
                offsets.extend(breaks[1:])
            case "code":
                parts.append(_unescaped(token["code"]))
                offsets.append(at)
            case "quote":
                parts.append("'")
                offsets.append(at)
            case _:
                parts.append(token[0])
                offsets.extend(range(at, token.end()))
    offsets.append(end)
    return Undone("".join(parts), offsets, end)


def _unescaped(code: str) -> str:
    if len(code) == 1:
        return _ESCAPES.get(code, code)
    try:
        return chr(int(code[1:], 16))
    except (ValueError, OverflowError):
        return "?"


def block(text: str, start: int, end: int, value: str) -> Undone | None:
    """Undo a block scalar from its | or > on, which YAML says is `value`; None if it comes out differently."""
    indent = _indent(text, start, end)
    tries = _MAX_INDENTS if _DIGIT.search(_header(text, start)) else 1
    undone = (_block(text, start, end, at) for at in range(indent, max(-1, indent - tries), -1))
    return next((found for found in undone if found.value == value), None)


def block_as_written(text: str, start: int, end: int) -> Undone:
    """Undo a block scalar by the indentation of its first line."""
    return _block(text, start, end, _indent(text, start, end))


def _block(text: str, start: int, end: int, indent: int) -> Undone:
    header = _header(text, start)
    is_folded = header.startswith(">")
    parts: list[str] = []
    offsets: list[int] = []
    breaks: list[int] = []  # not used yet: the one behind the last full line, then those of empty lines
    has_line = was_indented = False
    written_end = start + len(header)
    for line, first, stop, after in _lines(text, start, end):
        line_break = range(after - 1, after) if after > stop else range(0)
        if first == stop and stop - line <= indent:
            breaks += line_break
            continue
        if first - line < indent:
            break
        is_indented = text[line + indent] in " \t"
        if is_folded and has_line and not was_indented and not is_indented:
            parts.append("\n" * (len(breaks) - 1) or " ")
            offsets += breaks[1:] or breaks
        else:
            parts.append("\n" * len(breaks))
            offsets += breaks
        parts.append(text[line + indent : stop])
        offsets += range(line + indent, stop)
        breaks = [*line_break]
        has_line, was_indented, written_end = True, is_indented, stop
    kept = breaks if "+" in header else breaks[:1] if has_line and "-" not in header else []
    parts.append("\n" * len(kept))
    offsets += [*kept, kept[-1] + 1 if kept else written_end]
    return Undone("".join(parts), offsets, written_end)


def _header(text: str, start: int) -> str:
    found = _HEADER.match(text, start)
    return found[0] if found else ""


def _indent(text: str, start: int, end: int) -> int:
    """Return how far the first line that is not blank is indented; the most of all if all are blank."""
    most = 0
    for line, first, stop, _ in _lines(text, start, end):
        if first < stop:
            return first - line
        most = max(most, first - line)
    return most


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the lines behind a block scalar's header: where each starts, stops being blank, ends; where the next is."""
    after = text.find("\n", start, end) + 1
    while 0 < after < end:
        line = after
        newline = text.find("\n", line, end)
        stop, after = (end, end) if newline < 0 else (newline, newline + 1)
        if newline > line and text[newline - 1] == "\r":
            stop -= 1
        first = line + len(text[line:stop]) - len(text[line:stop].lstrip(" "))
        yield line, first, stop, after
