"""What a YAML file is made of once it is read; knows nothing of how that is done."""

from __future__ import annotations

from dataclasses import dataclass

from baton.check.text import Span, Text


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A single value.

    text: its characters after YAML's unquoting, each with its place. value: what YAML makes of it (str, int, float,
    bool, None). span: as written, quotes and all. is_known: False if a template decides it, or part of it; then text
    and value are as written.
    """

    text: Text
    value: str | int | float | bool | None
    span: Span
    is_known: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One `key: value` of a mapping; span covers both, without comments or line end."""

    key: Scalar
    value: Node
    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """`key: value` pairs by the key's text; of a key given twice the last, as Kubernetes takes it.

    is_complete: False if a template may add entries, or the file broke off inside.
    """

    entries: dict[str, Entry]
    span: Span
    is_complete: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Items in order; is_complete: False if a template may add items, or the file broke off inside."""

    items: tuple[Node, ...]
    span: Span
    is_complete: bool = True


Node = Scalar | Mapping | Sequence


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment, from its # to the end of the line; `alone` if nothing stands before it on its line."""

    span: Span
    alone: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a file stops being what it claims to be, and why, in one line."""

    span: Span
    message: str


@dataclass(frozen=True, slots=True)
class Stream:
    """What a file holds: its documents in order, empty ones left out, and where it could not be read."""

    documents: tuple[Node, ...]
    faults: tuple[Fault, ...]
