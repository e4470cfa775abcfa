"""How long a prompt waits for its prefill: a pool of ranks that take what waits, so many tokens of it a step.

The router sends a prompt where the fewest tokens wait, then where the fewest run; vLLM's own did so by requests, 4 x
waiting + running, up to 0.24.0, and from 0.28.0 on by waiting + running while the KV cache is at most half full
(vllm/v1/engine/core_client.py). Under a rule of the second kind what waits is uneven, and steps of a lockstep group are
longer than said here: with the fewest tokens outstanding as the rule, simulated p50 of TTFT was 2 to 4 times as long at
loads of 0.5 and 0.7 (prompts of 2,000 tokens, groups of 8 and 16).

The ranks of a lockstep group begin and end their steps together. One group: the embedded chain of backlog.py. Several:
a prompt that finds a group idle starts at once, the others see the pool as one (resource pooling of least-loaded
routing; the chance that all are busy is a birth-death chain's, Erlang C where no batch forms).

Against simulation (tests/unit/perf, benchmarks/queueing.py), up to a load of 0.9 and Poisson arrivals of prompts alike:
p50 and p90 within 15% or half a full step, p99 within 25% (35% at 0.9). Mixed lengths or bursts (CV2 = 4), up to a load
of 0.7: p50 and p90 within 30% or half a full step, p99 within 40%. Nothing is promised of them at 0.9: errors of half
the value were seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baton.base.errors import ConfigError
from baton.perf.backlog import backlog
from baton.perf.balance import Balance
from baton.perf.queueing import NEVER, Floats, Lengths, Quantiles, dispersion, highest_normal, quantiles

_CURVE_POINTS = 12
_OWN_LENGTHS = 4
_MOMENTS = 4
_EXACT_LENGTHS = 8
"""points of a step's curve, classes of the own prompt, moments of a step, lengths that have steps of their own"""
_IN_SYSTEM = 1.5
"""prompts in a group over those of its running step: what runs, and what has come in half a step"""


@dataclass(frozen=True, slots=True)
class PoolWait:
    """What prompts see of a prefill pool.

    utilisation: the rate over saturation_per_s, the most prompts a second. queue_s: until a prompt's first token is
    computed. service_s: TTFT of a prompt that finds the pool empty. ttft_s: from arrival to the end of its last step.
    """

    utilisation: float
    saturation_per_s: float
    queue_s: Quantiles
    service_s: Quantiles
    ttft_s: Quantiles


