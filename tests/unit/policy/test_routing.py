"""The choice of a pair."""

from collections import Counter
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from baton.policy.rank import Pair, RankId
from baton.policy.routing import Reservation, Router

PREFILLS = [RankId("p", 0), RankId("p", 1)]
DECODES = [RankId("d", 0), RankId("d", 1), RankId("e", 0)]
PAIRS = [Pair(p, d) for p, d in product(PREFILLS, DECODES)]
RANKS = [*PREFILLS, *DECODES]


def reserve(router: Router, pairs: list[Pair] = PAIRS) -> Reservation:
    reservation = router.reserve(pairs)
    assert reservation is not None
    return reservation


def test_no_pair_no_reservation() -> None:
    router = Router()
    assert router.reserve([]) is None
    assert router.reserve(iter(())) is None


def test_twelve_requests_at_a_time_are_spread_evenly_over_two_by_three_ranks() -> None:
    router = Router()
    for _ in range(12):
        reserve(router)
    assert [router.load(rank) for rank in RANKS] == [6, 6, 4, 4, 4]


def test_one_request_after_the_other_uses_every_rank_equally_often() -> None:
    router, used = Router(), Counter[RankId]()
    for _ in range(60):
        reservation = reserve(router)
        used.update(reservation.pair)
        router.release(reservation)
    assert [used[rank] for rank in PREFILLS] == [30, 30]
    assert max(used[rank] for rank in DECODES) - min(used[rank] for rank in DECODES) <= 2


def test_the_least_loaded_pair_is_taken() -> None:
    router = Router()
    held = [reserve(router) for _ in range(6)]
    freed = held[2]
    router.release(freed)
    assert reserve(router).pair.prefill == freed.pair.prefill
    for reservation in held:
        router.release(reservation)


def test_a_prefill_rank_is_free_again_as_soon_as_its_leg_is_over() -> None:
    router = Router()
    reservation = reserve(router)
    router.prefilled(reservation)
    assert router.load(reservation.pair.prefill) == 0
    assert router.load(reservation.pair.decode) == 1
    router.prefilled(reservation)
    router.release(reservation)
    router.release(reservation)
    assert [router.load(rank) for rank in RANKS] == [0] * 5


def test_ranks_and_pairs_read_well_in_logs() -> None:
    assert str(PAIRS[0]) == "p/0->d/0"


@given(st.lists(st.sets(st.sampled_from(PAIRS), min_size=1), max_size=30))
def test_only_pairs_that_are_given_are_chosen(offers: list[set[Pair]]) -> None:
    router = Router()
    for pairs in offers:
        assert reserve(router, sorted(pairs)).pair in pairs


@given(st.lists(st.integers(0, 5), max_size=40))
def test_the_choice_depends_on_nothing_but_what_was_reserved(order: list[int]) -> None:
    def run() -> list[Pair]:
        router, held = Router(), []
        for i in order:
            held.append(reserve(router))
            if i < len(held):
                router.release(held[i])
        return [reservation.pair for reservation in held]

    assert run() == run()


class AnyInterleaving(RuleBasedStateMachine):
    """Reserve, finish prefill and release in any order: loads are what is held, and never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.held: list[Reservation] = []
        self.over: list[Reservation] = []
        self.prefilled: set[int] = set()

    @rule(pairs=st.sets(st.sampled_from(PAIRS)))
    def reserve(self, pairs: set[Pair]) -> None:
        reservation = self.router.reserve(sorted(pairs))
        assert (reservation is None) == (not pairs)
        if reservation is not None:
            assert reservation.pair in pairs
            lightest = min(self.expected(p.prefill) + self.expected(p.decode) for p in pairs)
            chosen = reservation.pair
            assert self.expected(chosen.prefill) + self.expected(chosen.decode) == lightest
            self.held.append(reservation)

    @rule(i=st.integers(0, 20))
    def finish_prefill(self, i: int) -> None:
        if self.held:
            reservation = self.held[i % len(self.held)]
            self.prefilled.add(id(reservation))
            self.router.prefilled(reservation)

    @rule(i=st.integers(0, 20), again=st.booleans())
    def release(self, i: int, again: bool) -> None:
        if again and self.over:
            self.router.release(self.over[i % len(self.over)])
        elif self.held:
            reservation = self.held.pop(i % len(self.held))
            self.over.append(reservation)
            self.router.release(reservation)

    def expected(self, rank: RankId) -> int:
        prefilling = sum(r.pair.prefill == rank and id(r) not in self.prefilled for r in self.held)
        return prefilling + sum(r.pair.decode == rank for r in self.held)

    @invariant()
    def loads_are_what_is_held(self) -> None:
        for rank in RANKS:
            assert self.router.load(rank) == self.expected(rank) >= 0


AnyInterleaving.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyInterleaving = AnyInterleaving.TestCase
