"""The KV blocks of one rank: who holds them, what they contain, and which can be found again by their tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """Whole blocks of one request can be found from now on."""

    hashes: list[int]
    parent: int | None
    token_ids: list[int]
    extra_keys: list[list[str] | None]


@dataclass(frozen=True, slots=True)
class BlockRemoved:
    """A block was given to someone else."""

    hash: int


@dataclass(frozen=True, slots=True)
class AllCleared:
    """No block can be found any more."""


class BlockPool:
    """Blocks 1 to num_blocks - 1; free ones keep their contents until they are given away, least recently used first.

    Source of the order: vLLM 0.32.0, v1/core/block_pool.py: a request's blocks are freed from its end.
    """

    def __init__(self, num_blocks: int, *, caching: bool) -> None:
        self.num_blocks = num_blocks
        self.caching = caching
        self.contents = [0] * num_blocks
        self.events: list[BlocksStored | BlockRemoved | AllCleared] = []
        """since they were last taken"""
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self._holders = [0] * num_blocks
        self._hashes: list[int | None] = [None] * num_blocks
        self._cached: dict[int, list[int]] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Hashes that can be found."""
        return len(self._cached)

    @property
    def usage(self) -> float:
        """Share of blocks that are held, 0 to 1."""
        return 1.0 - len(self._free) / (self.num_blocks - 1)

    def allocate(self, num_blocks: int) -> list[int] | None:
        """So many blocks for one holder; None when there are too few."""
        if num_blocks > len(self._free):
            return None
        taken = [self._free.popitem(last=False)[0] for _ in range(num_blocks)]
        for block in taken:
            self._holders[block] = 1
            if self._hashes[block] is not None:
                self._forget(block)
        return taken

    def matched(self, hashes: Sequence[int]) -> list[int]:
        """Blocks that hold the longest known beginning of a chain; `hold` them before anything is allocated."""
        found: list[int] = []
        for block_hash in hashes:
            blocks = self._cached.get(block_hash)
            if blocks is None:
                break
            found.append(blocks[0])
        return found

    def hold(self, blocks: Iterable[int]) -> None:
        """One more holder of these blocks."""
        for block in blocks:
            if self._holders[block] == 0:
                del self._free[block]
            self._holders[block] += 1

    def num_unheld(self, blocks: Iterable[int]) -> int:
        """How many of these blocks are free now: holding them makes fewer free."""
        return sum(self._holders[block] == 0 for block in blocks)

    def release(self, blocks: Sequence[int]) -> None:
        """One holder fewer; a block without holders may be given away, the last of a request first."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None

    def store(self, blocks: Sequence[int], stored: BlocksStored) -> None:
        """These whole blocks can be found by their hashes from now on."""
        for block, block_hash in zip(blocks, stored.hashes, strict=True):
            self._hashes[block] = block_hash
            self._cached.setdefault(block_hash, []).append(block)
        self.events.append(stored)

    def clear(self) -> bool:
        """Forget every hash; refused while a block is held."""
        if len(self._free) != self.num_blocks - 1:
            return False
        self._hashes = [None] * self.num_blocks
        self._cached.clear()
        if self.caching:
            self.events.append(AllCleared())
        return True

    def take_events(self) -> list[BlocksStored | BlockRemoved | AllCleared]:
        """What happened since the last call."""
        events, self.events = self.events, []
        return events

    def _forget(self, block: int) -> None:
        block_hash = self._hashes[block]
        assert block_hash is not None
        self._hashes[block] = None
        blocks = self._cached[block_hash]
        blocks.remove(block)
        if not blocks:
            del self._cached[block_hash]
        self.events.append(BlockRemoved(block_hash))