@dataclass(frozen=True)
class PrefillPool:
    """A prefill pool; step_s(tokens, isl) are the seconds of one rank's step of `tokens` tokens of prompts of `isl`.

    It is asked some 20 times, once a pool; `isl` is the mean over tokens. arrival_cv2: of the gaps between arrivals.
    hit_rate: share of every prompt that is cached. Raises ConfigError for sizes that cannot be.
    """

    num_ranks: int
    lengths: Lengths
    step_s: Callable[[float, float], float]
    max_batched_tokens: int
    arrival_cv2: float = 1.0
    hit_rate: float = 0.0
    lockstep_group: int = 1

    def __post_init__(self) -> None:
        if self.num_ranks < 1 or self.lockstep_group < 1 or self.num_ranks % self.lockstep_group:
            raise ConfigError(
                f"{self.num_ranks} ranks in lockstep groups of {self.lockstep_group}: "
                "give a multiple of the group, at least 1"
            )
        if self.max_batched_tokens < 1 or not 0 <= self.hit_rate < 1 or not 0 < self.arrival_cv2 < math.inf:
            raise ConfigError(
                f"max_batched_tokens {self.max_batched_tokens}, hit_rate {self.hit_rate}, "
                f"arrival_cv2 {self.arrival_cv2}: "
                "they must be at least 1, from 0 to below 1, and above 0"
            )

    def at(self, rate_per_s: float) -> PoolWait:
        """Return what prompts see at `rate_per_s` prompts a second over the whole pool."""
        load = rate_per_s / self.saturation_per_s
        if load >= 1:
            return PoolWait(load, self.saturation_per_s, NEVER, self.service_s, NEVER)
        if rate_per_s <= 0:
            return PoolWait(0.0, self.saturation_per_s, Quantiles(0.0, 0.0, 0.0), self.service_s, self.service_s)
        queues_s, ttfts_s, weights, idle = self._met_in_steps(rate_per_s, load)
        if self.num_ranks > self.lockstep_group:
            busy = self._all_busy(rate_per_s, load)
            idle = float(weights.sum()) * (1 - busy) / busy
        weights = np.append(weights, self._balance.shares * idle)
        queue_s = quantiles(np.append(queues_s, np.zeros(len(self._alone_s))), weights)
        ttft_s = quantiles(np.append(ttfts_s, self._alone_s), weights)
        return PoolWait(load, self.saturation_per_s, queue_s, self.service_s, ttft_s)

    @cached_property
    def saturation_per_s(self) -> float:
        """Prompts a second with every step of every rank full."""
        return self.num_ranks * self.max_batched_tokens / self._balance.mean / self._full_s

    @cached_property
    def service_s(self) -> Quantiles:
        """TTFT of a prompt that finds the pool empty."""
        return quantiles(self._alone_s, self.lengths.shares)

    @cached_property
    def _balance(self) -> Balance:
        return Balance.of(
            self.lengths, hit_rate=self.hit_rate, num_ranks=self.num_ranks, lockstep_group=self.lockstep_group,
            max_tokens=float(self.max_batched_tokens),
        )  # fmt: skip

    @cached_property
    def _slowest(self) -> float:
        """Mean tokens of the prompt that a token is of, on the rank of a group whose prompts are longest."""
        balance = self._balance
        if self.lockstep_group == 1:
            return balance.met
        square = float(self.lengths.shares @ balance.new**3) / balance.mean
        sd = math.sqrt(max(0.0, square - balance.met**2) / max(1.0, self.max_batched_tokens / balance.met))
        return min(float(balance.new.max()), balance.met + highest_normal(self.lockstep_group) * sd)

    @cached_property
    def _curve(self) -> tuple[Floats, Floats]:
        """Tokens and seconds of a step; one with fewer tokens than most prompts is one prompt's."""
        most, met, kept = float(self.max_batched_tokens), self._slowest, 1 - self.hit_rate
        shortest = float(self._balance.new.min())
        rest = float((self._balance.new - self._full_steps * most).min())
        tokens = np.geomspace(min(shortest, rest), most, _CURVE_POINTS)
        steps = [self.step_s(one, (one if shortest <= one < min(met, most) else met) / kept) for one in tokens.tolist()]
        return tokens, np.maximum.accumulate(np.array(steps))

    def _steps_s(self, tokens: Floats) -> Floats:
        return np.interp(tokens, *self._curve)

    @cached_property
    def _full_s(self) -> float:
        return float(self._curve[1][-1])

    @cached_property
    def _alone_s(self) -> Floats:
        """TTFT of a prompt of each length, alone."""
        rest = self._balance.new - self._full_steps * self.max_batched_tokens
        if len(rest) > _EXACT_LENGTHS:
            return np.asarray(self._full_steps * self._full_s + self._steps_s(rest))
        pairs = zip(self._full_steps.tolist(), rest.tolist(), self.lengths.isl.tolist(), strict=True)
        most = float(self.max_batched_tokens)
        return np.array(
            [(full * self.step_s(most, isl) if full else 0.0) + self.step_s(last, isl) for full, last, isl in pairs]
        )

    @cached_property
    def _full_steps(self) -> Floats:
        """Full steps of a prompt of each length, alone, before its last."""
        return np.asarray(np.ceil(self._balance.new / self.max_batched_tokens) - 1)

    def _relaxation_s(self, load: float) -> float:
        """How long a burst is felt: the wider the window, the more uneven are arrivals that come in bursts."""
        return max(self._full_s, float(self._alone_s @ self.lengths.shares)) / (1 - load)

    @cached_property
    def _own(self) -> tuple[Floats, Floats]:
        """The lengths of a prompt in at most a few classes of like length, and their shares."""
        order = np.argsort(self._balance.new)
        new, shares = self._balance.new[order], self.lengths.shares[order]
        if len(new) <= _OWN_LENGTHS:
            return new, shares
        middles = np.cumsum(shares) - shares / 2
        classes = np.minimum(_OWN_LENGTHS - 1, (middles * _OWN_LENGTHS).astype(np.intp))
        sums = np.bincount(classes, shares, _OWN_LENGTHS)
        means = np.bincount(classes, shares * new, _OWN_LENGTHS)
        return means[sums > 0] / sums[sums > 0], sums[sums > 0]

    def _met_in_steps(self, rate_per_s: float, load: float) -> tuple[Floats, Floats, Floats, float]:
        """Queue, TTFT and weight of prompts that arrive while a step runs, and the weight of the others.

        Axes: the step met, the moment in it, the own length. Those that came earlier in the step are before it.
        """
        balance, most, full_s = self._balance, float(self.max_batched_tokens), self._full_s
        bursts = dispersion(self.arrival_cv2, rate_per_s, self._relaxation_s(load))
        met = backlog(balance, self._steps_s, rate_per_s, bursts, load)
        moments = ((np.arange(_MOMENTS) + 0.5) / _MOMENTS)[None, :, None]
        own, shares = self._own
        left, arrived = met.left[:, None, None], met.arrived[:, None, None]
        rest_s = met.steps_s[:, None, None] * (1 - moments)
        before = balance.lowest(left + moments * np.maximum(0.0, arrived - 1) * balance.mean)
        until = before + own
        full = np.ceil(until / most - 1e-9) - 1
        total = left + (arrived + full * full_s * rate_per_s) * balance.mean
        fullest = balance.highest(total.ravel()).reshape(total.shape)
        last = np.minimum(most, np.maximum(until, fullest) - full * most)
        queue_s = rest_s + np.floor(before / most + 1e-9) * full_s
        ttft_s = rest_s + full * full_s + self._steps_s(last)
        weights = np.broadcast_to(met.weights[:, None, None] / _MOMENTS * shares, ttft_s.shape)
        return np.broadcast_to(queue_s, ttft_s.shape).ravel(), ttft_s.ravel(), weights.ravel(), met.idle

    def _all_busy(self, rate_per_s: float, load: float) -> float:
        """The chance that a prompt finds every group busy."""
        groups, balance = self.num_ranks // self.lockstep_group, self._balance
        number = np.arange(1.0, groups * 8 + 1)
        prompts = np.maximum(1.0, number / groups / _IN_SYSTEM)
        tokens = np.minimum(self.max_batched_tokens, np.maximum(1.0, prompts / self.lockstep_group) * balance.mean)
        batched = groups * np.minimum(prompts, self.lockstep_group * tokens / balance.mean) / self._steps_s(tokens)
        alone = 1 / float(self._alone_s @ self.lengths.shares)
        served_per_s = np.maximum.accumulate(np.where(number <= groups, number * alone, batched))
        parcel = dispersion(self.arrival_cv2, rate_per_s, self._relaxation_s(load)) + balance.met / balance.mean - 1
        power = np.where(number <= groups, 2 / (1 + parcel), 2 / max(parcel, 1.0))
        logs = np.append(0.0, np.cumsum(power * np.log(rate_per_s / served_per_s)))
        chances = np.exp(logs - logs.max())
        return max(1e-9, float(chances[groups:].sum() / chances.sum()))
