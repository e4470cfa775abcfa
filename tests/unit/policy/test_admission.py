"""Admission: who goes first, who waits how long, who is turned away; and that nobody starves."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.policy.admission import WEIGHTS, Admission, Reason, Shed
from baton.policy.fair_queue import FairQueue, Place, Waiting
from baton.policy.tenant import Tenant
from baton.policy.token_bucket import TokenBucket

OPEN, SHUT = 0.0, 1.0
LATE_S = 1e6


def tenant(name: str, priority: int = 0, ttft_deadline_s: float = LATE_S) -> Tenant:
    return Tenant(name, priority, ttft_deadline_s)


def admission(max_queued: int = 1000) -> Admission:
    return Admission(max_queued=max_queued, hold_s=0.5)


def queued(at: Admission, of: Tenant, now_s: float = 0.0, priority: int = 0) -> Waiting:
    waiting = at.enter(of, now_s, SHUT, priority=priority)
    assert isinstance(waiting, Waiting)
    return waiting


def order(at: Admission, num: int) -> list[str]:
    chosen = [at.next(0.0, OPEN) for _ in range(num)]
    return [one.tenant.name for one in chosen if one is not None]


def test_while_the_gate_is_open_and_nobody_waits_requests_go_on() -> None:
    at = admission()
    assert at.enter(tenant("a"), 0.0, 0.5) is None
    assert at.lengths() == {"interactive": 0, "standard": 0, "batch": 0}


def test_nobody_overtakes_those_who_wait_though_the_gate_is_open() -> None:
    at = admission()
    first = queued(at, tenant("a"))
    second = at.enter(tenant("b"), 0.0, OPEN)
    assert isinstance(second, Waiting)
    assert at.next(0.0, OPEN) is first
    assert at.next(0.0, OPEN) is second
    assert at.next(0.0, OPEN) is None


@pytest.mark.parametrize("wait_s", [0.51, float("inf"), float("nan")])
def test_a_gate_that_is_not_surely_open_is_shut(wait_s: float) -> None:
    at = admission()
    queued(at, tenant("a"))
    assert at.next(0.0, wait_s) is None


def test_classes_share_by_weight_while_all_of_them_wait() -> None:
    at = admission()
    for name in ("i", "s", "b"):
        for _ in range(100):
            queued(at, tenant(name, "isb".index(name)))
    served = order(at, 84)
    assert [served.count(name) for name in "isb"] == [64, 16, 4]


def test_a_class_that_was_away_has_saved_nothing_up() -> None:
    at = admission()
    for _ in range(200):
        queued(at, tenant("b", 2))
    order(at, 100)
    for _ in range(200):
        queued(at, tenant("i", 0))
    assert "b" in order(at, 18)


def test_one_tenants_flood_does_not_delay_another_by_more_than_one_turn() -> None:
    at = admission()
    for _ in range(500):
        queued(at, tenant("flood"))
    for _ in range(3):
        queued(at, tenant("small"))
    assert order(at, 6).count("small") == 3


def test_a_tenants_own_requests_go_by_deadline_then_by_arrival() -> None:
    at = admission()
    late, soon, soon_too = (queued(at, tenant("a", 0, s)) for s in (9.0, 5.0, 5.0))
    assert [at.next(0.0, OPEN) for _ in range(3)] == [soon, soon_too, late]


def test_a_request_may_ask_for_a_lower_class_than_its_tenants_but_not_for_a_higher() -> None:
    at = admission()
    assert queued(at, tenant("a", 1), priority=2).priority == 2
    assert queued(at, tenant("a", 1), priority=0).priority == 1


def test_a_key_over_its_limit_is_told_when_to_come_again() -> None:
    at, limited = admission(), Tenant("a", 0, 10.0, TokenBucket(0.5, 1.0, 0.0))
    assert at.enter(limited, 0.0, OPEN) is None
    shed = at.enter(limited, 0.0, OPEN)
    assert isinstance(shed, Shed)
    assert (shed.status, shed.reason) == (429, Reason.RATE_LIMITED)
    assert shed.retry_after_s == pytest.approx(2.0, abs=1e-5)
    assert at.enter(limited, shed.retry_after_s, OPEN) is None


def test_what_cannot_start_in_time_is_shed_as_it_comes_and_charged_for_nothing() -> None:
    at, hasty = admission(), Tenant("a", 0, 2.0, TokenBucket(0.001, 1.0, 0.0))
    shed = at.enter(hasty, 0.0, 7.5)
    assert isinstance(shed, Shed)
    assert (shed.status, shed.reason, shed.retry_after_s) == (503, Reason.TOO_LATE, 5.5)
    assert isinstance(at.enter(hasty, 0.0, 1.9), Waiting)


def test_the_pace_of_the_queue_tells_who_will_be_too_late() -> None:
    at, now_s = admission(), 0.0
    for _ in range(41):
        queued(at, tenant("a"))
    for _ in range(40):
        now_s += 0.25
        assert at.next(now_s, OPEN) is not None
    for _ in range(19):
        queued(at, tenant("a"), now_s)
    assert isinstance(at.enter(tenant("a", 0, 6.5), now_s, SHUT), Waiting)  # 20 ahead: 5 s, and 1 s at the engines
    shed = at.enter(tenant("z", 0, 1.1), now_s, SHUT)  # another tenant: only one ahead, 0.25 s
    assert isinstance(shed, Shed)
    assert isinstance(at.enter(tenant("z", 0, 1.3), now_s, SHUT), Waiting)


def test_a_stall_is_forgotten_once_the_queue_moves_again() -> None:
    at = admission()
    for _ in range(400):
        queued(at, tenant("a"))
    at.next(0.01, OPEN)
    at.next(300.0, OPEN)
    hasty = tenant("z", 0, 4.0)
    assert isinstance(at.enter(hasty, 300.0, SHUT), Shed)
    now_s = 300.0
    for _ in range(200):
        now_s += 0.01
        at.next(now_s, OPEN)
    assert isinstance(at.enter(hasty, now_s, SHUT), Waiting)


def test_whose_deadline_passes_while_waiting_is_shed_then_and_never_dispatched() -> None:
    at = admission()
    hasty, patient = queued(at, tenant("a", 0, 2.0)), queued(at, tenant("b", 0, 9.0))
    assert at.next_deadline_s() == 2.0
    assert at.expired(1.9) == []
    assert at.next(2.0, OPEN) is None
    assert at.expired(2.0) == [hasty]
    assert hasty.place is Place.SHED
    assert at.next(2.0, OPEN) is patient
    assert at.next_deadline_s() is None


def test_a_full_queue_gives_up_the_lowest_classs_newest_first() -> None:
    at = admission(max_queued=4)
    first, second = queued(at, tenant("b", 2)), queued(at, tenant("b", 2))
    standard = queued(at, tenant("s", 1))
    queued(at, tenant("i", 0))
    assert [queued(at, tenant("i", 0)).displaced for _ in range(3)] == [second, first, standard]
    shed = at.enter(tenant("i", 0), 0.0, SHUT)
    assert isinstance(shed, Shed)
    assert (shed.status, shed.reason) == (503, Reason.QUEUE_FULL)
    assert at.lengths() == {"interactive": 4, "standard": 0, "batch": 0}


def test_in_a_full_queue_a_tenant_with_little_displaces_the_newest_of_the_one_with_most() -> None:
    at = admission(max_queued=4)
    queued(at, tenant("small"))
    newest = [queued(at, tenant("flood")) for _ in range(3)][-1]
    assert isinstance(at.enter(tenant("flood"), 0.0, SHUT), Shed)
    assert queued(at, tenant("small")).displaced is newest
    assert isinstance(at.enter(tenant("small"), 0.0, SHUT), Shed)  # two each: who comes goes


def test_who_leaves_is_not_dispatched_and_leaving_twice_or_late_changes_nothing() -> None:
    at, limited = admission(), Tenant("a", 0, 9.0, None, TokenBucket(0.001, 100.0, 0.0))
    waiting = at.enter(limited, 0.0, SHUT, num_tokens=100)
    assert isinstance(waiting, Waiting)
    at.leave(waiting, 0.0)
    at.leave(waiting, 0.0)
    assert at.next(0.0, OPEN) is None
    again = at.enter(limited, 0.0, SHUT, num_tokens=100)
    assert isinstance(again, Waiting)
    assert at.next(0.0, OPEN) is again
    at.leave(again, 0.0)  # in the moment it was let go: its tokens go back all the same
    assert at.enter(limited, 0.0, OPEN, num_tokens=100) is None
    assert isinstance(at.enter(limited, 0.0, OPEN, num_tokens=100), Shed)


@given(st.floats(0, 1e12), st.integers(0, 50))
def test_retry_after_is_between_a_second_and_a_minute(predicted_s: float, num: int) -> None:
    at = admission()
    for _ in range(num):
        queued(at, tenant("a"))
    at.next(3.0, OPEN)
    assert 1.0 <= at.retry_after_s(4.0, predicted_s) <= 60.0


# -- nobody starves

ARRIVALS = st.tuples(st.just("comes"), st.integers(0, 2), st.integers(0, 3), st.sampled_from([5.0, 20.0, LATE_S]))
STEPS = st.lists(
    ARRIVALS | st.tuples(st.sampled_from(["served", "served", "leaves"]), st.integers(0, 99)), max_size=150
)


class Watch:
    """One that waits: how many of its own tenant went before it, and how many went before it at all."""

    def __init__(self, waiting: Waiting, num_own_ahead: int, promised: int) -> None:
        self.waiting, self.num_own_ahead, self.promised = waiting, num_own_ahead, promised
        self.num_before, self.overtaken = 0, False

    def bound(self, num_tenants: int, weights: Sequence[int]) -> int:
        own = weights[self.waiting.priority]
        num_of_class = (self.num_own_ahead + 1) * num_tenants
        others = [weight for i, weight in enumerate(weights) if i != self.waiting.priority]
        return num_of_class - 1 + sum(num_of_class * weight // own + 1 for weight in others)


def check_bounds(queue: FairQueue, weights: Sequence[int], steps: list[tuple[object, ...]]) -> None:
    watched: list[Watch] = []
    tenants: dict[tuple[int, int], Tenant] = {}
    for order, step in enumerate(steps):
        if step[0] == "comes":
            _, priority, name, in_s = step
            of = tenants.setdefault((priority, name), tenant(f"{priority}{name}", priority))
            waiting = Waiting(of, priority, (order + in_s, order), 0, 0.0)
            own = [one for one in watched if one.waiting.tenant is of]
            for one in watched:
                one.overtaken = True
            for one in own:
                one.num_own_ahead += waiting.due < one.waiting.due
            num_own_ahead = sum(one.waiting.due < waiting.due for one in own)
            watched.append(Watch(waiting, num_own_ahead, queue.num_ahead(waiting)))
            queue.push(waiting)
        elif step[0] == "leaves" and watched:
            gone = watched.pop(int(str(step[1])) % len(watched))
            queue.remove(gone.waiting)
        elif step[0] == "served":
            serve(queue, weights, watched, len(tenants))
        assert queue.num_waiting == len(watched)
        assert queue.first_due() is min((one.waiting for one in watched), key=lambda waiting: waiting.due, default=None)
    while watched:
        serve(queue, weights, watched, len(tenants))
    assert queue.pop() is None


def serve(queue: FairQueue, weights: Sequence[int], watched: list[Watch], num_tenants: int) -> None:
    chosen = queue.pop()
    assert (chosen is None) == (not watched)
    for one in list(watched):
        if one.waiting is chosen:
            watched.remove(one)
            assert one.num_before <= one.bound(num_tenants, weights), "it waited longer than is promised"
            assert one.overtaken or one.num_before <= one.promised
        else:
            one.num_before += 1
            assert one.num_before <= one.bound(num_tenants, weights), "it starves"


@given(STEPS, st.sampled_from([(16, 4, 1), (1, 1, 1), (3, 2, 7), (100, 10, 1)]))
def test_whatever_comes_nobody_waits_for_more_dispatches_than_is_promised(
    steps: list[tuple[object, ...]], weights: tuple[int, int, int]
) -> None:
    check_bounds(FairQueue(weights), weights, steps)


class StrictPriority(FairQueue):
    """A queue that starves: the highest class always first."""

    def pop(self) -> Waiting | None:
        for one in self._classes:
            if one.num_waiting:
                waiting = next(iter(one.tenants.values()))[0]
                self.remove(waiting)
                return waiting
        return None


class NoTurns(FairQueue):
    """A queue that starves: who was served stays at the head of the ring."""

    def pop(self) -> Waiting | None:
        waiting = super().pop()
        if waiting is not None:
            of = self._classes[waiting.priority]
            if waiting.tenant.name in of.tenants:
                of.tenants.move_to_end(waiting.tenant.name, last=False)
        return waiting


FLOODS: dict[type[FairQueue], list[tuple[object, ...]]] = {
    StrictPriority: [("comes", 2, 0, 5.0), *[("comes", 0, 0, LATE_S), ("served", 0)] * 60],
    NoTurns: [*[("comes", 0, 0, LATE_S)] * 60, ("comes", 0, 1, 5.0), *[("served", 0)] * 60],
}


@pytest.mark.parametrize("starves", FLOODS)
def test_a_queue_that_starves_somebody_is_found_out(starves: type[FairQueue]) -> None:
    weights = tuple(WEIGHTS.values())
    check_bounds(FairQueue(weights), weights, FLOODS[starves])
    with pytest.raises(AssertionError, match=r"starves|longer"):
        check_bounds(starves(weights), weights, FLOODS[starves])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(0.1, 5.0), st.floats(0, 0.3)), max_size=80),
    st.integers(0, 8),
)
def test_every_request_goes_on_or_is_shed_by_its_deadline_and_a_higher_class_never_goes_for_a_lower(
    arrivals: list[tuple[int, int, float, float]], max_queued: int
) -> None:
    at, now_s, waiting = admission(max_queued), 0.0, []
    for i, (priority, name, deadline_s, gap_s) in enumerate(arrivals):
        now_s += gap_s
        late = at.expired(now_s)
        assert all(one.deadline_s <= now_s for one in late)
        outcome = at.enter(tenant(str(name), priority, deadline_s), now_s, SHUT if i % 5 else OPEN)
        if isinstance(outcome, Waiting):
            waiting.append(outcome)
            if outcome.displaced is not None:
                assert outcome.displaced.place is Place.SHED
                assert outcome.displaced.priority >= priority
        if i % 3 == 0 and (chosen := at.next(now_s, OPEN)) is not None:
            assert chosen.deadline_s > now_s
        here = [one for one in waiting if one.place is Place.QUEUED]
        assert sum(at.lengths().values()) == len(here) <= max_queued
        assert all(one.deadline_s > now_s for one in here)
    at.expired(now_s + 5.0)
    assert all(one.place in (Place.DISPATCHED, Place.SHED) for one in waiting)
