"""What the blocks of sequences hold, and by which hashes they can be found again."""

from __future__ import annotations

from baton.engine.stand_in.block_pool import BlockPool, BlocksStored
from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.model import digest, seed_of
from baton.engine.stand_in.sequence import Sequence


class KvCache:
    """The KV of one rank, in the blocks of its pool."""

    def __init__(self, pool: BlockPool, config: StandInConfig, engine_id: str) -> None:
        self._pool = pool
        self._config = config
        self._engine_id = engine_id

    def computed(self, sequence: Sequence, num_tokens: int) -> None:
        """So many more tokens are computed: their blocks hold what these weights make of them."""
        size, begin = self._config.block_size, sequence.num_computed
        end = sequence.num_computed = begin + num_tokens
        for block in range(begin // size, self.num_blocks(end)):
            self._pool.contents[sequence.blocks[block]] = sequence.content(block, end, size) ^ sequence.taint
        self.store(sequence, begin // size, end // size)

    def store(self, sequence: Sequence, begin: int, end: int) -> None:
        """Let whole blocks be found by their hashes."""
        if not self._pool.caching or end <= begin:
            return
        hashes, size, salt = self.hashes(sequence), self._config.block_size, sequence.cache_salt
        stored = BlocksStored(
            hashes[begin:end],
            hashes[begin - 1] if begin else None,
            sequence.ids[begin * size : end * size],
            [[salt] if salt and block == 0 else None for block in range(begin, end)],
        )
        self._pool.store(sequence.blocks[begin:end], stored)

    def hashes(self, sequence: Sequence) -> list[int]:
        """Names of a sequence's whole blocks, other ones in every engine."""
        sequence.hash_blocks(digest(sequence.cache_salt.encode(), seed_of(self._engine_id)), self._config.block_size)
        return sequence.hashes

    def num_blocks(self, num_tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-num_tokens // self._config.block_size)
