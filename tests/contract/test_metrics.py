"""What /metrics must say: every name and label that baton reads, and those its users' dashboards live on."""

from __future__ import annotations

import pytest
from contract.engines import COMPLETIONS, CachingEngine, Engine, Pair
from e2e.running import eventually

from baton.engine.metrics import EngineMetrics

KINDS = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:cache_config_info": "gauge",
    "vllm:prefix_cache_queries": "counter",
    "vllm:prefix_cache_hits": "counter",
    "vllm:external_prefix_cache_queries": "counter",
    "vllm:external_prefix_cache_hits": "counter",
    "vllm:prompt_tokens": "counter",
    "vllm:prompt_tokens_by_source": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:num_preemptions": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_prefill_time_seconds": "histogram",
    "vllm:request_decode_time_seconds": "histogram",
}
NIXL = {
    "vllm:nixl_bytes_transferred": "histogram",
    "vllm:nixl_xfer_time_seconds": "histogram",
    "vllm:nixl_num_failed_transfers": "counter",
    "vllm:nixl_num_failed_notifications": "counter",
    "vllm:nixl_num_kv_expired_reqs": "counter",
    "vllm:nixl_num_notifications_after_expiry": "counter",
}


@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_every_metric_has_its_kind_and_the_labels_of_its_rank(pair: Pair, side: str) -> None:
    engine: Engine = getattr(pair, side)
    families = engine.families()
    for name, kind in (KINDS | NIXL).items():
        assert name in families, name
        assert families[name].type == kind, name
        assert {sample.labels["engine"] for sample in families[name].samples} == {"0"}, name
        if name != "vllm:cache_config_info":
            assert {sample.labels["model_name"] for sample in families[name].samples} == {engine.model}, name


def test_baton_reads_all_its_counters_from_the_first_scrape(pair: Pair) -> None:
    for engine in (pair.prefill, pair.decode):
        EngineMetrics(engine.client.get("/metrics").text).counters(0)


def test_metrics_are_prometheus_text(decode: Engine) -> None:
    answer = decode.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")


def test_prompt_tokens_are_told_by_source(decode: Engine) -> None:
    samples = [s for s in decode.families()["vllm:prompt_tokens_by_source"].samples if s.name.endswith("_total")]
    assert {s.labels["source"] for s in samples} == {"local_compute", "local_cache_hit", "external_kv_transfer"}


def test_requests_are_counted_by_how_they_ended(decode: Engine) -> None:
    samples = [s for s in decode.families()["vllm:request_success"].samples if s.name.endswith("_total")]
    assert {s.labels["finished_reason"] for s in samples} == {"stop", "length", "abort", "error", "repetition"}


def test_the_cache_says_how_it_is_made(decode: Engine) -> None:
    (sample,) = decode.families()["vllm:cache_config_info"].samples
    assert sample.value == 1
    assert sample.labels["block_size"] == "16"
    assert sample.labels["cache_dtype"] == "auto"
    assert sample.labels["enable_prefix_caching"] == "False"
    assert int(sample.labels["num_gpu_blocks"]) > 0


def test_a_request_is_counted_once_everywhere(decode: Engine) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:e2e_request_latency_seconds_count",
             "vllm:time_to_first_token_seconds_count", "vllm:inter_token_latency_seconds_count")  # fmt: skip
    before = [decode.value(name) for name in names]
    ended = decode.value("vllm:request_success_total", finished_reason="length")
    decode.ask(COMPLETIONS, prompt=decode.prompt(30), max_tokens=5, ignore_eos=True)
    eventually(
        lambda: decode.value("vllm:request_success_total", finished_reason="length") == ended + 1, "it is counted", 5
    )
    assert [decode.value(name) - then for name, then in zip(names, before, strict=True)] == [30, 5, 1, 1, 4]


def test_an_engine_without_a_connector_has_no_metrics_of_one(gqa: CachingEngine) -> None:
    families = gqa.engine.families()
    assert not families.keys() & NIXL.keys()
    assert families["vllm:cache_config_info"].samples[0].labels["enable_prefix_caching"] == "True"
