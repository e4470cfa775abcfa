"""What a step of a rank holds, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterable

from baton.engine.stand_in.config import StepTime
from baton.engine.stand_in.sequence import Sequence


def step_s(parts: Iterable[tuple[Sequence, int]], step_time: StepTime) -> float:
    """Seconds of a step that computes so many tokens of each of these sequences."""
    prefill_tokens = prefill_context = num_running = context_tokens = 0
    for sequence, num_tokens in parts:
        given = sequence.num_prompt - sequence.fetched  # the last token of a prompt that was fetched is computed
        if num_tokens == 1 and sequence.num_computed >= given:
            num_running += 1
            context_tokens += sequence.num_computed
        else:
            prefill_tokens += num_tokens
            prefill_context += num_tokens * sequence.num_computed
    return step_time.step_s(prefill_tokens, prefill_context, num_running, context_tokens)
