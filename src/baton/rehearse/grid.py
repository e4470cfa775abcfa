"""The points that a rehearsal measures: batch and context in decode, chunk and prompt length in prefill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baton.recipe.deployment import EngineSpec
from baton.recipe.recipe import Role

_MAX_NUM_SEQS, _MAX_NUM_BATCHED_TOKENS = 256, 8192
_LENGTHS = (1024, 2048, 4096, 8192)
_BATCHES = (1, 8, 32, 64, 128, 256, 512, 1024)
_CHUNKS = (512, 2048, 4096, 8192, 16384, 32768)
_WARM_STEPS, _MARGIN_TOKENS = 4, 128


def points(
    engine: EngineSpec,
    max_model_len: int,
    *,
    batches: Sequence[int],
    lengths: Sequence[int],
    chunks: Sequence[int],
    steps: int,
) -> list[dict[str, Any]]:
    """Return every combination; where a list is empty, what the engine's own limits allow.

    A point is a mapping as probe.py reads it. Lengths that the model's limit forbids are left out.
    """
    longest = max_model_len - 2 * (steps + _WARM_STEPS) - 16
    usual = [length for length in _LENGTHS if length <= longest] or [max(16, longest // 2)]
    if engine.role is Role.DECODE:
        most = int(str(engine.flags.get("max-num-seqs", _MAX_NUM_SEQS)))
        sizes = batches or [size for size in _BATCHES if size <= most]
        return [
            {"role": "decode", "batch": batch, "context": context, "warm_steps": _WARM_STEPS, "steps": steps}
            for context in lengths or usual
            for batch in sizes
        ]
    most = int(str(engine.flags.get("max-num-batched-tokens", _MAX_NUM_BATCHED_TOKENS)))
    sizes = chunks or [size for size in _CHUNKS if size <= most][-2:] or [most]
    return [
        {"role": "prefill", "chunk": chunk, "isl": isl, "steps": steps} for isl in lengths or usual for chunk in sizes
    ]
