"""One role's pool as a workload sees it: what fits, how fast a step is, and the tokens a second that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baton.base.errors import ConfigError
from baton.perf.cost import Cost, total_s
from baton.perf.step_time import Rank
from baton.plan.question import Question
from baton.plan.room import Room, room
from baton.plan.setup import Setup

_BATCHES = np.unique(np.geomspace(1, 4096, 40).round())
_OCCUPIED = 0.95
"""share of the KV room that a full batch takes on average: lengths differ, and who finds no block is preempted"""


class DoesNotFitError(ConfigError):
    """A rank of this setup has no room for the workload; the message is the sum."""


@dataclass(frozen=True)
class Pool:
    """A setup that serves its role of a question."""

    question: Question
    setup: Setup

    @cached_property
    def rank(self) -> Rank:
        """What predicts a step."""
        q = self.question
        return Rank(q.model, q.gpu, q.factors, self.setup.layout, q.engine, q.rehearsed)

    @cached_property
    def room(self) -> Room:
        """What a rank holds and has left."""
        return room(self.question.model, self.question.gpu, self.setup)

    def check_fit(self, tokens: float) -> None:
        """Raise DoesNotFitError if a rank has not room for KV of that many tokens."""
        if self.room.kv_tokens < tokens:
            left = self.room.left_bytes / 1e9
            raise DoesNotFitError(
                f"{self.setup.role} {self.setup.describe()} on {self.question.accelerator}: does not fit, {left:.1f} "
                f"GB left per rank for KV of {tokens:.0f} tokens: {self.room.explain()}"
            )

    def prefill_step_s(self, tokens: float, isl: float | None = None) -> float:
        """Seconds of one prefill step of `tokens` tokens a rank."""
        return total_s(self.prefill_costs(tokens, isl))

    def prefill_costs(self, tokens: float | None = None, isl: float | None = None) -> tuple[Cost, ...]:
        """The ledger of a full prefill step."""
        q = self.question
        isl = isl or q.isl
        return self.rank.prefill(tokens or self.setup.max_num_batched_tokens, isl, q.hit_rate * isl)

    @cached_property
    def prompts_per_s(self) -> float:
        """Prompts a second of one replica whose every step is full."""
        chunk, new = self.setup.max_num_batched_tokens, self.question.isl * (1 - self.question.hit_rate)
        return self.setup.layout.dp_size * chunk / new / self.prefill_step_s(chunk)

    def decode_costs(self, batch: float) -> tuple[Cost, ...]:
        """The ledger of a decode step of `batch` requests a rank, in the middle of their answers."""
        return self.rank.decode(batch, self.question.context)

    @cached_property
    def max_batch(self) -> float:
        """Requests a rank can hold at once: its limit, or its room for KV."""
        return min(float(self.setup.max_num_seqs), _OCCUPIED * self.room.kv_tokens / self.question.context)

    @cached_property
    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        batches = np.append(_BATCHES[self.max_batch > _BATCHES], max(1.0, self.max_batch))
        return batches, np.array([total_s(self.decode_costs(float(batch))) for batch in batches])

    def decode_step_s(self, batch: float) -> float:
        """Seconds of one decode step, between the batches that were worked out."""
        return float(np.interp(batch, *self._curve))

    def tpot_s(self, batch: float) -> float:
        """Seconds an output token of one request."""
        return self.decode_step_s(batch) / self.setup.layout.tokens_a_step

    def batch_at(self, tpot_s: float | None) -> float:
        """The largest batch a rank whose time per output token is within `tpot_s`; 0 if none is."""
        batches, steps_s = self._curve
        limit_s = np.inf if tpot_s is None else tpot_s * self.setup.layout.tokens_a_step
        if steps_s[0] > limit_s:
            return 0.0
        return float(batches[-1]) if steps_s[-1] <= limit_s else float(np.interp(limit_s, steps_s, batches))

    def answers_per_s(self, batch: float) -> float:
        """Answers a second of one replica with `batch` requests a rank."""
        if batch <= 0:
            return 0.0
        return self.setup.layout.dp_size * batch / (self.question.osl * self.tpot_s(batch))
