"""Which ranks hold which KV blocks, as the ranks' own events say: the prefix index of the exact mode.

An engine names a block by a hash that means nothing outside its process; its event also says which tokens the block
holds and which block it follows. So every told block has a place in our own chain of hashes (policy/prompt.py).

What a rank is thought to hold is one of two things:
- told     the rank's events say so. Nothing but its events, or the end of their trail, takes that back.
- guessed  the router has sent it there, and the rank has not spoken of it since. Without guesses a burst of prompts
           that begin alike would scatter: all are routed before the first event is here. A guess ends when the rank
           tells of the block, when the router takes it back, or when newer guesses push it out.
Ranks that publish nothing are guessed at for ever, as in the index this one extends.

Invariants
  Told may fall short of the truth, after a gap or for want of room; it exceeds it only by events still under way.
  An engine may hold a block twice and tells so; the block is held until both copies are removed.

A request with vLLM's `kv_cache_report_mode` at `full` has blocks told again that are there once; those look like second
copies, and stay here until the rank's cache is cleared. The gateway refuses it; who asks an engine directly may set it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from baton.policy.prefix_index import PrefixIndex
from baton.policy.prompt import continued, keyed, root
from baton.policy.rank import RankId

EngineHash: TypeAlias = int | bytes
"""An engine's own name of a block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBlocks:
    """Blocks an engine says it has computed.

    hashes      the engine's, one a block
    parent      the block before the first; None at the start of a prompt
    token_ids   of all of them: `block_size` a block
    keys        what else must be equal to share a block, one a block, b"" for nothing; empty for nothing at all
    group       models of several kinds of attention keep several caches; the same hash may be in each
    """

    hashes: Sequence[EngineHash]
    parent: EngineHash | None
    token_ids: Sequence[int]
    block_size: int
    keys: Sequence[bytes] = ()
    group: int | None = None


@dataclass(slots=True)
class _Told:
    """What one rank has told: the place of each of its blocks, and copies beyond the first."""

    bit: int
    guesses: bool
    chain: dict[EngineHash, int] = field(default_factory=dict)
    more: dict[EngineHash, int] = field(default_factory=dict)
    sizes: Counter[int] = field(default_factory=Counter)
    groups: set[int | None] = field(default_factory=set)
    """the one group that is listened to, once it is known: the first that is told of"""


@dataclass(slots=True)
class ExactCounts:
    """Blocks told of that the index could not use: their parent is not known, there is no room, or they make no sense;
    and those of groups that are not listened to.
    """

    unknown_parent: int = 0
    refused: int = 0
    malformed: int = 0
    other_group: int = 0


