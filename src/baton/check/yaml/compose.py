"""YAML's events made into nodes, one document after another, whatever is wrong with any of them.

libyaml's parser says what comes next; nothing here recurses, so depth and aliases are bounded by count. Where it stops,
the containers still open are closed as they are, and reading goes on at the next `---`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from baton.check.text import Source, Text
from baton.check.yaml import templates
from baton.check.yaml.nodes import Entry, Fault, Mapping, Node, Scalar, Sequence, Stream
from baton.check.yaml.scalars import read_scalar

_ILLEGAL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NEXT_DOCUMENT = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_BLANK = r"[ \t\r\n\x85\u2028\u2029]"
_PROPERTIES = re.compile(rf"(?:[&!][^ \t\r\n\x85\u2028\u2029]*+(?:{_BLANK}++(?:#[^\n]*+\n{_BLANK}*+)*+)?)++")
_MAX_DEPTH = 100
_TOO_DEEP = f"nested too deeply, more than {_MAX_DEPTH} levels; not read further"
_PARSERS_TOO_DEEP = "exceeded maximum nesting depth"
"""libyaml's words for more than 1,000 flow levels, from PyYAML 6.0.4 on: it looks ahead, and may stop before we do"""
_MAX_ALIASED = 100_000  # nodes that aliases and merges may add to a document
_MAX_BROKEN = 50  # documents, then reading ends


def compose(source: Source) -> Stream:
    """Read all documents of a YAML file."""
    clean, faults = _printable(source)
    masked = templates.mask(clean)
    documents: list[Node] = []
    at = len(clean) - len(clean.lstrip("\ufeff"))
    for _ in range(_MAX_BROKEN):
        reader = _Reader(source, masked, at, len(clean))
        is_whole = reader.read()
        faults += reader.faults
        documents += reader.documents if is_whole else _before_fault(reader)
        following = None if is_whole else _NEXT_DOCUMENT.search(masked.text, max(reader.at, at + 1))
        if following is None:
            break
        at = following.start()
    else:
        faults.append(Fault(source.span(at, at + 3), f"{_MAX_BROKEN} documents are not YAML; not read further"))
    return Stream(tuple(documents), tuple(sorted(faults, key=lambda fault: fault.span.start)))


def _before_fault(reader: _Reader) -> list[Node]:
    """Return what stands on the lines before the fault, read again without what the parser saw when it looked ahead.

    If those lines alone are no YAML either (a bracket is open), what the parser gave before it stopped.
    """
    line = reader.masked.text.rfind("\n", 0, reader.faults[-1].span.start) + 1
    again = _Reader(reader.source, reader.masked, reader.base, line)
    return again.documents if line > reader.base and again.read() else reader.documents


def _printable(source: Source) -> tuple[str, list[Fault]]:
    """Return the text without the characters YAML does not allow, as many of others in their place."""
    first = _ILLEGAL.search(source.text)
    if first is None:
        return source.text, []
    span = source.span(first.start(), first.end())
    message = (
        f"not YAML: the control character U+{ord(first[0]):04X} may not stand here; write it as an escape in quotes"
    )
    return _ILLEGAL.sub("\ufffd", source.text), [Fault(span, message)]


@dataclass(slots=True, eq=False)
class _Key:
    node: Node
    first: int
    is_merge: bool


@dataclass(slots=True, eq=False)
class _Open:
    """A container that is not closed yet.

    first, last: where its writing begins, and ends so far. behind: where that of what stands before it ends. column:
    None in a flow container. size, height: of the tree it is, aliases written out.
    """

    is_mapping: bool
    first: int
    last: int
    behind: int
    column: int | None
    anchor: str | None
    entries: dict[str, Entry] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)
    merged: list[Node] = field(default_factory=list)
    key: _Key | None = None
    is_complete: bool = True
    size: int = 1
    height: int = 1


