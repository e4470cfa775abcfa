"""How fast answers come from a decode pool: how many requests run at once, and so how long each step takes.

All requests of a rank advance together, a token a step, so the pool is a processor-sharing queue whose speed depends on
the number in it: the law of that number depends on the lengths only by their mean (J. W. Cohen 1979, The multiple phase
service network with generalized processor sharing), and its mean obeys Little's law (1961). Where all ranks are full,
its tail is as of Kingman, and Allen and Cunneen: 2 / (CV2 of arrivals + CV2 of lengths) as steep. TPOT is a mean over
a request's life, so the law is narrowed by how fast the number forgets.

Against simulation (tests/unit/perf, benchmarks/queueing.py), up to a load of 0.9, CV2 of 1 and 4: TPOT within 6%, the
mean batch within 15%; the wait for admission where a limit binds within a factor of 2 (Poisson arrivals).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baton.base.errors import ConfigError
from baton.perf.queueing import NEVER, Floats, Lengths, Quantiles, dispersion, highest_normal, quantiles

_CURVE_POINTS = 20
_GRID = 400
_NORMAL = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
_NORMAL_WEIGHTS = np.array([0.125, 0.25, 0.25, 0.25, 0.125])
"""a normal law in five points"""
_MOMENTS = np.array([0.125, 0.375, 0.625, 0.875])


@dataclass(frozen=True, slots=True)
class DecodeWait:
    """What requests see of a decode pool.

    utilisation: the rate over saturation_per_s, the most answers a second. batch: mean requests of a rank. admission_s:
    until a request is in a step. limit: "KV room" or "batch limit", whichever is met first.
    """

    utilisation: float
    saturation_per_s: float
    batch: float
    tpot_s: Quantiles
    admission_s: Quantiles
    limit: str


@dataclass(frozen=True)
class DecodePool:
    """A decode pool; step_s(batch, context) are the seconds of one rank's step, with the mean KV tokens of a request.

    It is asked some 20 times, once a pool. max_batch: requests a rank may run. kv_tokens: KV a rank has room for;
    requests count with the mean they hold in their life. tokens_a_step: above 1 with MTP. Raises ConfigError for sizes
    that cannot be.
    """

    num_ranks: int
    lengths: Lengths
    step_s: Callable[[float, float], float]
    max_batch: int
    kv_tokens: float
    arrival_cv2: float = 1.0
    lockstep_group: int = 1
    tokens_a_step: float = 1.0

    def __post_init__(self) -> None:
        if self.num_ranks < 1 or self.lockstep_group < 1 or self.num_ranks % self.lockstep_group:
            raise ConfigError(
                f"{self.num_ranks} ranks in lockstep groups of {self.lockstep_group}: "
                "give a multiple of the group, at least 1"
            )
        if self.max_batch < 1 or self.kv_tokens < self.lengths.mean_context or self.tokens_a_step <= 0:
            raise ConfigError(
                f"max_batch {self.max_batch}, room for {self.kv_tokens:.0f} tokens of KV: a request holds "
                f"{self.lengths.mean_context:.0f} on average; give a rank room for one, and a batch of at least 1"
            )

    def at(self, rate_per_s: float) -> DecodeWait:
        """Return what requests see at `rate_per_s` requests a second over the whole pool."""
        load = rate_per_s / self.saturation_per_s
        if load >= 1:
            return DecodeWait(load, self.saturation_per_s, self.max_running, NEVER, NEVER, self.limit)
        number, chances = self._numbers(max(rate_per_s, 1e-12))
        batch = float(chances @ np.minimum(number / self.num_ranks, self.max_running))
        admission_s = self._admission_s(number, chances)
        return DecodeWait(load, self.saturation_per_s, batch, self._tpot_s(number, chances), admission_s, self.limit)

    @cached_property
    def max_running(self) -> float:
        """Requests a rank can run at once."""
        return max(1.0, min(float(self.max_batch), self.kv_tokens / self.lengths.mean_context))

    @property
    def limit(self) -> str:
        """What ends a batch's growth."""
        return "batch limit" if self.max_batch <= self.kv_tokens / self.lengths.mean_context else "KV room"

    @cached_property
    def saturation_per_s(self) -> float:
        """Answers a second with every rank as full as it can be."""
        return float(self._served_per_s(np.array([self.num_ranks * self.max_running]))[0])

    @cached_property
    def _steps(self) -> float:
        return self.lengths.mean_osl / self.tokens_a_step

    @cached_property
    def _curve(self) -> tuple[Floats, Floats]:
        batches = np.geomspace(1.0, self.max_running, _CURVE_POINTS) if self.max_running > 1 else np.array([1.0])
        steps = [self.step_s(one, self.lengths.mean_context) for one in batches.tolist()]
        return batches, np.maximum.accumulate(np.array(steps))

    @cached_property
    def _contexts(self) -> tuple[float, float]:
        """Seconds a step longer for one standard deviation more context of one request in a batch, and that batch."""
        lengths = self.lengths
        weights = lengths.shares * lengths.osl / lengths.mean_osl
        square = float(weights @ (lengths.isl**2 + lengths.isl * lengths.osl + lengths.osl**2 / 3))
        sd = math.sqrt(max(0.0, square - lengths.mean_context**2))
        batch, mean = max(1.0, self.max_running / 2), lengths.mean_context
        return self.step_s(batch, mean + sd) - self.step_s(batch, mean), batch

    def _noise_s(self, batch: Floats) -> Floats:
        """Standard deviation of a step by the contexts of its batch: sqrt(batch) of them add up."""
        slope_s, at = self._contexts
        return np.asarray(slope_s / at * np.sqrt(np.maximum(1.0, batch)))

    def _steps_s(self, number: Floats) -> Floats:
        """Seconds of a step with so many requests in the pool: of the fullest rank of a group, in lockstep."""
        group, ranks = self.lockstep_group, self.num_ranks
        batch = np.maximum(1.0, number / ranks)
        if group > 1:
            batch = np.where(number < ranks, 1.0, batch + 1 - 1 / group)
        batch = np.minimum(batch, self.max_running)
        return np.asarray(np.interp(batch, *self._curve) + highest_normal(group) * self._noise_s(batch))

    def _served_per_s(self, number: Floats) -> Floats:
        running = np.minimum(number, self.num_ranks * self.max_running)
        return np.asarray(running / (self._steps * self._steps_s(running)))

    def _numbers(self, rate_per_s: float) -> tuple[Floats, Floats]:
        """Requests in the pool, waiting ones too, and their chances: detailed balance between neighbours."""
        full = self.num_ranks * self.max_running
        found = min(self._little(rate_per_s, full), full)
        load = rate_per_s / self.saturation_per_s
        window_s = self._steps * float(self._steps_s(np.array([found]))[0])
        peaked = 1 + (dispersion(self.arrival_cv2, rate_per_s, window_s) - 1) * self._alike
        reach = (
            found
            + 8 * math.sqrt(peaked * found / max(0.02, 1 - load))
            + 12 * peaked
            + (found >= 0.8 * full) * 6 / (1 - load)
        )
        low = max(0.0, math.floor(found - 8 * math.sqrt(peaked * found / max(0.02, 1 - load)) - 4))
        stride = max(1, math.ceil((reach - low) / _GRID))
        number = np.arange(low, reach + stride, stride)
        between = (number[1:] + number[:-1] + 1) / 2
        power = np.where(between <= full, 1 / peaked, 2 / (self.arrival_cv2 + self._unlike))
        logs = np.append(0.0, np.cumsum(stride * power * np.log(rate_per_s / self._served_per_s(between))))
        chances = np.exp(logs - logs.max())
        return number, chances / chances.sum()

    @cached_property
    def _unlike(self) -> float:
        """Squared coefficient of variation of the answers' lengths."""
        return float(self.lengths.shares @ self.lengths.osl**2) / self.lengths.mean_osl**2 - 1

    @cached_property
    def _alike(self) -> float:
        """Share of bursts still seen after lives of unlike lengths: integral of the squared tail over the mean."""
        ends = np.unique(np.append(0.0, self.lengths.osl))
        tails = np.array([self.lengths.shares[self.lengths.osl > start].sum() for start in ends[:-1].tolist()])
        return float(np.diff(ends) @ tails**2 / self.lengths.mean_osl)

    def _little(self, rate_per_s: float, full: float) -> float:
        """The number in the pool that leaves as fast as requests come."""
        number = np.linspace(0.0, full, 257)[1:]
        return float(
            np.interp(
                rate_per_s, np.append(0.0, np.maximum.accumulate(self._served_per_s(number))), np.append(0.0, number)
            )
        )

    def _tpot_s(self, number: Floats, chances: Floats) -> Quantiles:
        """A request sees the number it finds and itself; over its life that moves towards the mean."""
        seen_s = self._steps_s(number + 1)
        mean_s = float(chances @ seen_s)
        mean = float(chances @ number)
        slower = (
            float(self._steps_s(np.array([mean * 1.05 + 1]))[0] / self._steps_s(np.array([mean + 1]))[0] - 1) / 0.05
        )
        noise_s = float(self._noise_s(np.array([mean / self.num_ranks]))[0])
        noise_s = noise_s if self.lockstep_group == 1 else 0.0
        osl, shares = self._own
        kept = np.sqrt(self._memory(osl, max(0.1, 1 - slower)))
        moved = (seen_s - mean_s)[:, None] + noise_s * _NORMAL
        values = mean_s + kept[:, None, None] * moved
        weights = shares[:, None, None] * chances[:, None] * _NORMAL_WEIGHTS
        return quantiles(values.ravel() / self.tokens_a_step, weights.ravel())

    @cached_property
    def _own(self) -> tuple[Floats, Floats]:
        order = np.argsort(self.lengths.osl)
        osl, shares = self.lengths.osl[order], self.lengths.shares[order]
        classes = np.minimum(3, ((np.cumsum(shares) - shares / 2) * 4).astype(np.intp))
        sums = np.bincount(classes, shares, 4)
        return (np.bincount(classes, shares * osl, 4)[sums > 0] / sums[sums > 0]), sums[sums > 0]

    def _memory(self, osl: Floats, pace: float) -> Floats:
        """Variance of the mean over a life of each length, over that of one moment.

        The number forgets as lives end: its correlation after t steps is the share of running requests that run on.
        """
        parts = (np.arange(16) + 0.5) / 16
        later = parts[None, :] * osl[:, None] * pace
        runs_on = np.maximum(0.0, self.lengths.osl - later[:, :, None]) @ self.lengths.shares / self.lengths.mean_osl
        return np.asarray(2 * (runs_on * (1 - parts)).mean(axis=1))

    def _admission_s(self, number: Floats, chances: Floats) -> Quantiles:
        """Until the next step of the rank begins; where all are full, until those before it and one more have ended."""
        full = self.num_ranks * self.max_running
        gap_s = self._steps * float(self._steps_s(np.array([full]))[0]) / self.max_running
        ahead = np.where(number >= full, (number - full) / self.num_ranks + 1, 0.0)
        groups = self.num_ranks // self.lockstep_group
        rest_s = np.where(number < groups, 0.0, self._steps_s(number))
        values = rest_s[:, None] * _MOMENTS + (ahead * gap_s)[:, None]
        return quantiles(values.ravel(), np.repeat(chances / len(_MOMENTS), len(_MOMENTS)))
