"""What ranks take, learnt."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.policy.rank_load import Slowness
from baton.policy.step_times import Fit, StepTimes


def test_prefill_times_are_learnt_from_a_few_dozen_samples_with_noise() -> None:
    times, random = StepTimes(), Random(1)
    for _ in range(200):
        tokens, cached = random.randint(10, 8_000), random.choice([0, 0, 4_000])
        true_s = 0.05 + 200e-6 * tokens
        times.saw_prefill(tokens, cached, true_s * random.uniform(0.9, 1.1))
    for tokens in (100, 2_000, 8_000):
        assert times.prefill_s(tokens, 0) == pytest.approx(0.05 + 200e-6 * tokens, rel=0.1)


def test_step_times_are_learnt_from_batches_of_every_size() -> None:
    times, random = StepTimes(), Random(2)
    for _ in range(300):
        running = random.randint(1, 256)
        kv_tokens = running * random.randint(500, 4_000)
        times.saw_step(running, kv_tokens, 0.01 + 1e-5 * running + 5e-8 * kv_tokens)
    assert times.step_s(128, 256_000) == pytest.approx(0.01 + 1e-5 * 128 + 5e-8 * 256_000, rel=0.05)


def test_one_outlier_is_forgotten() -> None:
    times = StepTimes()
    for i in range(100):
        times.saw_transfer(1_000 + i, 0.02)
    times.saw_transfer(1_000, 20.0)
    for i in range(100):
        times.saw_transfer(1_000 + i, 0.02)
    assert times.transfer_s(1_000) == pytest.approx(0.02, rel=0.1)


def test_a_prior_that_is_wrong_a_hundredfold_is_left_behind() -> None:
    times = StepTimes()
    for _ in range(60):
        times.saw_transfer(1_000, 1.0)
    assert times.transfer_s(1_000) == pytest.approx(1.0, rel=0.05)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0, 1e4)), max_size=60))
def test_whatever_is_seen_predictions_stay_finite_and_no_less_than_nothing(
    samples: list[tuple[float, float, float]],
) -> None:
    fit = Fit((0.01, 0.1, 0.1))
    for a, b, took_s in samples:
        fit.learn((1.0, a, b), took_s)
    for features in ((1.0, 0.0, 0.0), (1.0, 50.0, 2.0), (1.0, 100.0, 100.0)):
        assert 0 <= fit.predict(features) < 1e9


def test_features_that_never_vary_do_not_make_the_fit_jump_later() -> None:
    fit = Fit((1.0, 1.0))
    for _ in range(5_000):
        fit.learn((1.0, 1.0), 2.0)
    fit.learn((1.0, 2.0), 3.0)
    assert fit.predict((1.0, 1.0)) == pytest.approx(2.0, rel=0.2)


def test_slowness_is_bounded_and_fades() -> None:
    slow = Slowness()
    for i in range(100):
        slow.saw(1e9, float(i))
    assert 10 < slow.at(100.0) <= 16
    assert slow.at(1_000.0) == pytest.approx(1.0, abs=0.01)
    for i in range(100):
        slow.saw(0.0, 2_000.0 + i)
    assert slow.at(2_100.0) == pytest.approx(1.0)


def test_ten_thousand_samples_that_hardly_vary_leave_predictions_where_they_belong() -> None:
    times, random = StepTimes(), Random(3)
    for _ in range(10_000):
        times.saw_prefill(2_000 + random.randint(0, 1), 0, 0.2)
        times.saw_step(64, 128_000 + random.randint(0, 1), 0.03)
    assert times.prefill_s(2_000, 0) == pytest.approx(0.2, rel=0.01)
    assert times.step_s(64, 128_000) == pytest.approx(0.03, rel=0.01)
    assert 0 < times.prefill_s(8_000, 0) < 2