class _Reader:
    """Reads a file from `base` to `stop` or the first fault; `at` is where what it has read so far ends.

    If `stop` is not the file's end, what is open there is closed and not complete.
    """

    def __init__(self, source: Source, masked: templates.Masked, base: int, stop: int) -> None:
        self.source = source
        self.masked = masked
        self.base = base
        self.stop = stop
        self.at = base
        self.documents: list[Node] = []
        self.faults: list[Fault] = []
        self._is_in_document = False
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        self._num_aliased = 0

    def read(self) -> bool:
        """Read as far as possible; return whether that is to the end."""
        parser: Any = yaml.CSafeLoader(self.masked.text[self.base : self.stop])
        try:
            while (event := parser.get_event()) is not None:
                start, end = event.start_mark.index + self.base, event.end_mark.index + self.base
                if not self._take(event, start, end):
                    break
                self.at = max(self.at, end)
            else:
                return True
        except yaml.YAMLError as error:
            self.faults.append(self._fault(error))
        self._break_off()
        return False

    def _take(self, event: Any, start: int, end: int) -> bool:
        """Use one event; return whether to go on."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event, start, end)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            return self._open(event, start)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close(end)
        elif kind is yaml.AliasEvent:
            self._alias(event.anchor, start, end)
        elif kind is yaml.DocumentStartEvent:
            self._is_in_document = True
            self._anchors.clear()
            self._num_aliased = 0
        elif kind is yaml.DocumentEndEvent:
            self._is_in_document = False
        return True

    def _scalar(self, event: Any, start: int, end: int) -> None:
        style = event.style or ""
        if event.anchor or event.tag:
            start = min(end, self._skip_properties(start))
        found = read_scalar(self.source, self.masked, start, end, event.value, style, event.tag)
        if event.anchor:
            self._anchors[event.anchor] = (found, 1, 1)
        is_open = not style and not found.is_known
        if self._stack and is_open and self._stack[-1].column is None:
            self._stack[-1].is_complete = False
        is_merge = not style and event.value == "<<" and event.tag is None
        if self._stack or style or found.text.value:
            self._add(found, start, found.span.end, 1, 1, is_merge)

    def _alias(self, name: str, start: int, end: int) -> None:
        span = self.source.span(start, end)
        found = self._anchors.get(name)
        problem = ""
        if found is None:
            problem = (
                f"*{name} stands inside its own anchor" if name in self._anchors else f"no anchor &{name} stands before"
            )
        elif self._num_aliased + found[1] > _MAX_ALIASED:
            problem = f"*{name} makes the document grow beyond {_MAX_ALIASED} nodes"
        elif len(self._stack) + found[2] > _MAX_DEPTH:
            problem = f"*{name} makes the document deeper than {_MAX_DEPTH} levels"
        if found is None or problem:
            self.faults.append(Fault(span, f"not YAML that Kubernetes reads: {problem}"))
            found = (Scalar(Text(span.written, self.source, range(start, end + 1)), span.written, span, False), 1, 1)
        else:
            self._num_aliased += found[1]
        self._add(found[0], start, end, found[1], found[2], False)

    def _open(self, event: Any, start: int) -> bool:
        if len(self._stack) >= _MAX_DEPTH:
            span = self.source.span(start, start + 1)
            self.faults.append(Fault(span, _TOO_DEEP))
            return False
        if event.anchor or event.tag:
            start = self._skip_properties(start)
        if event.anchor:
            self._anchors[event.anchor] = None
        column = None if event.flow_style else start - self.masked.text.rfind("\n", 0, start) - 1
        is_mapping = type(event) is yaml.MappingStartEvent
        self._stack.append(_Open(is_mapping, start, start + 1, self.at, column, event.anchor))
        return True

    def _close(self, end: int) -> None:
        top = self._stack.pop()
        last = end if top.column is None else top.last
        is_cut = top.column is not None and end >= self.stop < len(self.source.text)
        is_complete = top.is_complete and not is_cut and not self._may_grow(top, end)
        span = self.source.span(top.first, last)
        node: Node
        if top.is_mapping:
            is_complete = self._merge(top) and is_complete
            node = Mapping(top.entries, span, is_complete)
        else:
            node = Sequence(tuple(top.items), span, is_complete)
        if top.anchor:
            self._anchors[top.anchor] = (node, top.size, top.height)
        self._add(node, top.first, last, top.size, top.height, False)

    def _may_grow(self, top: _Open, end: int) -> bool:
        added = self.masked.additions_in(top.behind, end)
        return any(top.column is None or a.indent is None or a.indent == top.column for a in added)

    def _add(self, node: Node, first: int, last: int, size: int, height: int, is_merge: bool) -> None:
        """Put a node where it belongs: into the innermost open container, or among the documents."""
        if not self._stack:
            self.documents.append(node)
            return
        top = self._stack[-1]
        top.last = max(top.last, last)
        top.size += size
        top.height = max(top.height, height + 1)
        if not top.is_mapping:
            top.items.append(node)
        elif top.key is None:
            top.key = _Key(node, first, is_merge)
            if isinstance(node, Scalar) and not node.is_known:
                top.is_complete = False
        else:
            key, top.key = top.key, None
            if key.is_merge:
                top.merged.append(node)
            elif isinstance(key.node, Scalar):
                entry = Entry(key.node, node, self.source.span(key.first, last))
                top.entries[key.node.text.value] = entry

    def _merge(self, top: _Open) -> bool:
        """Add the entries of `<<`, which those written here go before; return whether all of them are there."""
        is_complete = True
        for value in top.merged:
            for part in value.items if isinstance(value, Sequence) else (value,):
                self._num_aliased += len(part.entries) if isinstance(part, Mapping) else 0
                if not isinstance(part, Mapping) or self._num_aliased > _MAX_ALIASED:
                    is_complete = False
                    continue
                is_complete = is_complete and part.is_complete
                top.size += len(part.entries)
                top.entries = {**part.entries, **top.entries}
        return is_complete

    def _break_off(self) -> None:
        """Close what is open; keep of the document that broke off what is a mapping or a sequence."""
        while self._stack:
            self._stack[-1].is_complete = False
            self._close(self._stack[-1].last)
        if self._is_in_document and self.documents:
            broken = self.documents.pop()
            if not isinstance(broken, Scalar):
                self.documents.append(replace(broken, is_complete=False))

    def _skip_properties(self, start: int) -> int:
        found = _PROPERTIES.match(self.masked.text, start)
        return found.end() if found else start

    def _fault(self, error: yaml.YAMLError) -> Fault:
        """Say where and why libyaml stopped."""
        text = self.source.text
        mark = getattr(error, "problem_mark", None)
        start = min(len(text), mark.index + self.base if mark else self.at)
        problem = getattr(error, "problem", None) or error
        if problem == _PARSERS_TOO_DEEP:
            return Fault(self.source.span(start, start + 1), _TOO_DEEP)
        context, context_mark = getattr(error, "context", None), getattr(error, "context_mark", None)
        message = f"not YAML: {problem}"
        if text[start : start + 1] == "\t":
            message = "not YAML: a tab stands where only spaces may indent"
        elif context:
            since = self.source.position(context_mark.index + self.base)[0] if context_mark else 0
            message += f", {context}" + (f" that starts at line {since}" if since else "")
        end = start + len(text[start:].partition("\n")[0].rstrip())
        return Fault(self.source.span(start, end), " ".join(message.split()))
