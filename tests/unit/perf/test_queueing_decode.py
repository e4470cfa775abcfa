"""The decode pool's formulas against a simulation of every step, and the rate that two pools serve."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from unit.perf import des

from baton.base.errors import ConfigError
from baton.perf.decode_queue import DecodePool
from baton.perf.max_rate import max_rate
from baton.perf.prefill_queue import PrefillPool
from baton.perf.queueing import Lengths

ALIKE = ((1000, 200, 1.0),)
MIXED = ((500, 50, 0.4), (1000, 200, 0.4), (4000, 600, 0.2))


def step_s(batch: float, context: float) -> float:
    return 0.015 + batch * 1e-4 + batch * context * 3e-8


def prefill_step_s(tokens: float, isl: float) -> float:
    return 0.02 + tokens * 6e-5 * (1 + isl / 20_000)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("ranks", [(1, 1), (16, 1), (16, 16)])
@pytest.mark.parametrize("cv2", [1.0, 4.0])
@pytest.mark.parametrize("pairs", [ALIKE, MIXED], ids=["alike", "mixed"])
def test_tpot_and_batch_are_the_simulated(
    load: float, ranks: tuple[int, int], cv2: float, pairs: tuple[des.Pair, ...]
) -> None:
    pool = DecodePool(ranks[0], Lengths(pairs), step_s, 64, 1e9, cv2, ranks[1])
    found = pool.at(load * pool.saturation_per_s)
    sample, _, batch = des.decode(
        seed=1, rate_per_s=load * pool.saturation_per_s, num_ranks=ranks[0], pairs=pairs, step_s=step_s, max_batch=64,
        kv_tokens=1e9, arrival_cv2=cv2, lockstep_group=ranks[1], num_requests=4000 + 500 * ranks[0],
    )  # fmt: skip
    for percentile in (50, 90, 99):
        assert found.tpot_s.at(percentile) == pytest.approx(des.percentile(sample, percentile / 100), rel=0.06)
    assert found.batch == pytest.approx(batch, rel=0.15)


@pytest.mark.parametrize(("max_batch", "kv_tokens", "limit"), [(8, 1e9, "batch limit"), (256, 8 * 1100, "KV room")])
def test_admission_waits_where_a_limit_binds(max_batch: int, kv_tokens: float, limit: str) -> None:
    pool = DecodePool(1, Lengths(ALIKE), step_s, max_batch, kv_tokens)
    rate = 0.7 * pool.saturation_per_s
    _, waits, _ = des.decode(
        seed=1, rate_per_s=rate, num_ranks=1, pairs=ALIKE, step_s=step_s, max_batch=max_batch, kv_tokens=kv_tokens,
        num_requests=20_000,
    )  # fmt: skip
    found = pool.at(rate)
    assert (found.limit, pool.max_running) == (limit, 8)
    for percentile in (90, 99):
        assert 0.5 < found.admission_s.at(percentile) / des.percentile(waits, percentile / 100) < 2


def pools() -> st.SearchStrategy[DecodePool]:
    return st.builds(
        lambda groups, group, osl, most: DecodePool(
            groups * group, Lengths.fixed(1000, osl), step_s, most, 4e5, 1.0, group
        ),
        st.integers(1, 4), st.sampled_from([1, 8]), st.integers(1, 4000), st.integers(1, 512),
    )  # fmt: skip


@given(pools(), st.floats(0.01, 0.95))
@settings(deadline=None, max_examples=60)
def test_more_requests_never_make_tokens_faster(pool: DecodePool, load: float) -> None:
    less, more = (pool.at(one * pool.saturation_per_s) for one in (load, load + 0.04))
    assert less.batch <= more.batch * 1.01
    for percentile in (50, 90, 99):
        assert less.tpot_s.at(percentile) <= more.tpot_s.at(percentile) * 1.01
        assert less.tpot_s.at(percentile) >= step_s(1, 1000) * 0.999
    assert less.tpot_s.p50_s <= less.tpot_s.p90_s <= less.tpot_s.p99_s


@given(pools(), st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=60)
def test_twice_the_ranks_are_never_worse(pool: DecodePool, load: float) -> None:
    rate = load * pool.saturation_per_s
    twice = dataclasses.replace(pool, num_ranks=2 * pool.num_ranks)
    for percentile in (50, 90, 99):
        assert twice.at(rate).tpot_s.at(percentile) <= pool.at(rate).tpot_s.at(percentile) * 1.01


@given(pools(), st.floats(0.05, 0.6))
@settings(deadline=None, max_examples=40)
def test_the_batch_obeys_littles_law(pool: DecodePool, load: float) -> None:
    assume(pool.max_running >= 16)
    rate = load * pool.saturation_per_s
    found = pool.at(rate)
    alone_s, full_s = (step_s(batch, pool.lengths.mean_context) for batch in (1, pool.max_running))
    lives = rate * pool.lengths.mean_osl / pool.num_ranks
    assert lives * alone_s * 0.98 <= found.batch <= lives * full_s * 1.02


def test_at_its_capacity_a_pool_never_answers() -> None:
    pool = DecodePool(2, Lengths.fixed(1000, 100), step_s, 64, 1e9)
    assert pool.saturation_per_s == pytest.approx(2 * 64 / (100 * step_s(64, 1050)))
    assert pool.at(pool.saturation_per_s).tpot_s.p50_s == math.inf


def test_drafts_that_are_accepted_divide_tpot() -> None:
    plain, drafting = (DecodePool(2, Lengths.fixed(1000, 100), step_s, 1, 1e9, tokens_a_step=n) for n in (1.0, 1.8))
    assert plain.at(0.01).tpot_s.p50_s == pytest.approx(1.8 * drafting.at(0.01).tpot_s.p50_s)


@pytest.mark.parametrize(
    ("ranks", "group", "most", "kv"), [(0, 1, 1, 1e6), (3, 2, 1, 1e6), (1, 1, 0, 1e6), (1, 1, 1, 500)]
)
def test_pools_that_cannot_be_are_refused(ranks: int, group: int, most: int, kv: float) -> None:
    with pytest.raises(ConfigError):
        DecodePool(ranks, Lengths.fixed(1000, 100), step_s, most, kv, 1.0, group)


WORK = Lengths.fixed(2000, 500)
FRONT = PrefillPool(8, WORK, prefill_step_s, 8192, lockstep_group=8)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "max_batch", "kv_tokens", "binds"),
    [
        (0.5, 1.0, 256, 1e9, "prefill queue"),
        (5.0, 0.020, 256, 1e9, "decode tpot"),
        (5.0, 1.0, 256, 5e4, "decode KV room"),
        (5.0, 1.0, 16, 1e9, "decode batch limit"),
        (0.1, 1.0, 16, 1e9, "prefill step"),
        (5.0, 0.001, 16, 1e9, "decode step"),
    ],
)  # fmt: skip
def test_the_largest_rate_and_what_binds_it(
    ttft_s: float, tpot_s: float, max_batch: int, kv_tokens: float, binds: str
) -> None:
    back = DecodePool(8, WORK, step_s, max_batch, kv_tokens, lockstep_group=8)
    found = max_rate(FRONT, back, ttft_s=ttft_s, tpot_s=tpot_s, percentile=90)
    assert found.binds == binds
    if found.rate_per_s:
        assert found.prefill.ttft_s.p90_s + found.decode.admission_s.p90_s <= ttft_s
        assert found.decode.tpot_s.p90_s <= tpot_s
    else:
        assert binds.endswith("step")


@given(st.floats(0.4, 3.0), st.floats(0.017, 0.06), st.floats(1.05, 2.0))
@settings(deadline=None, max_examples=15)
def test_looser_limits_never_serve_less(ttft_s: float, tpot_s: float, looser: float) -> None:
    back = DecodePool(8, WORK, step_s, 256, 1e9, lockstep_group=8)
    tight = max_rate(FRONT, back, ttft_s=ttft_s, tpot_s=tpot_s)
    loose = max_rate(FRONT, back, ttft_s=ttft_s * looser, tpot_s=tpot_s * looser)
    assert tight.rate_per_s <= loose.rate_per_s * 1.03
