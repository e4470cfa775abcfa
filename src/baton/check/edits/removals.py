"""How a stretch of a file is taken out with all that would be left of its place: lines, commas, backslashes, blanks.

Knows how YAML lists and mappings, shell words and assignments stand in a text; not what they mean to an engine.
"""

from __future__ import annotations

import re

from baton.check.finding import Edit
from baton.check.text import Source, Span


def remove_word(span: Span) -> Edit:
    """Take a word, or several on one line, out: a list item, a place in a flow list, a part of a command line."""
    source, text, start, end = span.source, span.source.text, span.start, span.end
    line_start, line_end = _line_start(text, start), _line_end(text, end)
    before, after = text[line_start:start], text[end:line_end].rstrip("\r")
    if re.fullmatch(r"[ \t]*(?:-[ \t]+)?", before) and re.fullmatch(r"[ \t]*(?:\\|#.*)?", after):
        if before.strip() or after.strip() == "\\" or not _is_continued(text, line_start):
            return Edit(source.span(line_start, min(line_end + 1, len(text))), "")
        back = text.rfind("\\", 0, line_start)
        return Edit(source.span(len(text[:back].rstrip(" \t")), end), "")
    comma = re.match(r"\s*,\s*", text[end:])
    if comma and re.search(r"[\[{,]\s*$", text[:start]):
        return Edit(source.span(start, end + comma.end()), "")
    last = re.search(r",\s*$", text[:start])
    if last and re.match(r"\s*[\]}]", text[end:]):
        return Edit(source.span(last.start(), end), "")
    if not before.strip():
        blank = re.match(r"[ \t]*", text[end:])
        return Edit(source.span(start, end + (blank.end() if blank else 0)), "")
    lead = re.search(r"[ \t]+$", before)
    return Edit(source.span(start - len(lead[0]) if lead else start, end), "")


def remove_item(span: Span) -> tuple[Edit, ...]:
    """Take an item of a YAML list out, with its lines: `span` is from its first key, or value, to its end."""
    source, text, start, end = span.source, span.source.text, span.start, span.end
    opening, closing = re.search(r"\{[ \t]*$", text[:start]), re.match(r"[ \t]*,?[ \t]*\}", text[end:])
    if opening and closing:
        start, end = opening.start(), end + closing.end()
    line_start = _line_start(text, start)
    if re.fullmatch(r"[ \t]*-[ \t]+", text[line_start:start]):
        return _without_lines(source, line_start, _line_end(text, end))
    is_flow = opening and closing and re.search(r"[\[,]\s*$", text[:start]) and re.match(r"\s*[,\]]", text[end:])
    return (remove_word(source.span(start, end)),) if is_flow else ()


def remove_entry(span: Span) -> tuple[Edit, ...]:
    """Take a `key: value` out, with its lines if it has them to itself."""
    text = span.source.text
    line_start = _line_start(text, span.start)
    if not text[line_start : span.start].strip():
        return _without_lines(span.source, line_start, _line_end(text, span.end))
    is_flow = re.search(r"[{,]\s*$", text[: span.start]) and re.match(r"\s*[,}]", text[span.end :])
    return (remove_word(span),) if is_flow else ()


def remove_variable(name: str, span: Span) -> tuple[Edit, ...]:
    """Take the setting of a variable out: NAME=value of a script or a command, `NAME: value` of a mapping.

    `span` lies in it. Nothing is offered where a script uses the variable itself, or would be broken without the line.
    """
    text = span.source.text
    if re.search(rf"\$[{{(]?{name}\b|\bexport[ \t]+(?:-\w+[ \t]+)?{name}\b(?!=)", text):
        return ()
    if span.written.startswith(f"{name}="):
        return _without_assignment(span)
    quoted = rf"(['\"]?){name}\1[ \t]*:[ \t]+"
    plain = r"[^\s,{}\[\]|>&*'\"#][^\s,{}]*"
    line_start = _line_start(text, span.start)
    entry = re.compile(rf"(?<![\w.-]){quoted}(?:\"[^\"\n]*\"|'[^'\n]*'|{plain})(?=[ \t]*(?:#|\r?\n|\Z|[,}}]))")
    found = next(
        (m for m in entry.finditer(text, line_start, _line_end(text, span.end) + 1) if m.end() > span.start), None
    )
    return remove_entry(span.source.span(found.start(), found.end())) if found else ()


