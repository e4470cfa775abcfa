"""Templates (Helm's `{{ }}`, Jinja's `{% %}`) in a YAML file, masked so that what stands around them can be read.

A line of nothing but actions becomes empty lines; an action inside a line becomes a word of x's. Lengths stay, so that
offsets do. What a template would really put there is not known; only whether it may add lines, and how deep.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

_ACTION = re.compile(
    r"""\{\{(?:[^{}"`]|"(?:\\.|[^"\\\n])*+"|`[^`]*+`|\{(?!\{)|\}(?!\})|["`])*+\}\}|\{%[-+]?[ \t]*+[a-z][^\n]*?%\}"""
)
_OPEN = re.compile(r"\{[{%]")
_COMMENT = re.compile(r"\{\{-?[ \t\r\n]*+/\*")
_CONTROL = re.compile(
    r"\{[{%][-+]?\s*+(?:(?:if|else|end|with|define|break|continue|elif|endif|endfor|set|raw|endraw|macro|endmacro)\b"
    r"|/\*|\$\w*+\s*+:?=)"
)
_NINDENT = re.compile(r"\bnindent\s++(\d{1,3})\s*+-?\}\}")


@dataclass(frozen=True, slots=True)
class Addition:
    """An action that may add lines at `offset`; indent: how far those are indented, None if that is not said."""

    offset: int
    indent: int | None


@dataclass(frozen=True, slots=True)
class Masked:
    """A file's text with its actions masked; the actions' starts and ends; what may add lines; all in order."""

    text: str
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    additions: tuple[Addition, ...] = ()

    def touches(self, start: int, end: int) -> bool:
        """Return whether an action stands in text[start:end], or a part of one."""
        return bool(self.starts) and bisect_left(self.starts, end) > bisect_right(self.ends, start)

    def additions_in(self, start: int, end: int) -> tuple[Addition, ...]:
        """Return the actions in text[start:end] that may add lines."""
        if not self.additions:
            return ()
        first = bisect_left(self.additions, start, key=lambda addition: addition.offset)
        last = bisect_left(self.additions, end, key=lambda addition: addition.offset)
        return self.additions[first:last]


def mask(text: str) -> Masked:
    """Mask the actions of a text."""
    found = _actions(text) if "{{" in text or "{%" in text else []
    if not found:
        return Masked(text)
    parts: list[str] = []
    additions: list[Addition] = []
    at = 0
    for start, end, is_line in found:
        action = text[start:end]
        parts += [text[at:start], ("\n" if is_line else "x") * (end - start)]
        at = end
        deep = _NINDENT.search(action)
        if deep or (is_line and not _CONTROL.match(action)):
            additions.append(Addition(start, int(deep[1]) if deep else None))
    parts.append(text[at:])
    return Masked("".join(parts), tuple(f[0] for f in found), tuple(f[1] for f in found), tuple(additions))


def _actions(text: str) -> list[tuple[int, int, bool]]:
    """Find all actions: start, end, and whether their lines hold nothing else."""
    spans = list(_spans(text))
    is_first: list[bool] = []
    for number, (start, _) in enumerate(spans):
        before = spans[number - 1][1] if number else 0
        line = text.rfind("\n", before, start) + 1
        is_first.append(not text[line or before : start].strip() and (line > 0 or before == 0 or is_first[-1]))
    is_last: list[bool] = []
    for number in reversed(range(len(spans))):
        end = spans[number][1]
        after = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        line = text.find("\n", end, after)
        is_end = line >= 0 or after == len(text) or is_last[-1]
        is_last.append(not text[end : after if line < 0 else line].strip() and is_end)
    return [(*span, a and b) for span, a, b in zip(spans, is_first, reversed(is_last), strict=True)]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while start := _OPEN.search(text, at):
        at = start.start()
        if _COMMENT.match(text, at):
            closed = text.find("*/", at)
            end = text.find("}}", closed) + 2 if closed >= 0 else 1
        else:
            found = _ACTION.match(text, at)
            end = found.end() if found and (_is_bare(text, at) or "\n" not in found[0]) else 1
        if end > 1:
            yield at, end
        at = end if end > 1 else at + 2


def _is_bare(text: str, at: int) -> bool:
    """Whether no quote stands before an offset on its line: within quotes no action goes on over several lines."""
    return not {"'", '"'} & set(text[text.rfind("\n", 0, at) + 1 : at])
