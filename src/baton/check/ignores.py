"""Comments by which a file asks that a finding be left out.

`# baton: ignore[CODE] reason` holds for the line it stands on or, alone on its line, for the one below; a command
continued with backslashes is one line. `# baton: ignore-file[CODE] reason` above everything but comments holds for the
file. A comment that gives no reason sets nothing aside. Knows nothing of rules but their codes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from baton.catalogue.history import close
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Source, Span
from baton.check.yaml import tree

CODE = "ignore-comment"

_COMMENT = re.compile(
    r"#\s*baton:\s*ignore(?P<file>-file)?(?![\w-])\s*(?:\[(?P<codes>[^\]]*)\])?[\s:-]*(?P<reason>.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True, eq=False)
class Ignore:
    """One such comment; is_low: it means the file, but stands below its head, and so means nothing."""

    span: Span
    codes: tuple[str, ...]
    reason: str
    is_for_file: bool
    is_low: bool

    @property
    def holds(self) -> bool:
        """Whether it may set anything aside."""
        return bool(self.reason) and not self.is_low


@dataclass(frozen=True, slots=True, eq=False)
class Ignores:
    """Those of one file: for all of it, and by line; `alone` are the lines that hold nothing but a comment."""

    of_file: tuple[Ignore, ...]
    by_line: dict[int, list[Ignore]]
    alone: frozenset[int]

    def __iter__(self) -> Iterator[Ignore]:
        yield from self.of_file
        for found in self.by_line.values():
            yield from found

    def of(self, finding: Finding) -> Ignore | None:
        """Return the comment that sets a finding aside; None if none does."""
        found = (i for i in self._around(finding.span) if i.holds and finding.code in i.codes)
        return next(found, None)

    def _around(self, span: Span) -> Iterator[Ignore]:
        first = last = span.line
        while span.source.line(first - 1).endswith("\\"):
            first -= 1
        while span.source.line(last).endswith("\\"):
            last += 1
        for line in range(first, last + 1):
            yield from self.by_line.get(line, ())
        while (first := first - 1) in self.alone:
            yield from self.by_line.get(first, ())
        yield from self.of_file


def read(source: Source) -> Ignores:
    """Return the comments of a file that ask for something to be left out."""
    if _COMMENT.search(source.text) is None:
        return Ignores((), {}, frozenset())
    comments = tree.comments(source)
    alone = frozenset(comment.span.line for comment in comments if comment.alone)
    head = _head(source, alone)
    of_file: list[Ignore] = []
    by_line: dict[int, list[Ignore]] = {}
    for comment in comments:
        found = _COMMENT.search(comment.span.written)
        if found is not None:
            start = comment.span.start + found.start()
            is_for_file = found["file"] is not None
            ignore = Ignore(
                span=source.span(start, comment.span.end),
                codes=tuple(code.strip().lower() for code in (found["codes"] or "").split(",") if code.strip()),
                reason=found["reason"].strip(),
                is_for_file=is_for_file,
                is_low=is_for_file and comment.span.line > head,
            )
            if is_for_file:
                of_file.append(ignore)
            else:
                by_line.setdefault(comment.span.line, []).append(ignore)
    return Ignores(tuple(of_file), by_line, alone)


def faults(ignore: Ignore, used: Collection[str], codes: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with a comment, given the codes it did set aside and all codes there are."""
    if not ignore.codes:
        yield _fault(ignore, "the comment names no code, so nothing is ignored", "write ignore[CODE] and a reason")
        return
    for code in ignore.codes:
        if code not in codes:
            near = close(code, sorted(codes))
            hint = f"did you mean {' or '.join(near)}?" if near else "`baton check --explain all` lists the codes"
            yield _fault(ignore, f"there is no rule {code!r} to ignore", hint)
    if not ignore.reason:
        yield _fault(
            ignore, "the comment gives no reason, so nothing is ignored", "write the reason behind the bracket"
        )
    elif ignore.is_low:
        words = "move it above the first line that is not a comment, or write ignore[CODE] where the finding is"
        yield _fault(ignore, "ignore-file stands below the head of the file, so nothing is ignored", words)
    else:
        for code in ignore.codes:
            if code in codes and code not in used:
                where = "in this file" if ignore.is_for_file else "on its line"
                message = f"there is no {code} {where} to ignore"
                yield _fault(ignore, message, "remove the comment if it is not needed", Harm.UNKNOWN)


def _fault(ignore: Ignore, message: str, words: str, harm: Harm = Harm.FRAGILE) -> Finding:
    return Finding(span=ignore.span, message=message, fix=Fix(words), harm=harm, code=CODE)


def _head(source: Source, alone: Collection[int]) -> int:
    """Return the last line of a file's head: comments, empty lines, the start of a YAML document."""
    line, num_lines = 1, source.position(len(source.text))[0]
    while line <= num_lines and (line in alone or not source.line(line).strip() or source.line(line).startswith("---")):
        line += 1
    return line - 1
