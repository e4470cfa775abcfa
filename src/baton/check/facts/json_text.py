"""Where the keys and values of JSON stand inside a text, so that a finding points at the key and not at the word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from baton.check.text import Text

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One `"key": value` of an object, at whatever depth of objects.

    path: the keys down to it. key: its name without quotes. value: as it is written. data: what that means. start, end:
    where the pair stands in the text's value.
    """

    path: tuple[str, ...]
    key: Text
    value: Text
    data: Any
    start: int
    end: int


def members(text: Text) -> tuple[Member, ...]:
    """Return the members of a JSON object, outer ones first; () if the text is no JSON object."""
    try:
        data = json.loads(text.value)
        return tuple(_members(text, _skip(text.value, 0), ())) if isinstance(data, dict) else ()
    except (ValueError, RecursionError):
        return ()


def _members(text: Text, at: int, path: tuple[str, ...]) -> Iterator[Member]:
    value = text.value
    at = _skip(value, at + 1)
    while value[at] == '"':
        key, after = _DECODER.raw_decode(value, at)
        start = _skip(value, _skip(value, after) + 1)
        data, end = _DECODER.raw_decode(value, start)
        here = (*path, key)
        yield Member(here, text[at + 1 : after - 1], text[start:end], data, at, end)
        if isinstance(data, dict):
            yield from _members(text, start, here)
        at = _skip(value, end)
        if value[at] == ",":
            at = _skip(value, at + 1)


def _skip(value: str, at: int) -> int:
    found = _SPACE.match(value, at)
    return found.end() if found is not None else at
