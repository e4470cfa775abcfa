"""What the gateway's metrics make of what they are told."""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from baton.base.errors import BugError
from baton.gateway.counts import Histogram, Histograms, ItlCounts, Tallies
from baton.gateway.ledger import Ledger
from baton.gateway.loop_lag import EventLoopLag
from baton.gateway.metrics import GatewayMetrics, RankRequests
from baton.policy.handoff import State


def samples(metrics: GatewayMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample as Prometheus reads it off the exposition."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: GatewayMetrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0.001, 50), min_size=1, max_size=8, unique=True).map(sorted))
def test_a_histograms_buckets_count_what_is_at_most_their_bound(values: list[float], bounds: list[float]) -> None:
    registry = CollectorRegistry()
    histogram = Histograms(registry, Histogram, "seconds", "Some.", bounds).of()
    values = [*values, *bounds]  # what is exactly a bound counts below it
    for one in values:
        histogram.observe(one)
    [family] = list(registry.collect())
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name == "seconds_bucket"}
    for bound, text in zip(bounds, buckets, strict=False):
        assert buckets[text] == sum(one <= bound for one in values)
    assert buckets["+Inf"] == len(values) == registry.get_sample_value("seconds_count")
    assert registry.get_sample_value("seconds_sum") == pytest.approx(sum(values))


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 9))))
def test_every_output_of_a_stream_has_one_gap_and_the_gaps_sum_to_the_wait(reads: list[tuple[float, int]]) -> None:
    itl = ItlCounts((0.01, 0.1, 1))
    for gap_s, num_events in reads:
        itl.add(gap_s, num_events)
    waits = [gap_s for gap_s, num_events in reads if num_events]
    assert sum(itl.counts) == sum(num_events for _, num_events in reads)
    assert itl.total == pytest.approx(sum(waits))
    for bucket in (1, 2, 3):
        assert itl.counts[bucket] == sum(bisect_left(itl.bounds, gap_s) == bucket for gap_s in waits)


def test_a_number_of_labels_that_is_wrong_is_a_bug_and_leaves_no_series() -> None:
    registry = CollectorRegistry()
    tallies = Tallies(registry, "sheds", "Some.", ["reason", "class"])
    with pytest.raises(BugError, match=r"sheds has the labels \('reason', 'class'\)"):
        tallies.of("rate")
    assert not next(iter(registry.collect())).samples


def stream(first_byte: float) -> Ledger:
    ledger = Ledger(10.0)
    ledger.admitted, ledger.prefill_sent, ledger.prefilled, ledger.decode_sent = 10.5, 10.75, 11.75, 12.0
    ledger.first_byte = first_byte
    return ledger


def test_the_parts_of_streams_sum_to_their_times_to_the_first_token() -> None:
    metrics = GatewayMetrics()
    metrics.first_byte(stream(12.5), predicted_s=1.0)
    alone = Ledger(20.0)
    alone.admitted, alone.decode_sent, alone.first_byte = 20.25, 20.5, 21.0
    metrics.first_byte(alone)
    sums = {labels: v for (name, labels), v in samples(metrics).items() if name == "baton_ttft_part_seconds_sum"}
    assert sum(sums.values()) == value(metrics, "baton_time_to_first_token_seconds_sum") == 3.5
    assert {labels[0][1]: v for labels, v in sums.items() if v} == {
        "queue": 0.75,
        "route": 0.5,
        "prefill": 1.0,
        "handover": 0.25,
        "transfer_and_first_decode": 0.5,
        "decode": 0.5,
    }


def test_a_prediction_is_held_against_what_came_after_admission_and_only_where_there_was_one() -> None:
    metrics = GatewayMetrics()
    metrics.first_byte(stream(12.5), predicted_s=1.0)
    metrics.first_byte(stream(13.0))
    assert value(metrics, "baton_ttft_observed_to_predicted_ratio_count") == 1
    assert value(metrics, "baton_ttft_observed_to_predicted_ratio_sum") == 2.0


def test_a_state_of_the_hand_off_is_an_outcome() -> None:
    metrics = GatewayMetrics()
    for outcome in (State.COMPLETED, "completed", State.SHED):
        metrics.generations.of(outcome).n += 1
    assert value(metrics, "baton_generations_total", outcome="completed") == 2
    assert value(metrics, "baton_generations_total", outcome="shed") == 1


def test_counters_that_an_alert_watches_are_there_before_their_first_event() -> None:
    metrics = GatewayMetrics()
    assert value(metrics, "baton_kv_releases_total", result="left_to_lease") == 0
    assert value(metrics, "baton_retries_total", leg="decode") == 0
    assert value(metrics, "baton_access_log_lines_lost_total") == 0


def scraped(metrics: GatewayMetrics, *ranks: RankRequests, **queued: int) -> None:
    metrics.scraped(
        num_pairs=4,
        num_verified_pairs=3,
        rank_requests=ranks,
        queue_lengths=queued,
        num_prefix_blocks=12,
        num_access_log_lines_lost=5,
    )


def test_a_scrape_reads_what_the_gateway_holds_at_that_moment() -> None:
    metrics = GatewayMetrics()
    scraped(metrics, RankRequests("p0", 1, "prefill", 7), RankRequests("d0", 0, "decode", 9), batch=2)
    assert value(metrics, "baton_pairs") == 4
    assert value(metrics, "baton_pairs_verified") == 3
    assert value(metrics, "baton_rank_requests", worker="p0", dp_rank="1", role="prefill") == 7
    assert value(metrics, "baton_queue_length", **{"class": "batch"}) == 2
    assert value(metrics, "baton_prefix_blocks") == 12
    assert value(metrics, "baton_access_log_lines_lost_total") == 5
    scraped(metrics, RankRequests("d0", 0, "decode", 1))
    gauges = {key for key in samples(metrics) if key[0] in ("baton_rank_requests", "baton_queue_length")}
    assert gauges == {("baton_rank_requests", (("dp_rank", "0"), ("role", "decode"), ("worker", "d0")))}


def test_names_follow_prometheus() -> None:
    families = list(text_string_to_metric_families(GatewayMetrics().text().decode()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation.endswith(".")
        assert family.name.startswith(("baton_", "process_"))
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_ratio"))


async def test_the_loops_lag_is_what_a_timer_came_late() -> None:
    ran = asyncio.Event()

    def clock() -> Iterator[float]:
        yield from (100.0, 100.25)  # a quarter of a second late
        yield from (101.0, 100.5)  # early, as a rounded timer may be: no lag
        ran.set()
        while True:
            yield 102.0

    ticks = clock()
    lag = Histogram((0.001, 0.1, 1))
    running = asyncio.create_task(EventLoopLag(lag, period_s=0.0, clock_s=lambda: next(ticks)).run())
    await ran.wait()
    running.cancel()
    await asyncio.wait([running])
    assert lag.counts == [sum(lag.counts) - 1, 0, 1, 0]
    assert lag.total == 0.25
    assert sum(lag.counts) >= 2
