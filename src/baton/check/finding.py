"""What a rule found: where, what, why it is believed, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from baton.check.text import Span


class Harm(IntEnum):
    """What a fault does to the people who run it, worst first; findings are ranked by it."""

    WRONG_ANSWERS = 0  # answers are wrong, with HTTP 200
    NOT_SERVING = 1  # every pod is green and nothing is served, or nothing is disaggregated
    NOT_STARTING = 2  # something exits, is rejected or waits for ever
    WASTED = 3  # a setting does nothing, GPUs or speed are lost, and nobody is told
    FRAGILE = 4  # works until something changes: a restart, an upgrade, another cluster
    UNKNOWN = 5  # baton cannot know; it says what it could not check

    @property
    def severity(self) -> str:
        """error, warning or note, as compilers say."""
        return "error" if self <= Harm.NOT_STARTING else "warning" if self <= Harm.FRAGILE else "note"


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` in the place of a stretch of a file."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do, in words that stand alone, and the edits that do exactly that (none: a person must decide).

    is_guess: the edits are one way of several, or what was perhaps meant: `baton migrate` leaves them to a person.
    """

    words: str
    edits: tuple[Edit, ...] = ()
    is_guess: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault.

    span: where. message: what is wrong, with the value, in one line, no full stop. evidence: why it is believed: what
    the engine accepts, the sum that does not add up, since which version. also: other places that take part, each with
    a word on its part. see: public threads. harm: None takes the rule's. code: the rule's; the runner fills it in.
    """

    span: Span
    message: str
    evidence: tuple[str, ...] = ()
    fix: Fix | None = None
    also: tuple[tuple[Span, str], ...] = ()
    see: tuple[str, ...] = ()
    harm: Harm | None = None
    code: str = ""
