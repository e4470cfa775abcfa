"""Candidates under load: queues lengthen what requests see, and limits on it bound the rate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from baton.catalogue.model import load_model
from baton.perf.queueing import Lengths
from baton.plan.answer import answer
from baton.plan.load import under_load
from baton.plan.question import Question
from baton.plan.search import Candidate

HOPPER = Question(model=load_model("deepseek-r1"), accelerator="h200", num_gpus=32, isl=2000, osl=2000, tpot_s=0.08)


def best(question: Question) -> Candidate:
    return answer(question, None, all_settings=False).candidates[0]


def test_a_queue_makes_a_prompt_wait_longer_than_alone() -> None:
    one = best(HOPPER)
    load = under_load(one)
    assert one.prompt_alone_s * 0.9 < load.ttft_s.p50_s < load.ttft_s.p90_s < load.ttft_s.p99_s
    assert load.tpot_s.p50_s <= load.tpot_s.p99_s <= HOPPER.tpot_s * 1.1


def test_a_higher_rate_waits_longer_and_one_too_high_forever() -> None:
    one = best(HOPPER)
    low, high, over = (
        under_load(best(replace(HOPPER, rate_per_s=share * one.rate_per_s))) for share in (0.3, 0.9, 0.99)
    )
    assert low.ttft_s.p90_s < high.ttft_s.p90_s <= over.ttft_s.p90_s
    assert low.tpot_s.p50_s < high.tpot_s.p50_s
    beyond = replace(one.prefill, question=replace(HOPPER, rate_per_s=2 * one.rate_per_s))
    assert math.isinf(under_load(replace(one, prefill=beyond)).ttft_s.p50_s)


def test_limits_bound_the_rate_and_say_what_binds() -> None:
    strict, loose = (under_load(best(replace(HOPPER, ttft_s=limit))) for limit in (0.8, 4.0))
    assert strict.rate_per_s < loose.rate_per_s
    assert strict.ttft_s.p50_s <= 0.8 * 1.001
    assert strict.limit == "prefill queue"


def test_tails_are_stricter_than_medians() -> None:
    median, tail = (under_load(best(replace(HOPPER, ttft_s=2.0, percentile=p))) for p in (50, 99))
    assert tail.rate_per_s < median.rate_per_s
    assert tail.ttft_s.p99_s <= 2.0 * 1.001


def test_bursts_and_mixed_lengths_wait_longer() -> None:
    rate = 0.7 * best(HOPPER).rate_per_s
    mix = Lengths(((500.0, 2000.0, 0.75), (6500.0, 2000.0, 0.25)))
    even, bursts, mixed = (
        under_load(best(replace(HOPPER, rate_per_s=rate, **changes)))  # type: ignore[arg-type]
        for changes in ({}, {"arrival_cv2": 8.0}, {"mix": mix})
    )
    assert bursts.ttft_s.p99_s > even.ttft_s.p99_s
    assert mixed.ttft_s.p99_s > even.ttft_s.p99_s


@pytest.mark.parametrize("ttft_s", [1.0, 3.0])
def test_with_a_limit_on_ttft_the_best_is_the_one_that_serves_most_within_it(ttft_s: float) -> None:
    found = answer(replace(HOPPER, ttft_s=ttft_s), None, all_settings=False).candidates
    rates = [under_load(one).rate_per_s for one in found]
    assert rates == sorted(rates, reverse=True)
