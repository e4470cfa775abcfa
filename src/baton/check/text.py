"""Text that knows where it stands in a file, however deeply it was quoted there.

A flag may be a word of a shell script inside a block scalar of a YAML file, and a key of JSON inside that word. Each
reader hands on `Text`: the value it found, and for every character the place it came from. So a finding at the bottom
still points at line and column, and a fix can be made there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One file as it was read; `name` is what the person called it."""

    name: str
    text: str
    _starts: list[int] = field(default_factory=list)

    def position(self, offset: int) -> tuple[int, int]:
        """Return line and column, from 1, of an offset into the text."""
        line = bisect_right(self._line_starts(), offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Return one line, from 1, without its end; "" beyond the last."""
        starts = self._line_starts()
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r\n")

    def offset(self, line: int, column: int) -> int:
        """Return the offset of a line and column, from 1; of the nearest there is if they lie outside."""
        starts = self._line_starts()
        start = starts[min(max(line, 1), len(starts)) - 1]
        return min(start + max(column, 1) - 1, len(self.text))

    def span(self, start: int, end: int) -> Span:
        """Return the stretch [start, end) of the text."""
        return Span(self, start, max(start, end))

    def whole(self) -> Text:
        """Return the file's text as one that knows where it stands."""
        return Text(self.text, self, range(len(self.text) + 1))

    def _line_starts(self) -> list[int]:
        if not self._starts:
            self._starts.append(0)
            self._starts.extend(at + 1 for at, char in enumerate(self.text) if char == "\n")
        return self._starts


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch [start, end) of a source's text."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line of its first character, from 1."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """Column of its first character, from 1."""
        return self.source.position(self.start)[1]

    @property
    def written(self) -> str:
        """The text of the stretch, as it stands in the file."""
        return self.source.text[self.start : self.end]

    def to(self, last: Span) -> Span:
        """Return the stretch from this one's start to the end of `last`."""
        return Span(self.source, self.start, max(self.end, last.end))

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A value and where each of its characters stands.

    offsets: for every character its offset in `source`, and one more: where the value ends. Escapes and folded lines
    make them jump; a value that was put together from elsewhere has them all alike (see `at`).
    """

    value: str
    source: Source
    offsets: Sequence[int]

    @staticmethod
    def at(value: str, span: Span) -> Text:
        """Return a value whose characters have no place of their own; all of it stands at `span`."""
        return Text(value, span.source, [*[span.start] * len(value), span.end])

    @staticmethod
    def join(parts: Iterable[Text]) -> Text:
        """Return parts put together; they must be of one source, else all of it stands where the first does."""
        found = list(parts)
        if len(found) == 1:
            return found[0]
        value = "".join(part.value for part in found)
        if any(part.source is not found[0].source for part in found):
            return Text.at(value, found[0].span())
        offsets = [offset for part in found for offset in part.offsets[:-1]]
        return Text(value, found[0].source, [*offsets, found[-1].offsets[-1]])

    def span(self, start: int = 0, end: int | None = None) -> Span:
        """Return where the characters [start, end) stand."""
        end = len(self.value) if end is None else end
        first = self.offsets[start]
        if end <= start:
            return self.source.span(first, first)
        stop, last = self.offsets[end], self.offsets[end - 1]
        between = self.source.text[last:stop]
        is_far = stop < last or "\n" in between or "\r" in between
        return self.source.span(first, last + 1 if is_far else stop)

    @property
    def is_exact(self) -> bool:
        """Whether every character stands in the file as itself, one after another: only then may it be edited there."""
        start, end = self.offsets[0], self.offsets[-1]
        return end - start == len(self.value) and self.source.text[start:end] == self.value

    def __getitem__(self, part: slice) -> Text:
        start, stop, _ = part.indices(len(self.value))
        stop = max(start, stop)
        return Text(self.value[start:stop], self.source, self.offsets[start : stop + 1])

    def __str__(self) -> str:
        return self.value

    def __len__(self) -> int:
        return len(self.value)
