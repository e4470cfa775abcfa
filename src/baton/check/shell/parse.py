"""Shell text as tree-sitter can take it: one byte a character, and a plain word where something is not known.

So a node's byte offsets are offsets into the text, and templates are no syntax errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

_UNREADABLE = re.compile(r"[^\t\n\r\x20-\x7e]|\r(?!\n)")
_CONTROL = re.compile(r"\{\{-?\s*(?:(?:if|else|end|with|range|define|block)\b|\$\w+\s*:?=|/\*)")
_TEST = re.compile(
    r"((?:^|(?<=[\s;&|!(]))\[\[?[ \t])((?:[^\n`$\]]|\$(?!\()|\](?![\s;&|)\]])){1,400})([ \t]\]\]?(?=[\s;&|)]|$))"
)
_LINE_END = re.compile(r"[ \t]*\n")


def parse(code: str) -> Node:
    """Return the tree of a script that `readable` made.

    The grammar takes a few tests for errors that are none (`[ -d / ]`): if there are errors, it is tried without tests.
    """
    root = _parser().parse(code.encode("ascii")).root_node
    if root.has_error:
        plainer = _TEST.sub(lambda found: found[1] + "," * len(found[2]) + found[3], code)
        if plainer != code:
            other = _parser().parse(plainer.encode("ascii")).root_node
            return root if other.has_error else other
    return root


def readable(text: str, holes: Iterable[tuple[int, int]]) -> str:
    """Return a script of the same length without what the parser cannot take: holes, and all that is not ASCII.

    A line that holds nothing but Helm's control (`{{- if }}`) is blank; where it stands amid a command's continued
    lines it is a word of that command, and the next line goes on. In arithmetic only a number is read.
    """
    code = _UNREADABLE.sub(",", text)
    for start, end in holes:
        line = text.rfind("\n", 0, start) + 1
        line_end = _LINE_END.match(text, end)
        filler = "0" if text.rfind("$((", line, start) > text.rfind("))", line, start) else ","
        if line_end and not text[line:start].strip(" \t") and _CONTROL.match(text, start, end):
            if text[:line].endswith("\\\n"):
                code = code[: line_end.end() - 1] + " " + code[line_end.end() :]
            else:
                filler = " "
        code = code[:start] + filler * (end - start) + code[end:]
    return code


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bash.language()))
