"""One scalar of a YAML file: what it says, whether that is known, and where each of its characters stands."""

from __future__ import annotations

import re

from baton.check.text import Source, Text
from baton.check.yaml import places, resolve
from baton.check.yaml.nodes import Scalar
from baton.check.yaml.templates import Masked

_GAP = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")


def read_scalar(
    source: Source, masked: Masked, start: int, end: int, value: str, style: str, tag: str | None
) -> Scalar:
    """Make a scalar of what libyaml found at [start, end), tag and anchor not counted."""
    text, last, is_known = (_block if style in {"|", ">"} else _flow)(source, masked, start, end, value, style)
    resolved: resolve.Value = text.value
    if is_known and tag is not None:
        resolved = resolve.tagged(tag, value)
    elif is_known and not style:
        resolved = resolve.plain(value)
    return Scalar(text, resolved, source.span(start, last), is_known)


def _flow(source: Source, masked: Masked, start: int, end: int, value: str, style: str) -> tuple[Text, int, bool]:
    inner, stop = (start + 1, end - 1) if style else (start, end)
    if masked.touches(start, end):
        undone = places.flow(source.text, inner, stop, style)
        return Text(undone.value, source, undone.offsets), end, False
    if masked.text[inner:stop] == value:
        is_known = bool(value or style) or not masked.additions_in(end, _next(masked.text, end))
        return Text(value, source, range(inner, stop + 1)), end, is_known
    undone = places.flow(masked.text, inner, stop, style)
    if undone.value == value:
        return Text(value, source, undone.offsets), end, True
    return Text.at(value, source.span(start, end)), end, True


def _next(text: str, end: int) -> int:
    gap = _GAP.match(text, end)
    return gap.end() if gap else end


def _block(source: Source, masked: Masked, start: int, end: int, value: str, _: str) -> tuple[Text, int, bool]:
    undone = places.block(masked.text, start, end, value)
    last = undone.end if undone else start + len(masked.text[start:end].rstrip())
    if masked.touches(start, last) or _may_grow(masked, last, end, undone):
        undone = places.block_as_written(source.text, start, end)
        return Text(undone.value, source, undone.offsets), undone.end, False
    if undone:
        return Text(value, source, undone.offsets), last, True
    return Text.at(value, source.span(start, last)), last, True


def _may_grow(masked: Masked, last: int, end: int, undone: places.Undone | None) -> bool:
    """Return whether an action behind a block scalar's last line may add to the scalar."""
    added = masked.additions_in(last, end)
    if not added or not undone or not undone.value:
        return bool(added)
    column = undone.offsets[0] - masked.text.rfind("\n", 0, undone.offsets[0]) - 1
    return any(a.indent is None or a.indent >= column for a in added)
