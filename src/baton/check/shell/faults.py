"""Where a script is not valid shell, said in one line.

Only what is never closed, or closes what was never open, is a fault: the grammar takes some valid shell for errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tree_sitter import Node

from baton.check.text import Span, Text
from baton.check.yaml.tree import Fault

_CLOSERS = {
    "if": "fi", "then": "fi", "do": "done", "case": "esac", "{": "}", "(": ")", '"': '"', "`": "`", "$(": ")",
    "while": "done", "until": "done", "for": "done", "${": "}", "[[": "]]",
}  # fmt: skip

_OPENERS = {")": ["(", "case"], "}": ["{"], "fi": ["if"], "done": ["do"], "esac": ["case"]}
_STRAY = re.compile(r"\)|\}|(?:fi|done|esac)\b")


def fault_of(root: Node, text: Text, code: str, holes: Iterable[tuple[int, int]]) -> Fault | None:
    """Return the first place where a script is not valid; None if it is, or if what is not known of it may be why."""
    if not root.has_error:
        return None
    node = _first(root)
    start, end = node.start_byte, max(node.start_byte, node.end_byte)
    if any(a < end + 1 and start <= b for a, b in holes):
        return None
    holder = node.parent if node.is_missing and node.parent is not None else node
    opened = _opened(holder.children)
    delimiter = next((child for child in holder.children if child.type == "heredoc_start"), None)
    if opened is not None:
        place = _place(text, opened.start_byte, len(opened.type))
        closer = _CLOSERS[opened.type]
        is_sure = not _stands_in(code, closer, opened.end_byte)
        message = f"{opened.type!r} without {closer!r}"
    elif delimiter is not None:
        place = _place(text, delimiter.start_byte, delimiter.end_byte - delimiter.start_byte)
        end_line = code[delimiter.start_byte : delimiter.end_byte].strip("'\"\\")
        is_sure = end_line not in code[delimiter.end_byte :].replace("\t", "").split("\n")
        message = f"a heredoc without the line {end_line!r} that ends it"
    else:
        stray = _STRAY.match(code, holder.start_byte, node.end_byte)
        closer = stray[0] if stray else ""
        place = _place(text, holder.start_byte, len(closer))
        is_sure = bool(closer) and not any(_stands_in(code[: holder.start_byte], opener) for opener in _OPENERS[closer])
        message = f"{closer!r} closes nothing"
    return Fault(place, f"not valid shell: {message}") if is_sure else None


def _stands_in(code: str, token: str, start: int = 0) -> bool:
    """Whether a token stands anywhere behind `start`, were it in a comment: then nothing is sure."""
    found = re.compile(rf"(?<!\w){token}(?!\w)" if token.isalpha() else re.escape(token)).search(code, start)
    return found is not None


def _opened(children: Sequence[Node]) -> Node | None:
    """Return the first node that opens something which none behind it closes."""
    types = [child.type for child in children if not child.is_missing]
    for at, child in enumerate(children):
        if child.type in _CLOSERS and _CLOSERS[child.type] not in types[at + 1 :]:
            return child
    return None


def _first(node: Node) -> Node:
    """Return the first node that is an error or was missing."""
    while not (node.is_error or node.is_missing):
        inner = next((child for child in node.children if child.has_error or child.is_missing or child.is_error), None)
        if inner is None:
            break
        node = inner
    return node


def _place(text: Text, start: int, length: int) -> Span:
    return text.span(min(start, len(text)), min(start + length, len(text)))
