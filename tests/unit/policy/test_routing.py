"""The choice of a pair, in predicted seconds."""

from collections import Counter
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from baton.policy.decision import Decision
from baton.policy.prefix_index import PrefixIndex
from baton.policy.rank import Pair, RankId
from baton.policy.routing import Ask, Reservation, Router
from baton.policy.step_times import StepTimes

PREFILLS = [RankId("p", 0), RankId("p", 1)]
DECODES = [RankId("d", 0), RankId("d", 1), RankId("e", 0)]
PAIRS = [Pair(p, d) for p, d in product(PREFILLS, DECODES)]
RANKS = [*PREFILLS, *DECODES]
SHORT = Ask(num_prompt_tokens=100, max_output_tokens=50)


def router(pairs: list[Pair] = PAIRS, **fields: Any) -> Router:
    made = Router(index=PrefixIndex(1000), times=StepTimes(), **fields)
    made.set_pairs(pairs)
    return made


def reserve(on: Router, ask: Ask = SHORT, now_s: float = 0.0) -> Reservation:
    reservation = on.reserve(ask, now_s)
    assert reservation is not None
    return reservation


def long(num_tokens: int, chain: tuple[int, ...] = (), **fields: Any) -> Ask:
    tokens_per_block = num_tokens / len(chain) if chain else 0.0
    return Ask(
        num_prompt_tokens=num_tokens, max_output_tokens=50, chain=chain, tokens_per_block=tokens_per_block, **fields
    )


def test_no_pair_no_reservation() -> None:
    assert router([]).reserve(SHORT, 0.0) is None


def test_twelve_requests_at_a_time_are_spread_evenly_over_two_by_three_ranks() -> None:
    on = router()
    for _ in range(12):
        reserve(on)
    assert [on.load(rank) for rank in RANKS] == [6, 6, 4, 4, 4]


def test_one_request_after_the_other_uses_every_rank_equally_often() -> None:
    on, used = router(), Counter[RankId]()
    for i in range(60):
        reservation = reserve(on, now_s=i * 10.0)
        used.update(reservation.pair)
        on.release(reservation, i * 10.0 + 1)
    assert [used[rank] for rank in PREFILLS] == [30, 30]
    assert max(used[rank] for rank in DECODES) - min(used[rank] for rank in DECODES) <= 2


def test_a_long_prompt_keeps_its_prefill_rank_busy_for_longer_than_several_short_ones() -> None:
    on = router()
    busy = reserve(on, long(30_000)).pair.prefill
    others = [reserve(on).pair.prefill for _ in range(5)]
    assert busy not in others


def test_a_cached_prefix_is_worth_a_wait_shorter_than_what_it_saves_and_no_longer() -> None:
    chain = tuple(range(1, 101))
    on = router()
    home = reserve(on, long(10_000, chain)).pair.prefill
    saved_s = on.times.prefill_s(10_000, 0) - on.times.prefill_s(1, 9_999)
    assert reserve(on, long(10_000, chain), now_s=0.5 * saved_s).pair.prefill == home

    on = router()
    first = reserve(on, long(10_000, chain))
    for _ in range(4):  # four more of the same size, told to stay there, are a queue of several times what is saved
        on._prefill[first.pair.prefill].join(first.decision.prefill_s, 0.0)
    assert reserve(on, long(10_000, chain)).pair.prefill != first.pair.prefill


def test_a_rank_that_was_lost_has_no_cache_any_more() -> None:
    chain = tuple(range(1, 101))
    on = router(PAIRS[:1])
    first = reserve(on, long(10_000, chain))
    on.prefilled(first, 50.0)
    on.release(first, 100.0)
    assert reserve(on, long(10_000, chain), 200.0).decision.num_prefill_hit_tokens > 9_000
    on.lost(PREFILLS[0])
    assert reserve(on, long(10_000, chain), 300.0).decision.num_prefill_hit_tokens == 0


def test_a_prefill_that_never_ended_well_has_cached_nothing() -> None:
    on = router(PAIRS[:1])
    on.release(reserve(on, long(10_000, tuple(range(1, 101)))), 0.01)
    assert reserve(on, long(10_000, tuple(range(1, 101))), 1.0).decision.num_prefill_hit_tokens == 0


def test_what_was_cached_before_a_failure_still_is() -> None:
    on = router(PAIRS[:1])
    first = reserve(on, long(5_000, tuple(range(1, 51))))
    on.prefilled(first, 1.0)
    on.release(first, 2.0, 10, True)
    on.release(reserve(on, long(10_000, tuple(range(1, 101))), 3.0), 4.0)
    assert reserve(on, long(10_000, tuple(range(1, 101))), 5.0).decision.num_prefill_hit_tokens == 5_000


def test_noise_does_not_make_one_of_equal_ranks_the_favourite() -> None:
    on, used, random = router(), Counter[RankId](), Random(4)
    for i in range(300):
        now_s = 10.0 * i
        reservation = reserve(on, long(1_000), now_s)
        used.update(reservation.pair)
        now_s += 0.1 * random.gauss(1, 0.1)
        on.prefilled(reservation, now_s, 1_000, 0)
        on.decoding(reservation, now_s + 0.01)
        on.release(reservation, now_s + random.gauss(1, 0.1), 50, True)
    assert abs(used[PREFILLS[0]] - used[PREFILLS[1]]) <= 4


