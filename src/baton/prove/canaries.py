"""The sixteen requests of a proof: eight shapes, each twice with different contents and equal length.

Equal lengths side by side are what tells exchanged KV blocks from right ones; lengths around a multiple of the block
size are where off-by-one errors live. Every prompt begins with a nonce, so no prefix cache can answer for the hand-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from baton.engine.canary import Canary

LONG_BLOCKS = 30
"""Blocks of the longest prompt, where the model's context allows it."""


def text_canary(random: Random, num_sums: int) -> str:
    """A nonced text of `num_sums` small sums: what tiny-r1 knows, and any model can continue."""
    sums = (f"{random.randrange(1000)} + {random.randrange(1000)}" for _ in range(num_sums))
    return f"{random.getrandbits(64):016x}. What is " + "? What is ".join(sums) + "?"


def shapes(block_size: int, max_model_len: int) -> list[tuple[str, int, int]]:
    """(name, prompt tokens, output tokens) of the completions canaries; all fit `max_model_len`."""
    b = block_size
    wanted = [
        ("short", min(5, b), 8),
        ("a block less 1", max(b - 1, 1), 6),
        ("exactly a block", b, 6),
        ("a block and 1", b + 1, 6),
        ("4 blocks", 4 * b, 12),
        ("7 blocks and 5", 7 * b + 5, 16),
        ("long", LONG_BLOCKS * b + 1, 8),
    ]
    return [(name, max(1, min(isl, max_model_len - osl)), osl) for name, isl, osl in wanted]


def canaries(
    random: Random, block_size: int, max_model_len: int, token_ids: Sequence[Sequence[int]]
) -> list[tuple[Canary, Canary]]:
    """The eight pairs; `token_ids` are two nonced texts' tokens, each at least as long as the longest prompt."""
    pairs = [
        (
            Canary(name=f"{name}, a", prompt=_cut(token_ids[0], i, isl), osl=osl),
            Canary(name=f"{name}, b", prompt=_cut(token_ids[1], i, isl), osl=osl),
        )
        for i, (name, isl, osl) in enumerate(shapes(block_size, max_model_len))
    ]
    first, second = (
        [{"role": "user", "content": f"What is {random.randrange(100, 1000)} + {random.randrange(100, 1000)}?"}]
        for _ in range(2)
    )
    pairs.append((Canary(name="chat, a", prompt=first, osl=24), Canary(name="chat, b", prompt=second, osl=24)))
    return pairs


def _cut(token_ids: Sequence[int], start: int, length: int) -> list[int]:
    """`length` tokens from `start` on: each canary begins elsewhere in the nonced text, so none is another's prefix."""
    return list(token_ids[start : start + length])
