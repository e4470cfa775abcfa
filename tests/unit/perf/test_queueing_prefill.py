"""The prefill pool's formulas against a simulation of every prompt, and what must hold whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.perf import des

from baton.base.errors import ConfigError
from baton.perf.prefill_queue import PrefillPool
from baton.perf.queueing import Lengths

ALIKE = ((2000, 100, 1.0),)
CHUNKED = ((8000, 100, 1.0),)
MIXED = ((500, 100, 0.4), (2000, 100, 0.4), (8000, 100, 0.2))


def step_s(tokens: float, isl: float) -> float:
    return 0.02 + tokens * 6e-5 * (1 + isl / 20_000)


def errors_of(load: float, cv2: float, ranks: tuple[int, int], work: tuple[tuple[des.Pair, ...], int]) -> list[float]:
    """p50, p90 and p99 of TTFT over the simulated one, less 1; 0 for the first two within half a full step."""
    (num_ranks, group), (pairs, most) = ranks, work
    pool = PrefillPool(num_ranks, Lengths(pairs), step_s, most, cv2, 0.0, group)
    rate = load * pool.saturation_per_s
    sample, _ = des.prefill(
        seed=1, rate_per_s=rate, num_ranks=num_ranks, pairs=pairs, step_s=step_s, max_batched_tokens=most,
        arrival_cv2=cv2, lockstep_group=group, num_requests=10_000 if load < 0.8 else 30_000,
    )  # fmt: skip
    found, half_s = pool.at(rate).ttft_s, step_s(most, Lengths(pairs).mean_isl) / 2
    errors = []
    for percentile in (50, 90, 99):
        mine, true = found.at(percentile), des.percentile(sample, percentile / 100)
        errors.append(0.0 if percentile < 99 and abs(mine - true) <= half_s else mine / true - 1)
    return errors


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("ranks", [(1, 1), (4, 1), (32, 1), (8, 8), (32, 16)])
@pytest.mark.parametrize("work", [(ALIKE, 8192), (CHUNKED, 4096)], ids=["whole prompts", "chunks"])
def test_prompts_alike_that_arrive_at_random(
    load: float, ranks: tuple[int, int], work: tuple[tuple[des.Pair, ...], int]
) -> None:
    p50, p90, p99 = errors_of(load, 1.0, ranks, work)
    assert max(abs(p50), abs(p90)) <= 0.15, (p50, p90, p99)
    assert abs(p99) <= (0.25 if load < 0.9 else 0.35), (p50, p90, p99)


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("ranks", [(1, 1), (4, 1), (32, 1), (8, 8), (32, 16)])
def test_prompts_of_mixed_lengths(load: float, ranks: tuple[int, int]) -> None:
    p50, p90, p99 = errors_of(load, 1.0, ranks, (MIXED, 8192))
    assert max(abs(p50), abs(p90)) <= 0.3, (p50, p90, p99)
    assert abs(p99) <= 0.4, (p50, p90, p99)


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("ranks", [(1, 1), (4, 1), (32, 1), (8, 8), (32, 16)])
@pytest.mark.parametrize("work", [(ALIKE, 8192), (CHUNKED, 4096)], ids=["whole prompts", "chunks"])
def test_prompts_that_arrive_in_bursts(
    load: float, ranks: tuple[int, int], work: tuple[tuple[des.Pair, ...], int]
) -> None:
    p50, p90, p99 = errors_of(load, 4.0, ranks, work)
    assert max(abs(p50), abs(p90)) <= 0.3, (p50, p90, p99)
    assert abs(p99) <= 0.4, (p50, p90, p99)


def pools() -> st.SearchStrategy[PrefillPool]:
    return st.builds(
        lambda groups, group, isl, most, cv2: PrefillPool(
            groups * group, Lengths.fixed(isl, 10), step_s, most, cv2, 0.0, group
        ),
        st.integers(1, 8), st.sampled_from([1, 4, 16]), st.integers(100, 20_000), st.integers(1024, 16_384),
        st.sampled_from([1.0, 4.0]),
    )  # fmt: skip


@given(pools(), st.floats(0.02, 0.9))
@settings(deadline=None, max_examples=60)
def test_no_percentile_is_below_service_and_they_rise(pool: PrefillPool, load: float) -> None:
    found = pool.at(load * pool.saturation_per_s)
    assert found.utilisation == pytest.approx(load)
    assert found.service_s.p50_s * 0.999 <= found.ttft_s.p50_s <= found.ttft_s.p90_s <= found.ttft_s.p99_s < math.inf
    assert 0 <= found.queue_s.p50_s <= found.queue_s.p90_s <= found.queue_s.p99_s <= found.ttft_s.p99_s


@given(pools(), st.floats(0.02, 0.8))
@settings(deadline=None, max_examples=60)
def test_more_requests_never_make_it_faster_by_more_than_half_a_step(pool: PrefillPool, load: float) -> None:
    less, more = (pool.at(one * pool.saturation_per_s).ttft_s for one in (load, load + 0.15))
    half_s = step_s(pool.max_batched_tokens, pool.lengths.mean_isl) / 2
    for percentile in (50, 90, 99):
        assert more.at(percentile) >= less.at(percentile) - half_s


@given(pools(), st.floats(0.05, 0.9))
@settings(deadline=None, max_examples=60)
def test_twice_the_groups_are_never_worse(pool: PrefillPool, load: float) -> None:
    rate = load * pool.saturation_per_s
    twice = PrefillPool(
        2 * pool.num_ranks, pool.lengths, step_s, pool.max_batched_tokens, pool.arrival_cv2, 0.0, pool.lockstep_group
    )
    half_s = step_s(pool.max_batched_tokens, pool.lengths.mean_isl) / 2
    for percentile in (50, 90, 99):
        assert twice.at(rate).ttft_s.at(percentile) <= pool.at(rate).ttft_s.at(percentile) + half_s


@given(pools())
@settings(deadline=None, max_examples=30)
def test_who_comes_almost_never_finds_nobody(pool: PrefillPool) -> None:
    found = pool.at(1e-6 * pool.saturation_per_s)
    assert found.queue_s.p99_s == 0
    assert found.ttft_s.p99_s == pytest.approx(found.service_s.p99_s)
    assert pool.at(0.0).ttft_s == found.service_s


def test_at_its_capacity_a_pool_never_answers() -> None:
    pool = PrefillPool(4, Lengths.fixed(2000, 10), step_s, 8000)
    assert pool.saturation_per_s == pytest.approx(16 / step_s(8000, 2000))
    assert pool.at(pool.saturation_per_s).ttft_s.p50_s == math.inf


def test_cached_tokens_are_not_computed() -> None:
    cold, warm = (PrefillPool(4, Lengths.fixed(2000, 10), step_s, 8000, hit_rate=rate) for rate in (0.0, 0.5))
    assert warm.saturation_per_s == pytest.approx(2 * cold.saturation_per_s)
    assert warm.at(20).ttft_s.p99_s < cold.at(20).ttft_s.p99_s


def test_the_rest_of_a_chunked_prompt_is_a_short_step() -> None:
    pool = PrefillPool(1, Lengths.fixed(4200, 10), step_s, 4096)
    assert pool.service_s.p50_s == pytest.approx(step_s(4096, 4200) + step_s(104, 4200), rel=0.01)


@pytest.mark.parametrize(
    ("ranks", "group", "most", "cv2", "hits"),
    [(0, 1, 1, 1, 0), (3, 2, 1, 1, 0), (1, 1, 0, 1, 0), (1, 1, 1, 0, 0), (1, 1, 1, 1, 1)],
)
def test_pools_that_cannot_be_are_refused(ranks: int, group: int, most: int, cv2: float, hits: float) -> None:
    with pytest.raises(ConfigError):
        PrefillPool(ranks, Lengths.fixed(10, 10), step_s, most, cv2, hits, group)
