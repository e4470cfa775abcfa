"""The life of a hand-off: every way through it, and what each early end owes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.base.errors import BugError
from baton.policy.handoff import TERMINAL, Debt, Handoff, State

S = State
LEGAL = {
    S.RESERVED: {S.PREFILLING, S.DECODING, S.FAILED, S.CANCELLED, S.SHED},
    S.PREFILLING: {S.HANDED_OFF, S.FAILED, S.CANCELLED},
    S.HANDED_OFF: {S.DECODING, S.FAILED, S.CANCELLED},
    S.DECODING: {S.COMPLETED, S.FAILED, S.CANCELLED},
    S.COMPLETED: set(),
    S.FAILED: set(),
    S.CANCELLED: set(),
    S.SHED: set(),
}
OWED = {
    S.RESERVED: Debt.NOTHING,
    S.PREFILLING: Debt.ABORT_PREFILL,
    S.HANDED_OFF: Debt.RELEASE_KV,
    S.DECODING: Debt.ABORT_DECODE,
}


def at(state: State) -> Handoff:
    handoff = Handoff()
    handoff.state = state
    return handoff


@pytest.mark.parametrize(("left", "entered"), list(itertools.product(State, State)))
def test_every_transition_is_either_in_the_picture_or_a_bug(left: State, entered: State) -> None:
    handoff = at(left)
    if entered in LEGAL[left]:
        debt = handoff.to(entered)
        assert handoff.state is entered
        assert debt is (OWED[left] if entered in {S.FAILED, S.CANCELLED} else Debt.NOTHING)
    else:
        with pytest.raises(BugError, match=f"from {left} to {entered}"):
            handoff.to(entered)
        assert handoff.state is left


def test_terminal_states_are_those_that_nothing_leaves() -> None:
    assert {state for state, following in LEGAL.items() if not following} == TERMINAL
    for state in State:
        assert at(state).ended == (state in TERMINAL)


def test_from_every_state_that_is_not_terminal_a_request_can_fail_and_be_cancelled() -> None:
    for state in set(State) - TERMINAL:
        for end in (S.FAILED, S.CANCELLED):
            assert at(state).to(end) is OWED[state]


@given(st.lists(st.sampled_from(State), max_size=12))
def test_whatever_is_tried_a_request_ends_once_and_stays_ended(tried: list[State]) -> None:
    handoff, ends = Handoff(), 0
    for state in tried:
        before = handoff.state
        try:
            handoff.to(state)
        except BugError:
            assert handoff.state is before
        else:
            assert before not in TERMINAL
            ends += handoff.ended
    assert ends == handoff.ended


def test_the_two_ways_to_serve() -> None:
    for path in (
        [S.PREFILLING, S.HANDED_OFF, S.DECODING, S.COMPLETED],
        [S.DECODING, S.COMPLETED],
    ):
        handoff = Handoff()
        assert [handoff.to(state) for state in path] == [Debt.NOTHING] * len(path)
        assert handoff.ended
