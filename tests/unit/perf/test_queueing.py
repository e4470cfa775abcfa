"""What queues are made of."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.perf import des

from baton.base.errors import ConfigError
from baton.perf.queueing import NEVER, Lengths, dispersion, poisson, quantiles


def test_means_of_lengths_are_weighted() -> None:
    lengths = Lengths(((100, 10, 3), (500, 50, 1)))
    assert lengths.mean_isl == pytest.approx(200)
    assert lengths.mean_osl == pytest.approx(20)


def test_long_answers_are_met_more_often_than_they_come() -> None:
    lengths = Lengths(((100, 10, 1), (1000, 90, 1)))
    assert lengths.mean_context == pytest.approx((10 * 105 + 90 * 1045) / 100)


def test_a_trace_with_many_lengths_keeps_its_means() -> None:
    trace = [(1 + i * 7 % 9001, 1 + i * 3 % 811) for i in range(5000)]
    lengths = Lengths.of_trace(trace)
    assert len(lengths.pairs) <= 512
    assert lengths.mean_isl == pytest.approx(np.mean([isl for isl, _ in trace]))
    assert lengths.mean_osl == pytest.approx(np.mean([osl for _, osl in trace]))


@pytest.mark.parametrize("pairs", [(), ((0, 1, 1),), ((1, 0, 1),), ((1, 1, 0),), ((1, 1, float("nan")),)])
def test_lengths_that_cannot_be_are_refused(pairs: tuple[tuple[float, float, float], ...]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Lengths(pairs)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 1)), min_size=1, max_size=60))
def test_quantiles_are_those_of_the_sorted_sample(sample: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*sample, strict=True))
    found = quantiles(values, weights)
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    for share, value in ((0.5, found.p50_s), (0.9, found.p90_s), (0.99, found.p99_s)):
        near = [values[order][min(len(sums) - 1, np.searchsorted(sums, (share + e) * sums[-1]))] for e in (-1e-9, 1e-9)]
        assert min(abs(value - one) for one in near) <= np.ptp(values) / 2000 + 1e-12


def test_a_percentile_that_is_not_predicted_is_refused() -> None:
    with pytest.raises(ConfigError, match="percentile 95"):
        NEVER.at(95)


def test_chances_of_arrivals_have_their_mean_and_variance_in_strides_too() -> None:
    for stride in (1, 3):
        counts = np.arange(0.0, 120.0, stride)
        chances = poisson(np.array([40.0]), counts)[0]
        mean = chances @ counts
        assert (mean, chances @ (counts - mean) ** 2) == pytest.approx((40, 40), rel=1e-3)


@pytest.mark.parametrize("window_s", [0.3, 2.0, 20.0])
def test_dispersion_is_that_of_simulated_arrivals(window_s: float) -> None:
    gaps = des.gaps_s(random.Random(5), 2.0, 4.0)
    times = np.cumsum([next(gaps) for _ in range(200_000)])
    counts = np.bincount((times / window_s).astype(int))[:-1]
    assert dispersion(4.0, 2.0, window_s) == pytest.approx(counts.var() / counts.mean(), rel=0.12)