def _without_assignment(span: Span) -> tuple[Edit, ...]:
    """Take NAME=value of a script out: its command where it is alone in it, else the word."""
    source, text = span.source, span.source.text
    line_start, line_end = _line_start(text, span.start), _line_end(text, span.end)
    before, after = text[line_start : span.start], text[span.end : line_end].rstrip("\r")
    command = re.search(r"(?:export[ \t]+|(?:-e|--env)(?:[ \t]+|=))?$", before)
    lead = command[0] if command else ""
    is_alone = not before[: len(before) - len(lead)].strip()
    if is_alone and re.fullmatch(r"[ \t]*(?:;|&&)?[ \t]*(?:#.*)?", after):
        is_needed = _is_only_line(text, line_start, line_end) or _is_continued(text, line_start)
        return () if is_needed else (Edit(source.span(line_start, min(line_end + 1, len(text))), ""),)
    if is_alone and lead[:6] != "export" and re.fullmatch(r"[ \t]*\\", after):
        return (Edit(source.span(line_start, min(line_end + 1, len(text))), ""),)
    following = re.match(r"[ \t]*(?:&&|;)[ \t]*(?=[^\s\\#])", after)
    if lead.startswith("export") and following:
        return (Edit(source.span(span.start - len(lead), span.end + following.end()), ""),)
    another = re.match(r"[ \t]+(?=\w+=)" if lead.startswith("export") else r"[ \t]+(?=[^\s\\&|;#])", after)
    if another and (lead or re.search(r"(?:^|[ \t'\"(;&|])$", before)):
        start = span.start if lead.startswith("export") else span.start - len(lead)
        return (Edit(source.span(start, span.end + another.end()), ""),)
    is_last = re.search(r"\bexport[ \t](?:.*[ \t])?\w+=\S*[ \t]+$", before) and not after.strip()
    return (remove_word(span),) if is_last else ()


def _without_lines(source: Source, line_start: int, line_end: int) -> tuple[Edit, ...]:
    """Take whole lines of block YAML out, and the key above them if it would be left with nothing."""
    end = min(line_end + 1, len(source.text))
    start = _emptied_key(source.text, line_start, end)
    return (Edit(source.span(start, end), ""),)


def _emptied_key(text: str, start: int, end: int) -> int:
    """Return where the `key:` begins whose only entry is text[start:end]; `start` if there is none."""
    line = text[start:end]
    indent = len(line) - len(line.lstrip(" "))
    key_start = _line_start(text, max(start - 1, 0))
    key = re.fullmatch(r"( *)['\"]?[\w.-]+['\"]?:[ \t]*(?:#.*)?\r?\n", text[key_start:start])
    is_item = line.lstrip().startswith("- ")
    if key is None or len(key[1]) > indent or (len(key[1]) == indent and not is_item):
        return start
    rest = (line for line in text[end:].split("\n") if line.strip() and not line.lstrip().startswith("#"))
    following = next(rest, "---")
    depth = len(following) - len(following.lstrip(" "))
    is_more = depth > len(key[1]) or (is_item and depth == len(key[1]) and following.lstrip().startswith("- "))
    return start if is_more else key_start


def _is_only_line(text: str, line_start: int, line_end: int) -> bool:
    """Whether a line is all that stands between the words of a compound command, so that it would be empty without."""
    above, below = text[:line_start].rstrip().rpartition("\n")[2], text[line_end:].lstrip().partition("\n")[0]
    return bool(re.search(r"(?:\b(?:then|do|else)|[{(])$", above) and re.match(r"(?:fi|done|else|elif)\b|[})]", below))


def _line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _line_end(text: str, end: int) -> int:
    """Return where the line ends on which a stretch does; a block scalar's stretch ends on the next one."""
    end = len(text[:end].rstrip("\r\n"))
    found = text.find("\n", end)
    return len(text) if found < 0 else found


def _is_continued(text: str, line_start: int) -> bool:
    """Whether the line before ends with a backslash."""
    return text[:line_start].rstrip("\r\n").endswith("\\")