class ExactPrefixes(PrefixIndex):
    """A prefix index that believes ranks which tell of their blocks.

    max_guessed_blocks   as of PrefixIndex
    max_told_blocks      of one rank; above its cache's number of blocks it is never reached
    """

    def __init__(self, max_guessed_blocks: int, max_told_blocks: int = 1 << 18) -> None:
        super().__init__(max_guessed_blocks)
        self.counts = ExactCounts()
        self.block_size = 0
        """Tokens a block, of most blocks told; 0 before the first."""
        self._max_told = max_told_blocks
        self._told: dict[RankId, _Told] = {}
        self._held: dict[int, int] = {}
        self._sizes: Counter[int] = Counter()

    def __len__(self) -> int:
        """Blocks that are remembered, told or guessed."""
        return super().__len__() + len(self._held)

    # -- the rank's own word --------------------------------------------------------------------------------------

    def follow(self, rank: RankId, *, guesses: bool) -> None:
        """Say that this rank tells of its blocks; `guesses`: what is routed there counts until it does."""
        self._told.setdefault(rank, _Told(self._bit(rank), guesses))

    def num_told(self, rank: RankId) -> int:
        """Blocks that a rank has told of and still holds, copies not counted."""
        told = self._told.get(rank)
        return len(told.chain) if told else 0

    def told_stored(self, rank: RankId, blocks: StoredBlocks) -> None:
        """A followed rank has stored blocks."""
        told, size, count = self._told[rank], blocks.block_size, len(blocks.hashes)
        if size < 1 or len(blocks.token_ids) != count * size or len(blocks.keys) not in (0, count):
            self.counts.malformed += count
            return
        if not told.groups:
            told.groups.add(blocks.group)
        if blocks.group not in told.groups:
            self.counts.other_group += count
            return
        before = root() if blocks.parent is None else told.chain.get(blocks.parent)
        if before is None:
            self.counts.unknown_parent += count
            return
        chain = _chain(before, blocks)
        told.sizes[size] += count
        self._sizes[size] += count
        if self._sizes[size] > self._sizes[self.block_size]:
            self.block_size = size
        places, held, bit, room = told.chain, self._held, told.bit, self._max_told - len(told.chain)
        for i, (name, block) in enumerate(zip(blocks.hashes, chain, strict=True)):
            if name in places:
                told.more[name] = told.more.get(name, 0) + 1
            elif room <= 0:
                self.counts.refused += count - i
                break
            else:
                room -= 1
                places[name] = block
                held[block] = held.get(block, 0) | bit
        super().removed(rank, chain)

    def told_removed(self, rank: RankId, hashes: Iterable[EngineHash], group: int | None = None) -> None:
        """A followed rank has removed one copy of each of these blocks."""
        told = self._told[rank]
        if group not in told.groups:
            return
        for name in hashes:
            copies = told.more.get(name)
            if copies is not None:
                if copies > 1:
                    told.more[name] = copies - 1
                else:
                    del told.more[name]
                continue
            block = told.chain.pop(name, None)
            if block is not None:
                self._drop(block, told.bit)
                super().removed(rank, (block,))

    def told_cleared(self, rank: RankId) -> None:
        """A followed rank holds nothing, or nothing that is known; what is guessed of it goes too."""
        told = self._told[rank]
        for block in told.chain.values():
            self._drop(block, told.bit)
        self._sizes.subtract(told.sizes)
        if not self._sizes[self.block_size]:
            self.block_size = max(self._sizes, key=lambda size: self._sizes[size]) if +self._sizes else 0
        self._told[rank] = _Told(told.bit, told.guesses)
        super().cleared(rank)

    # -- the router's ---------------------------------------------------------------------------------------------

    def stored(self, rank: RankId, chain: Sequence[int]) -> None:
        """The router guesses that a rank holds the blocks of this chain; no guess is kept of what the rank tells."""
        told = self._told.get(rank)
        if told is None:
            super().stored(rank, chain)
        elif told.guesses:
            held, bit = self._held, told.bit
            super().stored(rank, [block for block in chain if not held.get(block, 0) & bit])

    def matched(self, chain: Sequence[int]) -> dict[RankId, int]:
        """How many leading blocks of a chain each rank holds, told or guessed."""
        held, young, old = self._held.get, self._young.get, self._old.get
        return self._depths(held(block, 0) | (young(block) or old(block, 0)) for block in chain)

    # `removed` and `cleared`, as the router calls them, take back guesses only: whether a rank's process is still the
    # one that told, the trail of its events shows.

    def _drop(self, block: int, bit: int) -> None:
        left = self._held.get(block, 0) & ~bit
        if left:
            self._held[block] = left
        else:
            self._held.pop(block, None)


def _chain(before: int, blocks: StoredBlocks) -> list[int]:
    """The places of stored blocks in our chain."""
    if not any(blocks.keys):
        return continued(before, blocks.token_ids, blocks.block_size)
    chain: list[int] = []
    for i, key in enumerate(blocks.keys):
        tokens = blocks.token_ids[i * blocks.block_size : (i + 1) * blocks.block_size]
        chain += continued(keyed(before, key) if key else before, tokens, blocks.block_size)
        before = chain[-1]
    return chain
