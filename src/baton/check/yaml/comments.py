"""The comments of a YAML or shell file, those of a shell script inside a YAML file among them.

In YAML a # in a quoted or plain scalar is no comment. In a script, quotes are told apart line by line: a comment inside
a script that is itself quoted over several lines counts.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from baton.check.text import Source
from baton.check.yaml.compose import compose
from baton.check.yaml.nodes import Comment, Mapping, Node, Scalar, Sequence, Stream

_YAML = re.compile(r"(?<![^ \t\r\n])#")
_SHELL = re.compile(r"""'[^'\n]*+'|"(?:\\.|[^"\\\n])*+"|\\[^\n]|(?<![^ \t\r\n;&|()])(?P<comment>#)[^\n]*""")


def comments(source: Source) -> tuple[Comment, ...]:
    """Return the comments of a YAML or shell file."""
    in_shell = {found.start() for found in _SHELL.finditer(source.text) if found["comment"]}
    if not in_shell and not _YAML.search(source.text):
        return ()
    stream = compose(source)
    is_yaml = any(not isinstance(document, Scalar) for document in stream.documents)
    starts = _in_yaml(source, stream, in_shell) if is_yaml else sorted(in_shell)
    return tuple(_comment(source, start) for start in starts)


def _comment(source: Source, start: int) -> Comment:
    text = source.text
    newline = text.find("\n", start)
    end = start + len(text[start : len(text) if newline < 0 else newline].rstrip())
    return Comment(source.span(start, end), not text[text.rfind("\n", 0, start) + 1 : start].strip())


def _in_yaml(source: Source, stream: Stream, in_shell: set[int]) -> Iterator[int]:
    """Yield where comments start: behind a fault, and in block scalars, those that are one in shell too."""
    scalars = sorted((s.span.start, s.span.end) for document in stream.documents for s in _scalars(document))
    fault = min((found.span.start for found in stream.faults), default=len(source.text))
    line_end = -1
    for found in _YAML.finditer(source.text):
        start = found.start()
        if start <= line_end:
            continue
        number = bisect_right(scalars, (start, len(source.text))) - 1
        first, last = scalars[number] if number >= 0 else (0, 0)
        is_inside = first <= start < last
        is_script = is_inside and source.text[first] in "|>"
        if start in in_shell if is_script or start >= fault else not is_inside:
            line_end = source.text.find("\n", start) % (len(source.text) + 1)
            yield start


def _scalars(document: Node) -> Iterator[Scalar]:
    """Yield every scalar, keys among them, each once."""
    seen: set[int] = set()
    ahead: list[Node] = [document]
    while ahead:
        node = ahead.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Scalar):
            yield node
        elif isinstance(node, Mapping):
            ahead.extend(part for entry in node.entries.values() for part in (entry.key, entry.value))
        elif isinstance(node, Sequence):
            ahead.extend(node.items)