def test_room_on_a_decode_rank_that_comes_while_the_prompt_is_prefilled_costs_nothing() -> None:
    """Why the two are chosen together: for a short prompt the wait counts, behind a long prefill it has passed."""
    full, empty = DECODES[:2]
    on = router([Pair(PREFILLS[0], full), Pair(PREFILLS[0], empty)])
    on.set_limits(full, 10, None)
    for _ in range(10):
        on._decode[full].join(1.0)
    for _ in range(9):
        on._decode[empty].join(40_000.0)
    wait_s = on._slot_s(on._decode[full], 100.0)
    quick, slow = (on.times.prefill_s(n, 0) for n in (100, 100_000))
    assert quick < wait_s < slow
    assert reserve(on).pair.decode == empty
    behind = on._choose(long(100_000), 0.0, ())
    assert behind is not None
    assert behind.slot_wait_s == 0 or behind.pair.decode == empty


def test_a_session_stays_where_it_was_while_that_costs_less_than_its_bonus() -> None:
    on = router(affinity_s=0.5)
    first = reserve(on, Ask(num_prompt_tokens=100, session="s"))
    on.release(first, 1.0)
    for i in range(5):
        again = reserve(on, Ask(num_prompt_tokens=100, session="s"), 10.0 + i)
        assert again.pair == first.pair
        assert again.decision.affinity_s == 0.5
        on.release(again, 10.5 + i)
    reserve(on, long(100_000), 20.0)
    crowded = Router(index=PrefixIndex(10), times=StepTimes(), affinity_s=0.001)
    crowded.set_pairs(PAIRS)
    home = reserve(crowded, long(100_000, session="t")).pair
    assert reserve(crowded, Ask(num_prompt_tokens=100, session="t")).pair.prefill != home.prefill


def test_decode_alone_takes_no_prefill_rank() -> None:
    on = router()
    reservation = reserve(on, Ask(num_prompt_tokens=10, decode_alone=True))
    assert reservation.local
    assert [on.load(rank) for rank in PREFILLS] == [0, 0]
    on.release(reservation, 1.0)
    assert [on.load(rank) for rank in RANKS] == [0] * 5


def test_a_short_prompt_is_prefilled_on_decode_only_where_that_is_allowed_and_faster() -> None:
    assert not reserve(router()).local
    on = router(prefill_locally=True)
    assert not reserve(on, long(50_000)).local
    for rank in PREFILLS:
        on._prefill[rank].join(30.0, 0.0)
    assert reserve(on, Ask(num_prompt_tokens=20)).local


def test_workers_to_avoid_are_avoided() -> None:
    on = router()
    assert {on.reserve(SHORT, 0.0, ("d",)).pair.decode for _ in range(9)} == {DECODES[2]}  # type: ignore[union-attr]
    assert on.reserve(SHORT, 0.0, ("p",)) is None


def test_the_predicted_wait_is_that_of_the_freest_rank_and_passes_with_time() -> None:
    on = router()
    assert on.predicted_wait_s(0.0) == 0
    for _ in range(4):
        reserve(on, long(20_000))
    wait_s = on.predicted_wait_s(0.0)
    assert wait_s > 1
    assert 0 <= on.predicted_wait_s(1.0) < wait_s


def test_a_slow_rank_gets_less_and_more_again_once_it_is_fast() -> None:
    on = router()

    def serve(rounds: int, slow_s: float, now_s: float) -> tuple[Counter[RankId], float]:
        used = Counter[RankId]()
        for _ in range(rounds):
            reservations = [reserve(on, long(2_000), now_s) for _ in range(2)]
            for reservation in reservations:
                took_s = slow_s if reservation.pair.prefill == PREFILLS[0] else 0.2
                on.prefilled(reservation, now_s + took_s, 2_000, 0)
                on.release(reservation, now_s + took_s + 1, 10, True)
                used[reservation.pair.prefill] += 1
            now_s += 5
        return used, now_s

    even, now_s = serve(20, 0.2, 0.0)
    assert even[PREFILLS[0]] == even[PREFILLS[1]]
    slow, now_s = serve(20, 2.0, now_s)
    assert slow[PREFILLS[0]] < slow[PREFILLS[1]]
    serve(20, 0.2, now_s + 120)
    again, _ = serve(20, 0.2, now_s + 400)
    assert again[PREFILLS[0]] == again[PREFILLS[1]]


