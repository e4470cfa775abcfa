"""The exact index against engines that are modelled by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from baton.policy.exact_prefixes import EngineHash, ExactPrefixes, StoredBlocks
from baton.policy.prompt import continued, keyed, root, token_chain
from baton.policy.rank import RankId

A, B, SILENT = RankId("a", 0), RankId("a", 1), RankId("b", 0)
PROMPT = list(range(12))


def index_of(*followed: RankId, **limits: int) -> ExactPrefixes:
    index = ExactPrefixes(1000, **limits)
    for rank in followed:
        index.follow(rank, guesses=True)
    return index


def blocks(names: list[EngineHash], token_ids: list[int], parent: EngineHash | None = None, size: int = 2,
           keys: tuple[bytes, ...] = (), group: int | None = None) -> StoredBlocks:  # fmt: skip
    return StoredBlocks(hashes=names, parent=parent, token_ids=token_ids, block_size=size, keys=keys, group=group)


def test_a_ranks_own_hashes_lead_to_the_prompts_chain() -> None:
    index = index_of(A, B)
    index.told_stored(A, blocks([900, b"x"], PROMPT[:4]))
    index.told_stored(A, blocks([7], PROMPT[4:6], parent=b"x"))
    index.told_stored(B, blocks([b"x"], PROMPT[:2]))
    chain = token_chain(b"", PROMPT, 2)
    assert index.block_size == 2
    assert index.matched(chain) == {A: 3, B: 1}
    index.told_removed(A, [7])
    assert index.matched(chain) == {A: 2, B: 1}
    assert len(index) == 2


def test_a_block_whose_parent_is_not_known_is_counted_and_passed_over() -> None:
    index = index_of(A)
    index.told_stored(A, blocks([1, 2], PROMPT[:4], parent=99))
    assert (index.counts.unknown_parent, len(index)) == (2, 0)
    index.told_removed(A, [1, 2])
    assert index.num_told(A) == 0


def test_a_block_that_is_there_twice_is_held_until_both_copies_are_gone() -> None:
    index = index_of(A)
    chain = token_chain(b"", PROMPT[:2], 2)
    for _ in range(3):
        index.told_stored(A, blocks([1], PROMPT[:2]))
    for expected in ({A: 1}, {A: 1}, {}):
        index.told_removed(A, [1])
        assert index.matched(chain) == expected


def test_what_makes_no_sense_is_counted() -> None:
    index = index_of(A)
    index.told_stored(A, blocks([1, 2], PROMPT[:3]))
    index.told_stored(A, blocks([1], [], size=0))
    index.told_stored(A, blocks([1], PROMPT[:2], keys=(b"a", b"b")))
    assert (index.counts.malformed, len(index)) == (4, 0)


def test_one_group_speaks_for_a_rank() -> None:
    index = index_of(A)
    chain = token_chain(b"", PROMPT[:2], 2)
    index.told_stored(A, blocks([1], PROMPT[:2], group=1))
    index.told_stored(A, blocks([1], PROMPT[:2], group=0))
    index.told_removed(A, [1], group=0)
    assert (index.matched(chain), index.counts.other_group) == ({A: 1}, 1)
    index.told_removed(A, [1], group=1)
    assert index.matched(chain) == {}
    index.told_cleared(A)
    index.told_stored(A, blocks([1], PROMPT[:2], group=0))
    assert index.matched(chain) == {A: 1}


def test_a_rank_that_is_full_says_less_never_more() -> None:
    index = index_of(A, max_told_blocks=2)
    index.told_stored(A, blocks([1, 2, 3], PROMPT[:6]))
    assert (index.matched(token_chain(b"", PROMPT, 2)), index.counts.refused, index.num_told(A)) == ({A: 2}, 1, 2)
    index.told_removed(A, [2])
    index.told_stored(A, blocks([4], PROMPT[2:4], parent=1))
    assert index.matched(token_chain(b"", PROMPT, 2)) == {A: 2}


def test_blocks_of_another_salt_are_others() -> None:
    index = index_of(A)
    index.told_stored(A, blocks([1, 2], PROMPT[:4], keys=(b"salt", b"")))
    assert index.matched(token_chain(b"", PROMPT, 2)) == {}
    assert index.matched(continued(keyed(root(), b"salt"), PROMPT[:4], 2)) == {A: 2}


def test_the_block_size_is_that_of_most_blocks_and_goes_with_the_rank_that_told_it() -> None:
    index = index_of(A, B)
    index.told_stored(A, blocks([9], PROMPT[:3], size=3))  # vLLM also tells of parts of blocks
    index.told_stored(A, blocks([1, 2, 3], PROMPT[:6], size=2))
    assert index.block_size == 2
    index.told_stored(B, blocks([1, 2], PROMPT[:8], size=4))
    index.told_cleared(A)
    assert index.block_size == 4
    index.told_cleared(B)
    assert (index.block_size, len(index)) == (0, 0)


def test_a_guess_counts_until_the_rank_has_spoken() -> None:
    index = index_of(A)
    chain = token_chain(b"", PROMPT, 2)
    index.stored(A, chain)
    assert index.matched(chain) == {A: 6}, "a burst of one prompt goes to one rank"
    index.told_stored(A, blocks([1, 2, 3, 4, 5, 6], PROMPT))
    index.told_removed(A, [6, 5])
    assert index.matched(chain) == {A: 4}, "it has been there and is not any more"


def test_what_is_told_outlives_the_routers_own_failures() -> None:
    index = index_of(A)
    chain = token_chain(b"", PROMPT, 2)
    index.told_stored(A, blocks([1, 2], PROMPT[:4]))
    index.stored(A, chain)
    index.removed(A, chain[1:])  # the prefill leg failed
    assert index.matched(chain) == {A: 2}
    index.stored(A, chain)
    index.cleared(A)  # the worker did not answer for a moment
    assert index.matched(chain) == {A: 2}
    index.told_cleared(A)
    assert index.matched(chain) == {}


def test_a_guess_of_what_is_told_is_not_kept() -> None:
    index = index_of(A)
    chain = token_chain(b"", PROMPT[:4], 2)
    index.told_stored(A, blocks([1, 2], PROMPT[:4]))
    index.stored(A, chain)
    index.told_removed(A, [2, 1])
    assert index.matched(chain) == {}


def test_a_rank_that_is_only_believed_is_never_guessed_at() -> None:
    index = ExactPrefixes(1000)
    index.follow(A, guesses=False)
    chain = token_chain(b"", PROMPT, 2)
    index.stored(A, chain)
    index.stored(SILENT, chain)
    assert index.matched(chain) == {SILENT: 6}


Engine = dict[tuple[int, ...], int]
"""Copies of each prefix of whole blocks that an engine holds."""


class AgainstEngines(RuleBasedStateMachine):
    """Engines that cache, evict, lose messages and start anew; the index must know what they hold, or less of it."""

    prompts = st.lists(st.integers(0, 1), min_size=2, max_size=10)
    ranks = st.sampled_from([A, B])

    @initialize(size=st.integers(1, 3), bytes_hashes=st.booleans())
    def begin(self, size: int, bytes_hashes: bool) -> None:
        self.size, self.bytes_hashes = size, bytes_hashes
        self.index = index_of(A, B)
        self.held: dict[RankId, Engine] = {A: {}, B: {}}
        self.known: dict[RankId, Engine] = {A: {}, B: {}}
        """what the rank's messages since it was last forgotten add up to"""
        self.names: dict[RankId, dict[tuple[int, ...], EngineHash]] = {A: {}, B: {}}
        self.last_name = 0

    def name(self, rank: RankId, prefix: tuple[int, ...]) -> EngineHash:
        if prefix not in self.names[rank]:
            self.last_name += 1
            self.names[rank][prefix] = self.last_name.to_bytes(4, "big") if self.bytes_hashes else self.last_name
        return self.names[rank][prefix]

    @rule(rank=ranks, prompt=prompts, again=st.booleans())
    def serve(self, rank: RankId, prompt: list[int], again: bool) -> None:
        num_whole = len(prompt) // self.size
        prefixes = [tuple(prompt[: (i + 1) * self.size]) for i in range(num_whole)]
        new = [prefix for prefix in prefixes if prefix not in self.held[rank]]
        if again and prefixes and not new:
            new = prefixes[-1:]  # a prompt of whole blocks computes its last block again
        if not new:
            return
        for prefix in new:
            self.held[rank][prefix] = self.held[rank].get(prefix, 0) + 1
        parent = new[0][: -self.size]
        self.index.told_stored(
            rank,
            blocks(
                [self.name(rank, prefix) for prefix in new],
                list(new[-1][len(parent) :]),
                parent=self.name(rank, parent) if parent else None,
                size=self.size,
            ),
        )
        if not parent or parent in self.known[rank]:
            for prefix in new:
                self.known[rank][prefix] = self.known[rank].get(prefix, 0) + 1

    @rule(rank=ranks, data=st.data())
    def evict(self, rank: RankId, data: st.DataObject) -> None:
        leaves = [one for one in self.held[rank] if not any(o[: len(one)] == one != o for o in self.held[rank])]
        if not leaves:
            return
        leaf = data.draw(st.sampled_from(leaves))
        self.index.told_removed(rank, [self.name(rank, leaf)])
        for told in (self.held[rank], self.known[rank]):
            if leaf in told:
                told[leaf] -= 1
                if not told[leaf]:
                    del told[leaf]

    @rule(rank=ranks)
    def clear(self, rank: RankId) -> None:
        self.index.told_cleared(rank)
        self.held[rank].clear()
        self.known[rank].clear()

    @rule(rank=ranks)
    def gap(self, rank: RankId) -> None:
        self.index.told_cleared(rank)
        self.known[rank].clear()

    @rule(rank=ranks)
    def restart(self, rank: RankId) -> None:
        self.clear(rank)
        self.names[rank].clear()

    @invariant()
    def knows_what_was_told(self) -> None:
        if not hasattr(self, "size"):
            return
        prompts = {prefix for held in self.held.values() for prefix in held} | {(0,) * 9, (1, 0) * 4}
        for prompt in prompts:
            expected: dict[RankId, int] = {}
            for rank, known in self.known.items():
                depth = 0
                while (depth + 1) * self.size <= len(prompt) and prompt[: (depth + 1) * self.size] in known:
                    depth += 1
                if depth:
                    expected[rank] = depth
            assert self.index.matched(token_chain(b"", prompt, self.size)) == expected
        for rank, known in self.known.items():
            assert self.index.num_told(rank) == len(known)
            assert known.keys() <= self.held[rank].keys()


TestAgainstEngines = AgainstEngines.TestCase
TestAgainstEngines.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.sampled_from("sgrc"), st.integers(0, 5)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_router_never_takes_back_what_is_told(steps: list[tuple[str, int]]) -> None:
    index = index_of(A)
    index.told_stored(A, blocks([1, 2, 3], PROMPT[:6]))
    chain = token_chain(b"", PROMPT, 2)
    for step, n in steps:
        {"s": lambda n=n: index.stored(A, chain[:n]), "g": lambda n=n: index.stored(SILENT, chain[:n]),
         "r": lambda n=n: index.removed(A, chain[n:]), "c": lambda: index.cleared(A)}[step]()  # fmt: skip
        assert index.matched(chain)[A] >= 3
