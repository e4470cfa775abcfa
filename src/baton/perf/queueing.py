"""What queues are made of: lengths of requests, percentiles of a wait, and counts of arrivals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baton.base.errors import ConfigError

Floats = NDArray[Any]

_MAX_PAIRS = 512
"""pairs of lengths that a mix is brought down to"""


@dataclass(frozen=True)
class Lengths:
    """Prompts and answers of a workload in tokens: (isl, osl, weight), weights of any sum.

    Raises ConfigError for none, and for lengths below 1.
    """

    pairs: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        if not self.pairs or any(isl < 1 or osl < 1 or not 0 < weight < math.inf for isl, osl, weight in self.pairs):
            raise ConfigError(
                f"lengths {self.pairs[:4]}: give at least one (isl, osl, weight), "
                "both lengths at least 1, weights above 0"
            )

    @classmethod
    def fixed(cls, isl: float, osl: float) -> Lengths:
        """Every request alike."""
        return cls(((isl, osl, 1.0),))

    @classmethod
    def of_trace(cls, lengths: Iterable[tuple[int, int]]) -> Lengths:
        """Return the lengths of a trace's requests; many different ones become means of neighbours."""
        counted = sorted(Counter(lengths).items())
        if len(counted) <= _MAX_PAIRS:
            return cls(tuple((float(isl), float(osl), float(number)) for (isl, osl), number in counted))
        groups = np.array_split(np.array([(isl, osl, number) for (isl, osl), number in counted], float), _MAX_PAIRS)
        return cls(
            tuple((*np.average(g[:, :2], axis=0, weights=g[:, 2]).tolist(), float(g[:, 2].sum())) for g in groups)
        )

    @cached_property
    def isl(self) -> Floats:
        """Prompt tokens of every pair."""
        return np.array([isl for isl, _, _ in self.pairs], float)

    @cached_property
    def osl(self) -> Floats:
        """Output tokens of every pair."""
        return np.array([osl for _, osl, _ in self.pairs], float)

    @cached_property
    def shares(self) -> Floats:
        """Every pair's share of the requests; they sum to 1."""
        weights = np.array([weight for _, _, weight in self.pairs], float)
        return np.asarray(weights / weights.sum())

    @cached_property
    def mean_isl(self) -> float:
        """Mean prompt tokens."""
        return float(self.shares @ self.isl)

    @cached_property
    def mean_osl(self) -> float:
        """Mean output tokens."""
        return float(self.shares @ self.osl)

    @cached_property
    def mean_context(self) -> float:
        """Mean tokens of KV of a request that decodes at some moment: long answers are met more often."""
        return float(self.shares @ (self.osl * (self.isl + self.osl / 2)) / self.mean_osl)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Three percentiles of a time, seconds; infinite where the pool cannot keep up."""

    p50_s: float
    p90_s: float
    p99_s: float

    def at(self, percentile: int) -> float:
        """Return one of them; raises ConfigError for a percentile other than 50, 90 and 99."""
        if percentile not in (50, 90, 99):
            raise ConfigError(f"percentile {percentile}: only 50, 90 and 99 are predicted; give one of them")
        return {50: self.p50_s, 90: self.p90_s, 99: self.p99_s}[percentile]


NEVER = Quantiles(math.inf, math.inf, math.inf)
"""what a pool gives that is asked for more than it can do"""
_SHARES = np.array([0.5, 0.9, 0.99])
_BINS = 2048


def quantiles(values_s: Floats, weights: Floats) -> Quantiles:
    """Return the percentiles of a weighted sample, by a histogram of 2,048 equal bins."""
    low, high = float(values_s.min()), float(values_s.max())
    width = (high - low) / (_BINS - 1)
    if width <= low * 1e-12:
        return Quantiles(high, high, high)
    bins = ((values_s - low) * (1 / width) + 0.5).astype(np.intp)
    sums = np.cumsum(np.bincount(bins, weights=weights, minlength=_BINS))
    found = low + width * np.searchsorted(sums, _SHARES * sums[-1])
    return Quantiles(*np.minimum(found, high).tolist())


def poisson(means: Floats, counts: Floats) -> Floats:
    """Return the chances of so many arrivals (evenly spaced from 0), a row for every mean, each row summing to 1."""
    logs = np.cumsum(np.log(np.maximum(1.0, np.arange(counts[-1] + 1))))[counts.astype(np.intp)]
    chances = np.exp(np.multiply.outer(np.log(np.maximum(means, 1e-300)), counts) - means[:, None] - logs)
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))


def dispersion(cv2: float, rate_per_s: float, window_s: float) -> float:
    """Return variance over mean of the arrivals of a window, gaps having the squared coefficient of variation `cv2`.

    It grows from 1 to cv2 with the window, as of a renewal process of hyperexponential gaps with balanced means
    (D. R. Cox 1962, Renewal Theory): I(t) = 1 + (cv2 - 1)(1 - (1 - exp(-gt)) / gt), g = 2 rate / (cv2 + 1).
    """
    grown = 2 * rate_per_s / (cv2 + 1) * window_s
    return 1 + (cv2 - 1) * (1 - -math.expm1(-grown) / grown) if grown > 0 else 1.0


def highest_normal(number: int) -> float:
    """Return the mean of the highest of so many normal values, in standard deviations (G. Blom 1958), 0 for one."""
    if number == 1:
        return 0.0
    tail = 1 - (number - 0.375) / (number + 0.25)
    # Hastings' approximation of the normal quantile.
    root = math.sqrt(-2 * math.log(tail))
    return root - (2.515517 + 0.802853 * root + 0.010328 * root**2) / (
        1 + 1.432788 * root + 0.189269 * root**2 + 0.001308 * root**3
    )
