"""Which ranks are likely to hold which blocks of prompts in their prefix caches.

Two generations of a dictionary bound it: what is stored goes to the young one; when that is full it becomes the old
one, and what the old one still held is forgotten. So the least recently used go, without any list of use.

Invariant: a rank counts as holding block i of a prompt only if it counts as holding every block before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from baton.policy.rank import RankId


class PrefixIndex:
    """Blocks of all ranks, at most `max_blocks` of them; the ranks of a block are bits of one integer."""

    def __init__(self, max_blocks: int) -> None:
        self._max_young = max(1, max_blocks // 2)
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._bits: dict[RankId, int] = {}
        self._ranks: list[RankId] = []

    def __len__(self) -> int:
        """Blocks that are remembered, those that wait to be forgotten included."""
        return len(self._young) + sum(block not in self._young for block in self._old)

    def stored(self, rank: RankId, chain: Sequence[int]) -> None:
        """A rank holds the blocks of this chain, from its start."""
        if len(self._young) + len(chain) > self._max_young:
            self._old, self._young = self._young, {}
            chain = chain[: self._max_young]
        bit, young, old = self._bit(rank), self._young, self._old
        for block in chain:
            held = young.get(block)
            young[block] = (old.get(block, 0) if held is None else held) | bit

    def matched(self, chain: Sequence[int]) -> dict[RankId, int]:
        """How many leading blocks of a chain each rank holds; ranks that hold none are left out."""
        young, old = self._young.get, self._old.get
        return self._depths(young(block) or old(block, 0) for block in chain)

    def removed(self, rank: RankId, blocks: Iterable[int]) -> None:
        """A rank holds these blocks no more."""
        keep, young, old = ~self._bit(rank), self._young, self._old
        for block in blocks:
            if block in young:
                young[block] &= keep
            if block in old:
                old[block] &= keep

    def cleared(self, rank: RankId) -> None:
        """A rank holds nothing any more."""
        keep = ~self._bit(rank)
        self._young = {block: left for block, held in self._young.items() if (left := held & keep)}
        self._old = {block: left for block, held in self._old.items() if (left := held & keep)}

    def _depths(self, holders: Iterable[int]) -> dict[RankId, int]:
        """How many leading blocks each rank holds, of blocks whose ranks come as bits; reads no further than needed."""
        depths: dict[RankId, int] = {}
        alive, depth = -1, 0
        for held in holders:
            left = held if alive < 0 else alive & held
            if left != alive:
                if depth:
                    self._note(depths, alive & ~left, depth)
                if not left:
                    return depths
                alive = left
            depth += 1
        if depth:
            self._note(depths, alive, depth)
        return depths

    def _note(self, depths: dict[RankId, int], bits: int, depth: int) -> None:
        while bits:
            lowest = bits & -bits
            depths[self._ranks[lowest.bit_length() - 1]] = depth
            bits ^= lowest

    def _bit(self, rank: RankId) -> int:
        bit = self._bits.get(rank)
        if bit is None:
            bit = self._bits[rank] = 1 << len(self._ranks)
            self._ranks.append(rank)
        return bit