@given(st.lists(st.integers(1, 50_000), max_size=12), st.integers(1, 50_000), st.integers(1, 2_000), st.floats(0, 100))
def test_the_terms_of_a_decision_sum_to_what_was_compared(before: list[int], n: int, osl: int, now_s: float) -> None:
    on = router()
    for i, num_tokens in enumerate(before):
        reserve(on, long(num_tokens, tuple(range(i, i + 5))), now_s)
    decision = reserve(on, Ask(num_prompt_tokens=n, max_output_tokens=osl), now_s).decision
    shown = decision.as_dict()
    terms = ("queue_wait_s", "prefill_s", "transfer_s", "slot_wait_s", "first_step_s")
    assert shown["ttft_s"] == pytest.approx(sum(shown[term] for term in terms), abs=1e-5)  # type: ignore[misc]
    rest = shown["decode_s"] + shown["delay_s"] - shown["affinity_s"]  # type: ignore[operator]
    assert shown["total_s"] == pytest.approx(shown["ttft_s"] + rest, abs=1e-5)
    assert all(shown[term] >= 0 for term in terms)  # type: ignore[operator]
    assert "\n" not in decision.text()
    assert f"total_s={decision.total_s:.6f}" in decision.text()


@given(st.lists(st.integers(1, 50_000), max_size=12), st.integers(1, 50_000))
def test_no_other_pair_is_predicted_to_cost_less(before: list[int], n: int) -> None:
    on = router()
    for num_tokens in before:
        reserve(on, long(num_tokens))
    chosen = on._choose(long(n), 0.0, ())
    assert chosen is not None
    each: list[Decision | None] = []
    for pair in PAIRS:
        on.set_pairs([pair])
        on._pairs[PREFILLS[0] if pair.prefill != PREFILLS[0] else PREFILLS[1]] = ()  # the rate is that of two ranks
        each.append(on._choose(long(n), 0.0, ()))
    assert chosen.total_s == pytest.approx(min(decision.total_s for decision in each if decision))


@given(st.lists(st.integers(0, 5), max_size=40))
def test_the_choice_depends_on_nothing_but_what_the_router_was_told(order: list[int]) -> None:
    def run() -> list[Pair]:
        on, held = router(), []
        for now_s, i in enumerate(order):
            held.append(reserve(on, long(100 + 50 * i), float(now_s)))
            if i < len(held):
                on.release(held[i], now_s + 0.5, 20, True)
        return [reservation.pair for reservation in held]

    assert run() == run()


class AnyInterleaving(RuleBasedStateMachine):
    """Whatever happens in whatever order, loads are what is held, waits are no less than nothing, pairs are allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.router = router()
        self.pairs = set(PAIRS)
        self.now_s = 0.0
        self.held: list[Reservation] = []
        self.over: list[Reservation] = []

    @rule(pairs=st.sets(st.sampled_from(PAIRS)))
    def allow(self, pairs: set[Pair]) -> None:
        self.pairs = pairs
        self.router.set_pairs(sorted(pairs))

    @rule(
        n=st.integers(1, 100_000),
        osl=st.none() | st.integers(0, 500),
        alone=st.booleans(),
        session=st.sampled_from("ab"),
    )
    def reserve(self, n: int, osl: int | None, alone: bool, session: str) -> None:
        ask = Ask(num_prompt_tokens=n, max_output_tokens=osl, chain=(n % 7, n % 5), tokens_per_block=10.0,
                  session=session, decode_alone=alone)  # fmt: skip
        reservation = self.router.reserve(ask, self.now_s)
        assert (reservation is None) == (not self.pairs)
        if reservation is not None:
            assert reservation.pair in self.pairs
            assert reservation.local or not alone
            self.held.append(reservation)

    @rule(dt=st.floats(0, 100))
    def later(self, dt: float) -> None:
        self.now_s += dt

    @rule(i=st.integers(0, 20), told=st.none() | st.integers(1, 200_000))
    def finish_prefill(self, i: int, told: int | None) -> None:
        if self.held:
            self.router.prefilled(self.held[i % len(self.held)], self.now_s, told, None if told is None else told // 2)

    @rule(i=st.integers(0, 20))
    def first_byte(self, i: int) -> None:
        if self.held:
            self.router.decoding(self.held[i % len(self.held)], self.now_s)

    @rule(i=st.integers(0, 20), again=st.booleans(), tokens=st.integers(0, 1000), completed=st.booleans())
    def release(self, i: int, again: bool, tokens: int, completed: bool) -> None:
        if again and self.over:
            self.router.release(self.over[i % len(self.over)], self.now_s, tokens, completed)
        elif self.held:
            reservation = self.held.pop(i % len(self.held))
            self.over.append(reservation)
            self.router.release(reservation, self.now_s, tokens, completed)

    @rule(rank=st.sampled_from(RANKS))
    def lose(self, rank: RankId) -> None:
        self.router.lost(rank)

    @rule(rank=st.sampled_from(DECODES), seqs=st.none() | st.integers(1, 5), kv=st.none() | st.integers(1, 10_000))
    def limit(self, rank: RankId, seqs: int | None, kv: int | None) -> None:
        self.router.set_limits(rank, seqs, kv)

    @invariant()
    def loads_are_what_is_held(self) -> None:
        for rank in RANKS:
            prefilling = sum(r.pair.prefill == rank and r.holds_prefill for r in self.held)
            assert self.router.load(rank) == prefilling + sum(r.pair.decode == rank for r in self.held)
        assert self.router.predicted_wait_s(self.now_s) >= 0


AnyInterleaving.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestAnyInterleaving = AnyInterleaving.TestCase
