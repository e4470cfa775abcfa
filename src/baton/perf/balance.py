"""How tokens that wait lie on the ranks of a pool whose router keeps what waits even."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baton.perf.queueing import Floats, Lengths


@dataclass(frozen=True, slots=True)
class Balance:
    """Prompts on `num_ranks` ranks that each take `max_tokens` a step, `lockstep_group` of them in lockstep.

    mean, met: mean tokens to compute of a prompt, and of the prompt that a token is of. Ranks are within one prompt of
    each other: whole prompts where all are alike and fit a step, otherwise anywhere in a range as wide as `met`.
    """

    num_ranks: int
    lockstep_group: int
    max_tokens: float
    new: Floats
    shares: Floats
    mean: float
    met: float

    @classmethod
    def of(
        cls, lengths: Lengths, *, hit_rate: float, num_ranks: int, lockstep_group: int, max_tokens: float
    ) -> Balance:
        """Return the balance of prompts of which `hit_rate` is cached."""
        new = np.maximum(1.0, lengths.isl * (1 - hit_rate))
        mean = float(lengths.shares @ new)
        met = float(lengths.shares @ new**2) / mean
        return cls(num_ranks, lockstep_group, max_tokens, new, lengths.shares, mean, met)

    @property
    def is_whole(self) -> bool:
        """Whether ranks differ by whole prompts."""
        return len(self.new) == 1 and self.mean <= self.max_tokens

    @property
    def _half(self) -> float:
        return self.met * (self.num_ranks - 1) / (2 * self.num_ranks)

    def lowest(self, total: Floats) -> Floats:
        """Tokens on the rank that the next prompt joins, of `total` in the pool."""
        if self.is_whole:
            return np.asarray(np.floor(total / (self.num_ranks * self.mean) + 1e-6) * self.mean)
        return np.asarray(np.maximum(0.0, total / self.num_ranks - self._half))

    def highest(self, total: Floats) -> Floats:
        """Tokens on the fullest rank of a group."""
        if self.num_ranks == 1:
            return total
        each, group = total / self.num_ranks, self.lockstep_group
        if self.is_whole:
            prompts = each / self.mean
            whole = np.floor(prompts + 1e-6)
            part = np.clip(prompts - whole, 0.0, 1.0)
            return np.asarray((whole + 1 - (1 - part) ** group) * self.mean)
        in_group = np.maximum(1.0, each * group / self.mean)
        spread = np.maximum(self._longest(in_group), each + self._half * (group - 1) / group)
        return np.asarray(np.minimum(total, spread))

    def served(self, total: Floats) -> Floats:
        """Tokens that a step of all ranks computes; ranks below their limit leave room that others lack."""
        each, half = total / self.num_ranks, self._half
        if half == 0:
            return np.asarray(np.minimum(total, self.max_tokens))
        over = np.clip(each + half - self.max_tokens, 0.0, 2 * half)
        left = np.where(each - half >= self.max_tokens, each - self.max_tokens, over**2 / (4 * half))
        return np.asarray(total - self.num_ranks * left)

    def _longest(self, number: Floats) -> Floats:
        """Mean of the longest of so many prompts."""
        order = np.argsort(self.new)
        below = np.cumsum(self.shares[order])[None, :] ** number[:, None]
        return np.asarray(np.diff(below, prepend=0.0, axis=1) @ self.new[order])
