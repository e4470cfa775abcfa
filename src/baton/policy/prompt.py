"""A prompt as a chain of hashes: block i's hash stands for all of the prompt up to the end of block i.

Two prompts that begin alike have chains that begin alike. Hashes are 64 bits; a collision costs a misjudged cache hit,
never a wrong answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest


def text_chain(seed: bytes, text: bytes, block_bytes: int) -> list[int]:
    """Hashes of the whole blocks of a text; what is left over at its end belongs to none.

    seed   whatever else decides what the first block means, such as the tools of a conversation
    """
    before, chain = xxh3_64_intdigest(seed), []
    view = memoryview(text)
    for start in range(0, len(text) - block_bytes + 1, block_bytes):
        before = xxh3_64_intdigest(view[start : start + block_bytes], before)
        chain.append(before)
    return chain


def token_chain(seed: bytes, token_ids: Sequence[int], block_size: int) -> list[int]:
    """Hashes of the whole KV blocks of a prompt's tokens."""
    return continued(root(seed), token_ids, block_size)


def continued(before: int, token_ids: Sequence[int], block_size: int) -> list[int]:
    """Hashes of the whole KV blocks of tokens that follow the block hashed `before`."""
    block_bytes, chain = 8 * block_size, []
    packed = memoryview(array("q", token_ids)).cast("B")
    for start in range(0, len(packed) - block_bytes + 1, block_bytes):
        before = xxh3_64_intdigest(packed[start : start + block_bytes], before)
        chain.append(before)
    return chain


def root(seed: bytes = b"") -> int:
    """What the first block of a prompt follows."""
    return xxh3_64_intdigest(seed)


def keyed(before: int, key: bytes) -> int:
    """What a block follows that only requests with this key may share, such as a salt, an image or an adapter."""
    return xxh3_64_intdigest(key, before)
