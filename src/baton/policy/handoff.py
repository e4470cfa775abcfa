"""The life of one request over its two legs, as a state machine without I/O.

    RESERVED -> PREFILLING -> HANDED_OFF -> DECODING -> COMPLETED
        |           |             |            |
        '-----------+-------------+------------+-----> FAILED | CANCELLED
    RESERVED ----------------------------------------> SHED

Each state says what is owed to the engines if the request ends there, so that no KV
lease and no running leg is left behind; the gateway only carries it out.
"""

from __future__ import annotations

from enum import StrEnum

from baton.base.errors import BugError


class State(StrEnum):
    """Where a request is."""

    RESERVED = "reserved"
    PREFILLING = "prefilling"
    HANDED_OFF = "handed_off"
    DECODING = "decoding"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SHED = "shed"


class Debt(StrEnum):
    """What must still be done at the engines when a request ends early."""

    NOTHING = "nothing"
    ABORT_PREFILL = "abort_prefill"
    """Prefill is computing: abort it by id, and release its KV if it had finished all the same."""
    RELEASE_KV = "release_kv"
    """Prefill holds finished KV that nobody has asked for."""
    ABORT_DECODE = "abort_decode"
    """Decode owns the request, its KV included: closing its connection ends it."""


TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.SHED})

_NEXT: dict[State, frozenset[State]] = {
    State.RESERVED: frozenset({State.PREFILLING, State.DECODING, State.FAILED, State.CANCELLED, State.SHED}),
    State.PREFILLING: frozenset({State.HANDED_OFF, State.FAILED, State.CANCELLED}),
    State.HANDED_OFF: frozenset({State.DECODING, State.FAILED, State.CANCELLED}),
    State.DECODING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
}

_DEBT = {
    State.PREFILLING: Debt.ABORT_PREFILL,
    State.HANDED_OFF: Debt.RELEASE_KV,
    State.DECODING: Debt.ABORT_DECODE,
}


class Handoff:
    """One request's state."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.RESERVED

    def to(self, state: State) -> Debt:
        """Move on; the answer is what the state that was left still owes the engines if `state` is an early end.

        Raises   BugError on a transition the picture above does not have
        """
        if state not in _NEXT.get(self.state, frozenset()):
            raise BugError(f"a hand-off cannot go from {self.state} to {state}")
        left, self.state = self.state, state
        if state in (State.FAILED, State.CANCELLED):
            return _DEBT.get(left, Debt.NOTHING)
        return Debt.NOTHING

    @property
    def ended(self) -> bool:
        """True once nothing more can happen."""
        return self.state in TERMINAL
