"""Who holds what of a prompt."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from baton.policy.prefix_index import PrefixIndex
from baton.policy.prompt import continued, text_chain, token_chain
from baton.policy.rank import RankId

A, B, C = RankId("a", 0), RankId("a", 1), RankId("b", 0)


def test_each_rank_is_matched_as_far_as_it_holds_the_beginning() -> None:
    index = PrefixIndex(100)
    index.stored(A, [1, 2, 3, 4])
    index.stored(B, [1, 2])
    index.stored(C, [2, 3, 4])
    assert index.matched([1, 2, 3, 4, 5]) == {A: 4, B: 2}
    assert index.matched([9]) == {}
    assert index.matched([]) == {}


def test_a_block_that_was_removed_ends_what_is_matched() -> None:
    index = PrefixIndex(100)
    index.stored(A, [1, 2, 3])
    index.stored(B, [1, 2, 3])
    index.removed(A, iter([2]))
    assert index.matched([1, 2, 3]) == {A: 1, B: 3}
    index.cleared(B)
    assert index.matched([1, 2, 3]) == {A: 1}


def test_what_is_used_outlives_what_is_not() -> None:
    index = PrefixIndex(40)
    index.stored(A, [1, 2, 3])
    for i in range(100, 300, 4):
        index.stored(A, [1, 2, 3])
        index.stored(A, range(i, i + 4))
    assert index.matched([1, 2, 3]) == {A: 3}
    assert index.matched([100, 101]) == {}
    assert len(index) <= 40


class AgainstSets(RuleBasedStateMachine):
    """A plain set a rank: the index may forget, but never makes anything up, and never grows beyond its bound."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(12)
        self.sets: dict[RankId, set[int]] = {A: set(), B: set(), C: set()}
        self.large = PrefixIndex(10_000)

    chains = st.lists(st.integers(0, 15), unique=True, max_size=8)
    ranks = st.sampled_from([A, B, C])

    def both(self, do: Callable[[PrefixIndex], None]) -> None:
        do(self.index)
        do(self.large)

    @rule(rank=ranks, chain=chains)
    def stored(self, rank: RankId, chain: list[int]) -> None:
        self.both(lambda index: index.stored(rank, chain))
        self.sets[rank].update(chain)

    @rule(rank=ranks, blocks=chains)
    def removed(self, rank: RankId, blocks: list[int]) -> None:
        self.both(lambda index: index.removed(rank, blocks))
        self.sets[rank].difference_update(blocks)

    @rule(rank=ranks)
    def cleared(self, rank: RankId) -> None:
        self.both(lambda index: index.cleared(rank))
        self.sets[rank].clear()

    @rule(chain=chains)
    def matched(self, chain: list[int]) -> None:
        def depth(rank: RankId) -> int:
            return next((i for i, block in enumerate(chain) if block not in self.sets[rank]), len(chain))

        true = {rank: depth(rank) for rank in self.sets if depth(rank)}
        assert self.large.matched(chain) == true
        assert all(0 < num <= true.get(rank, 0) for rank, num in self.index.matched(chain).items())

    @invariant()
    def bounded(self) -> None:
        assert len(self.index) <= 12


AgainstSets.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestAgainstSets = AgainstSets.TestCase


@given(st.binary(max_size=400), st.binary(max_size=100), st.binary(max_size=100), st.integers(1, 64))
def test_chains_agree_as_far_as_whole_blocks_do(same: bytes, one: bytes, other: bytes, block_bytes: int) -> None:
    first, second = (text_chain(b"seed", same + rest, block_bytes) for rest in (one, other))
    num_same = len(same) // block_bytes
    assert first[:num_same] == second[:num_same]
    assert len(first) == len(same + one) // block_bytes
    end = (num_same + 1) * block_bytes
    if len(same + one) >= end and len(same + other) >= end and (same + one)[:end] != (same + other)[:end]:
        assert first[num_same] != second[num_same]


def test_another_seed_is_another_prompt() -> None:
    assert text_chain(b"tools", b"x" * 64, 16)[0] != text_chain(b"", b"x" * 64, 16)[0]


@given(st.lists(st.integers(0, 200_000), max_size=100), st.integers(1, 16), st.integers(0, 100))
def test_a_token_chain_can_be_continued_from_any_block(tokens: list[int], block_size: int, at: int) -> None:
    chain = token_chain(b"", tokens, block_size)
    assert len(chain) == len(tokens) // block_size
    if at < len(chain):
        assert continued(chain[at], tokens[(at + 1) * block_size :], block_size) == chain[at + 1 :]
