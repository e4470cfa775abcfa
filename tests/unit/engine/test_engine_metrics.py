"""/metrics of real vLLM 0.32.0 servers after 15 hand-offs of 58 prompt tokens, 32 output tokens each."""

from pathlib import Path

import pytest

from baton.base.errors import WorkerError
from baton.engine import metrics as metrics_module
from baton.engine.metrics import EngineMetrics, RankCounters

FIXTURES = Path(__file__).parents[2] / "fixtures"
BLOCK_BYTES = 16 * 4 * 576 * 4


def real(role: str) -> EngineMetrics:
    return EngineMetrics((FIXTURES / f"vllm_0_32_metrics_{role}.txt").read_text())


def test_prefill_computed_every_prompt_token_and_received_none() -> None:
    counters = real("prefill").counters(0)
    assert counters.local_compute == 15 * 58
    assert counters.external_kv_transfer == 0
    assert counters.kv_transferred_bytes == 0
    assert counters.expired_requests == 0


def test_decode_received_every_prompt_token_and_every_byte_of_four_blocks_each() -> None:
    counters = real("decode").counters(0)
    assert counters == RankCounters(
        local_compute=0,
        local_cache_hit=0,
        external_kv_transfer=15 * 58,
        kv_transferred_bytes=15 * 4 * BLOCK_BYTES,
        kv_transfers=15,
        failed_transfers=0,
        failed_notifications=0,
        expired_requests=0,
        notifications_after_expiry=0,
    )


def test_the_rest_of_what_an_engine_says_of_itself() -> None:
    for role in ("prefill", "decode"):
        metrics = real(role)
        assert metrics.unfinished() == 0
        assert metrics.cache_config()["block_size"] == "16"
        assert metrics.cache_config()["cache_dtype"] == "auto"


def test_a_difference_of_two_readings_is_what_happened_between_them() -> None:
    before, after = real("prefill").counters(0), real("decode").counters(0)
    assert after - before + before == after
    assert (after - before).external_kv_transfer == 870


def test_a_rank_is_found_by_its_own_label_and_requests_are_counted_over_all() -> None:
    text = "".join(
        f'vllm:prompt_tokens_by_source_total{{engine="{r}",model_name="m",source="{source}"}} {r + 1}\n'
        for r in range(12)
        for source in ("local_compute", "local_cache_hit", "external_kv_transfer")
    )
    text += "".join(
        f'vllm:num_requests_running{{engine="{r}"}} 2\nvllm:num_requests_waiting{{engine="{r}"}} 1\n' for r in "01"
    )
    metrics = EngineMetrics(text)
    assert [metrics.counters(r).local_compute for r in (0, 1, 11)] == [1, 2, 12]
    assert metrics.unfinished() == 6
    assert metrics.counters(0).failed_transfers == 0


def test_waiting_requests_are_not_counted_again_by_reason() -> None:
    text = (
        'vllm:num_requests_waiting{engine="0"} 1\nvllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 1\n'
    )
    assert EngineMetrics(text).unfinished() == 1


@pytest.mark.parametrize("dp_rank", [1, 10])
def test_a_rank_that_is_not_reported_is_an_error_that_names_it(dp_rank: int) -> None:
    with pytest.raises(WorkerError, match=f"engine {dp_rank}"):
        real("decode").counters(dp_rank)


def test_a_server_that_reports_nothing_is_an_error() -> None:
    metrics = EngineMetrics("")
    with pytest.raises(WorkerError, match="prompt_tokens_by_source_total"):
        metrics.counters(0)
    assert metrics.cache_config() == {}


def test_what_is_no_prometheus_text_is_an_error() -> None:
    with pytest.raises(WorkerError, match="not Prometheus text"):
        EngineMetrics("<html> { nothing")


def test_a_count_that_is_no_number_is_an_error() -> None:
    text = "".join(
        f'vllm:prompt_tokens_by_source_total{{engine="0",source="{source}"}} {value}\n'
        for source, value in (("local_compute", "NaN"), ("local_cache_hit", "+Inf"), ("external_kv_transfer", 0))
    )
    with pytest.raises(WorkerError, match="no number"):
        EngineMetrics(text).counters(0)


def test_a_rank_holds_as_many_tokens_as_its_blocks_have_room_for() -> None:
    labels = 'block_size="16",num_gpu_blocks="2034"'
    assert EngineMetrics(f"vllm:cache_config_info{{{labels}}} 1.0\n").max_kv_tokens() == 16 * 2034
    assert EngineMetrics('vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n').max_kv_tokens() is None
    assert EngineMetrics("").max_kv_tokens() is None


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_only_what_is_read_is_parsed(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole page takes milliseconds of the gateway's loop."""
    parsed: list[str] = []
    whole = metrics_module.text_string_to_metric_families

    def parse(text: str) -> object:
        parsed.append(text)
        return whole(text)

    buckets = [f'vllm:e2e_request_latency_seconds_bucket{{engine="0",le="{le}"}} 1.0\n' for le in range(500)]
    page = "".join([(FIXTURES / f"vllm_0_32_metrics_{role}.txt").read_text(), *buckets])
    monkeypatch.setattr(metrics_module, "text_string_to_metric_families", parse)
    assert EngineMetrics(page).cache_config()["block_size"] == "16"
    assert sum(text.count("\n") for text in parsed) < page.count("\n") / 20
    assert "_bucket" not in "".join(parsed)


def test_a_line_that_nobody_reads_may_be_anything_but_the_first() -> None:
    text = 'ours 1\nanother{ nothing\nvllm:num_requests_running{engine="0"} 3\n'
    assert EngineMetrics(text).unfinished() == 3
    with pytest.raises(WorkerError, match="not Prometheus text"):
        EngineMetrics("# comment\n\n" + text.removeprefix("ours 1\n"))
