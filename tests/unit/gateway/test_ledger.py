"""A request's ledger: its parts are the whole."""

import re
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from baton.gateway.ledger import PARTS, Ledger

MARKS = ("admitted", "retried", "prefill_sent", "prefilled", "decode_sent", "first_byte", "ended")


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """Any life of a request: some marks are missing, the others are in order and the last is the end."""
    times = draw(st.lists(st.floats(1, 1e6), min_size=len(MARKS) + 1, max_size=len(MARKS) + 1).map(sorted))
    ledger = Ledger(times[0])
    whole = draw(st.booleans())
    for mark, time_s in zip(MARKS, times[1:], strict=True):
        if mark == "ended" or (mark != "retried" if whole else draw(st.booleans())):
            setattr(ledger, mark, time_s)
    return ledger


@given(ledgers())
def test_the_parts_sum_to_the_total_exactly(ledger: Ledger) -> None:
    parts = ledger.parts_us()
    end = ledger.first_byte or ledger.ended
    assert sum(us for _, us in parts) == round((end - ledger.arrived) * 1e6)
    assert all(us >= 0 for _, us in parts)


@given(ledgers())
def test_the_header_says_the_parts(ledger: Ledger) -> None:
    said = [entry.split(";dur=") for entry in ledger.server_timing().split(", ")]
    assert [(name, round(Fraction(ms) * 1000)) for name, ms in said[:-1]] == ledger.parts_us()


@given(ledgers())
def test_the_header_sums_to_its_total_to_the_last_digit(ledger: Ledger) -> None:
    entries = [entry.split(";dur=") for entry in ledger.server_timing().split(", ")]
    *parts, (last, total) = [(name, Fraction(duration)) for name, duration in entries]
    assert last == "total"
    assert sum(duration for _, duration in parts) == total
    assert all(re.fullmatch(r"[a-z_]+;dur=\d+\.\d{3}", entry) for entry in ledger.server_timing().split(", "))


@given(ledgers())
def test_the_parts_are_those_that_are_known_once_each_and_in_order(ledger: Ledger) -> None:
    names = [name for name, _ in ledger.parts_us()]
    assert sorted(names, key=PARTS.index) == names
    assert len(set(names)) == len(names)


def served() -> Ledger:
    ledger = Ledger(100.0)
    ledger.admitted = 100.000_012
    ledger.prefill_sent = 100.000_080
    ledger.prefilled = 100.153_281
    ledger.decode_sent = 100.153_330
    ledger.first_byte = 100.161_330
    ledger.ended = 101.0
    return ledger


def test_a_stream_over_two_legs_is_told_part_by_part() -> None:
    assert served().server_timing() == (
        "queue;dur=0.012, route;dur=0.068, prefill;dur=153.201, handover;dur=0.049, "
        "transfer_and_first_decode;dur=8.000, total;dur=161.330"
    )
    assert round(served().ttft_s, 6) == 0.16133
    assert served().elapsed_s == 1.0


def test_an_answer_that_is_no_stream_counts_to_its_end() -> None:
    ledger = served()
    ledger.first_byte = 0.0
    assert ledger.parts_us()[-1] == ("transfer_and_decode", 846_670)


def test_a_request_that_decode_served_alone_has_one_leg() -> None:
    ledger = Ledger(5.0)
    ledger.admitted, ledger.decode_sent, ledger.first_byte = 5.25, 5.5, 6.0
    assert ledger.parts_us() == [("queue", 250_000), ("route", 250_000), ("decode", 500_000)]


def test_tries_that_failed_have_a_part_of_their_own() -> None:
    ledger = Ledger(5.0)
    ledger.admitted, ledger.prefill_sent, ledger.prefilled, ledger.decode_sent = 5.1, 5.2, 5.3, 5.4
    ledger.retry(6.0)
    ledger.decode_sent, ledger.first_byte = 6.25, 6.5
    assert ledger.parts_us() == [
        ("queue", 100_000),
        ("failed_tries", 900_000),
        ("route", 250_000),
        ("decode", 250_000),
    ]


def test_a_request_that_failed_in_prefill_spent_its_last_time_there() -> None:
    ledger = Ledger(5.0)
    ledger.admitted, ledger.prefill_sent, ledger.ended = 5.0, 5.5, 7.0
    assert ledger.parts_us() == [("queue", 0), ("route", 500_000), ("prefill", 1_500_000)]


def test_generations_of_one_request_share_what_happened_before_they_parted() -> None:
    whole = Ledger(5.0)
    whole.admitted = 5.5
    one, other = whole.fork(), whole.fork()
    one.prefill_sent, one.ended = 6.0, 7.0
    other.decode_sent, other.ended = 6.0, 8.0
    assert one.parts_us() == [("queue", 500_000), ("route", 500_000), ("prefill", 1_000_000)]
    assert other.parts_us() == [("queue", 500_000), ("route", 500_000), ("decode", 2_000_000)]
    assert not whole.ended
