"""Limits of a key: what flows in, what may come at once, and what a correction may do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.policy.tenant import Tenant
from baton.policy.token_bucket import TokenBucket

AMOUNTS = st.floats(0, 1e5)
GAPS = st.floats(0, 100)
RATES = st.floats(0.01, 1e6)
BURSTS = st.floats(1, 1e6)


@given(RATES, BURSTS, st.lists(st.tuples(GAPS, AMOUNTS), max_size=40), st.floats(0, 1e7))
def test_no_stretch_of_time_grants_more_than_the_burst_and_what_flowed_in_and_one_that_was_too_large(
    rate: float, burst: float, asked: list[tuple[float, float]], now_s: float
) -> None:
    bucket, start_s, granted, largest = TokenBucket(rate, burst, now_s), now_s, 0.0, 0.0
    for gap_s, amount in asked:
        now_s += gap_s
        if not bucket.wait_s(amount, now_s):
            bucket.take(amount)
            granted += amount
            largest = max(largest, amount)
        room = burst + rate * (now_s - start_s) + max(0.0, largest - burst)
        assert granted <= room * (1 + 1e-9)


@given(RATES, BURSTS, st.lists(st.tuples(GAPS, AMOUNTS), max_size=20), AMOUNTS, st.floats(0, 1e7))
def test_after_the_wait_it_names_the_bucket_suffices(
    rate: float, burst: float, taken: list[tuple[float, float]], amount: float, now_s: float
) -> None:
    bucket = TokenBucket(rate, burst, now_s)
    for gap_s, before in taken:
        now_s += gap_s
        bucket.wait_s(before, now_s)
        bucket.take(before)
    wait_s = bucket.wait_s(amount, now_s)
    assert bucket.wait_s(amount, now_s + wait_s) == 0.0


def test_the_wait_is_what_is_missing_over_the_rate_and_not_a_moment_less() -> None:
    bucket = TokenBucket(10.0, 20.0, 0.0)
    bucket.take(20.0)
    assert bucket.wait_s(5.0, 0.0) == pytest.approx(0.5, abs=1e-5)
    assert bucket.wait_s(5.0, 0.49) > 0
    assert bucket.wait_s(5.0, 0.5) == 0.0


def test_what_is_larger_than_the_burst_is_granted_by_a_full_bucket_only_and_is_paid_off_afterwards() -> None:
    bucket = TokenBucket(10.0, 20.0, 0.0)
    assert bucket.wait_s(100.0, 0.0) == 0.0
    bucket.take(100.0)
    assert bucket.wait_s(1.0, 0.0) == pytest.approx(8.1, abs=1e-5)
    assert bucket.wait_s(100.0, 9.9) > 0
    assert bucket.wait_s(100.0, 10.001) == 0.0


@given(st.floats(0, 1e4), st.floats(-1e4, 1e4), GAPS)
def test_a_correction_gives_back_no_more_than_was_taken_and_fills_no_more_than_the_bucket(
    taken: float, used: float, gap_s: float
) -> None:
    corrected, untouched, never = (TokenBucket(1.0, 100.0, 0.0) for _ in range(3))
    for bucket in (corrected, untouched):
        bucket.take(taken)
    corrected.correct(taken, used, gap_s)
    for amount in (0.0, 1.0, 50.0, 100.0):
        best_s, worst_s = never.wait_s(amount, gap_s), untouched.wait_s(amount, gap_s)
        assert corrected.wait_s(amount, gap_s) >= best_s
        if used <= taken:
            assert corrected.wait_s(amount, gap_s) <= worst_s
        elif worst_s:
            assert corrected.wait_s(amount, gap_s) >= worst_s


def test_a_request_that_used_more_than_was_estimated_leaves_a_debt() -> None:
    bucket = TokenBucket(10.0, 100.0, 0.0)
    bucket.take(100.0)
    bucket.correct(100.0, 150.0, 0.0)
    assert bucket.wait_s(10.0, 0.0) == pytest.approx(6.0, abs=1e-5)


def test_a_clock_that_stands_or_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(10.0, 10.0, 5.0)
    bucket.take(10.0)
    assert bucket.wait_s(10.0, 1.0) == bucket.wait_s(10.0, 5.0) > 0.9


def limited() -> Tenant:
    return Tenant("t", 0, 10.0, TokenBucket(1.0, 2.0, 0.0), TokenBucket(100.0, 1000.0, 0.0))


def test_a_request_is_charged_to_both_limits_or_to_none() -> None:
    tenant = limited()
    assert tenant.charge(1000, 0.0) == 0.0
    assert tenant.charge(100, 0.0) == pytest.approx(1.0, abs=1e-5)  # for tokens; the request was not taken:
    assert tenant.charge(0, 0.0) == 0.0
    assert tenant.charge(0, 0.0) == pytest.approx(1.0, abs=1e-5)


def test_the_longer_of_the_two_waits_is_named() -> None:
    tenant = limited()
    tenant.charge(1000, 0.0)
    tenant.charge(0, 0.0)
    assert tenant.charge(500, 0.0) == pytest.approx(5.0, abs=1e-5)
    assert tenant.charge(50, 0.0) == pytest.approx(1.0, abs=1e-5)


def test_whoever_leaves_gets_tokens_back_but_has_asked_all_the_same() -> None:
    tenant = limited()
    for _ in range(2):
        assert tenant.charge(1000, 0.0) == 0.0
        tenant.refund(1000, 0.0, request=False)
    assert tenant.charge(1000, 0.0) == pytest.approx(1.0, abs=1e-5)


def test_whoever_was_turned_away_gets_all_back() -> None:
    tenant = limited()
    for _ in range(5):
        assert tenant.charge(1000, 0.0) == 0.0
        tenant.refund(1000, 0.0, request=True)


def test_a_tenant_without_limits_never_waits() -> None:
    tenant = Tenant("t", 0, 10.0)
    assert all(tenant.charge(10**9, 0.0) == 0.0 for _ in range(100))
    tenant.settle(10**9, 1, 0.0)
    tenant.refund(10**9, 0.0, request=True)
