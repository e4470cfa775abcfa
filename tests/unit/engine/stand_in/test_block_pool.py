"""The block pool against a model of it: who holds what, what is found, and what is given away first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from baton.engine.stand_in.block_pool import AllCleared, BlockPool, BlockRemoved, BlocksStored

NUM_BLOCKS = 9


def stored(hashes: list[int]) -> BlocksStored:
    return BlocksStored(hashes, None, [0] * len(hashes), [None] * len(hashes))


class Pool(RuleBasedStateMachine):
    """Requests come with chains of hashes, hit what is cached, take the rest, cache it, and go."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, caching=True)
        self.held: list[list[int]] = []
        self.free = list(range(1, NUM_BLOCKS))
        """in the order in which they are to be given away"""
        self.hash_of: dict[int, int] = {}
        self.published: Counter[int] = Counter()

    @rule(target=requests, family=st.integers(0, 2), length=st.integers(1, 6))
    def comes(self, family: int, length: int) -> object:
        chain = [family * 100 + place for place in range(length)]
        hits = self.pool.matched(chain)
        cached = set(self.hash_of.values())
        longest = next((i for i, one in enumerate(chain) if one not in cached), length)
        assert [self.hash_of[block] for block in hits] == chain[:longest]
        if length - longest > self.pool.num_free - self.pool.num_unheld(hits):
            return multiple()
        self.pool.hold(hits)
        self.free = [block for block in self.free if block not in hits]
        taken = self.pool.allocate(length - longest)
        expected, self.free = self.free[: length - longest], self.free[length - longest :]
        assert taken == expected, "the least recently used first, and none that is held"
        for block in expected:
            self.hash_of.pop(block, None)
        blocks = [*hits, *taken]
        self.held.append(blocks)
        if taken:
            self.pool.store(taken, stored(chain[longest:]))
            self.hash_of.update(zip(taken, chain[longest:], strict=True))
        return blocks

    @rule(blocks=consumes(requests))
    def goes(self, blocks: list[int]) -> None:
        self.held.remove(blocks)
        self.pool.release(blocks)
        holders = Counter(block for one in self.held for block in one)
        self.free += [block for block in reversed(blocks) if not holders[block]]

    @rule(more=st.integers(1, NUM_BLOCKS))
    def more_than_there_is_takes_nothing(self, more: int) -> None:
        assert self.pool.allocate(self.pool.num_free + more) is None

    @precondition(lambda self: self.held)
    @rule()
    def what_is_held_keeps_the_cache(self) -> None:
        assert not self.pool.clear()

    @precondition(lambda self: not self.held)
    @rule()
    def is_cleared(self) -> None:
        assert self.pool.clear()
        self.hash_of.clear()

    @invariant()
    def every_block_is_free_or_held_and_never_both(self) -> None:
        held = {block for one in self.held for block in one}
        assert held.isdisjoint(self.free)
        assert held | set(self.free) == set(range(1, NUM_BLOCKS))
        assert self.pool.num_free == len(self.free)
        assert self.pool.usage == pytest.approx(len(held) / (NUM_BLOCKS - 1))
        assert self.pool.num_unheld(range(1, NUM_BLOCKS)) == len(self.free)

    @invariant()
    def events_tell_what_can_be_found(self) -> None:
        for event in self.pool.take_events():
            match event:
                case BlocksStored():
                    self.published.update(event.hashes)
                case BlockRemoved():
                    self.published[event.hash] -= 1
                case AllCleared():
                    self.published.clear()
        assert +self.published == Counter(self.hash_of.values())
        assert self.pool.num_cached == len(set(self.hash_of.values()))


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase


def test_a_block_that_two_requests_hold_is_free_after_both_are_gone() -> None:
    pool = BlockPool(4, caching=True)
    blocks = pool.allocate(2)
    assert blocks == [1, 2]
    pool.store(blocks, stored([7, 8]))
    pool.hold(pool.matched([7, 8, 9]))
    pool.release(blocks)
    assert pool.num_free == 1
    pool.release(blocks)
    assert (pool.num_free, pool.allocate(3)) == (3, [3, 2, 1])


def test_two_blocks_of_one_hash_are_found_until_both_are_given_away() -> None:
    pool = BlockPool(3, caching=True)
    for block in pool.allocate(2) or []:
        pool.store([block], stored([7]))
    pool.release([1])
    assert (pool.allocate(1), pool.matched([7])) == ([1], [2])
    pool.release([2])
    assert (pool.allocate(1), pool.matched([7])) == ([2], [])


def test_the_last_block_of_a_request_is_given_away_first() -> None:
    pool = BlockPool(4, caching=True)
    blocks = pool.allocate(3)
    assert blocks is not None
    pool.store(blocks, stored([7, 8, 9]))
    pool.release(blocks)
    assert (pool.allocate(1), pool.matched([7, 8, 9])) == ([3], [1, 2])


def test_without_a_cache_clearing_it_is_no_event() -> None:
    pool = BlockPool(4, caching=False)
    assert pool.clear()
    assert pool.take_events() == []
