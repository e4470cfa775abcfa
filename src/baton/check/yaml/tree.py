"""YAML as Kubernetes reads it (1.1), every node with its place; templates and broken files read as far as they go.

Nothing here raises for what a file says. A document that is not YAML gives a Fault and whatever stands before it;
`{{ ... }}` of Helm gives a scalar whose value is not known. Nodes are trees but for aliases, which share them: never
in a circle, at most 100 deep, and not many times larger than the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.yaml.comments import comments
from baton.check.yaml.compose import compose as read
from baton.check.yaml.nodes import Comment, Entry, Fault, Mapping, Node, Scalar, Sequence, Stream

__all__ = [
    "Comment",
    "Entry",
    "Fault",
    "Mapping",
    "Node",
    "Scalar",
    "Sequence",
    "Stream",
    "comments",
    "find",
    "items",
    "mapping",
    "number",
    "read",
    "scalar",
    "string",
    "walk",
]

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")


def find(node: Node | None, path: str) -> Node | None:
    """Return the node at a dotted path ("spec.template.spec"; a number picks an item); None if it is not there."""
    for part in path.split(".") if path else ():
        if isinstance(node, Mapping):
            entry = node.entries.get(part)
            node = entry.value if entry else None
        elif isinstance(node, Sequence) and part.isdecimal() and len(part) < 9 and int(part) < len(node.items):
            node = node.items[int(part)]
        else:
            return None
    return node


def scalar(node: Node | None, path: str = "") -> Scalar | None:
    """Return the scalar at a path; None if there is none, or something else stands there."""
    found = find(node, path)
    return found if isinstance(found, Scalar) else None


def string(node: Node | None, path: str = "") -> str | None:
    """Return the text of the scalar at a path; None if there is none, it is null, or a template decides it."""
    found = scalar(node, path)
    return found.text.value if found and found.is_known and found.value is not None else None


def number(node: Node | None, path: str = "") -> int | None:
    """Return a whole number at a path, also when it is written as a string ("8"); None if it is not one."""
    found = scalar(node, path)
    if found is None or not found.is_known or isinstance(found.value, bool):
        return None
    if isinstance(found.value, int):
        return found.value
    text = found.text.value.strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def mapping(node: Node | None, path: str = "") -> Mapping | None:
    """Return the mapping at a path; None if there is none."""
    found = find(node, path)
    return found if isinstance(found, Mapping) else None


def items(node: Node | None, path: str = "") -> tuple[Node, ...]:
    """Return the items of the sequence at a path; () if there is none."""
    found = find(node, path)
    return found.items if isinstance(found, Sequence) else ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything below it, each once, parents first."""
    seen: set[int] = set()
    ahead = [node]
    while ahead:
        found = ahead.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        if isinstance(found, Mapping):
            ahead.extend(entry.value for entry in reversed(found.entries.values()))
        elif isinstance(found, Sequence):
            ahead.extend(reversed(found.items))
