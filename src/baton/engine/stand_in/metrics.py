"""What a stand-in tells on /metrics, under the names of the release that it speaks for."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.sequence import Sequence

_BOTH = ("model_name", "engine")
_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
_COUNTERS = (
    "vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:external_prefix_cache_queries",
    "vllm:external_prefix_cache_hits", "vllm:prompt_tokens", "vllm:generation_tokens", "vllm:num_preemptions",
)  # fmt: skip
_HISTOGRAMS = (
    "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
)  # fmt: skip
_NIXL_HISTOGRAMS = ("vllm:nixl_bytes_transferred", "vllm:nixl_xfer_time_seconds")
_NIXL_COUNTERS = (
    "vllm:nixl_num_failed_transfers", "vllm:nixl_num_failed_notifications", "vllm:nixl_num_kv_expired_reqs",
    "vllm:nixl_num_notifications_after_expiry",
)  # fmt: skip


class Metrics:
    """The registry of one server, and what each of its ranks counts in.

    ranks   numbers of the ranks, as the label `engine` has them
    """

    def __init__(self, config: StandInConfig, ranks: Several[int], started_at_s: float) -> None:
        self._registry = CollectorRegistry()
        self._release = config.release
        Gauge("process_start_time_seconds", "Start of the engine, Unix time.", registry=self._registry).set(
            started_at_s
        )
        self._families: dict[str, MetricWrapperBase] = {}
        self._of(Gauge, _GAUGES)
        self._of(Counter, _COUNTERS)
        self._of(Histogram, _HISTOGRAMS)
        self._of(Counter, ("vllm:prompt_tokens_by_source",), "source")
        self._of(Counter, ("vllm:request_success",), "finished_reason")
        if config.kv_connector:
            self._of(Histogram, _NIXL_HISTOGRAMS)
            self._of(Counter, _NIXL_COUNTERS)
        cache = {
            "block_size": str(config.block_size),
            "cache_dtype": config.cache_dtype,
            "enable_prefix_caching": str(config.enable_prefix_caching),
            "num_gpu_blocks": str(config.num_gpu_blocks),
        }
        info = Gauge("vllm:cache_config_info", "Layout of the KV cache.", (*cache, "engine"), registry=self._registry)
        for rank in ranks:
            info.labels(**cache, engine=str(rank)).set(1)
        self._model = config.model

    def _of(self, kind: type[Any], names: Several[str], *more: str) -> None:
        for name in filter(self._release.has_metric, names):
            self._families[name] = kind(name, name, (*_BOTH, *more), registry=self._registry)

    def rank(self, rank: int) -> RankMetrics:
        """What one rank counts in; all of it is there from the first scrape."""
        labels = {"model_name": self._model, "engine": str(rank)}
        return RankMetrics(self._families, labels, self._release.finish_reasons)

    def text(self) -> bytes:
        """Prometheus text."""
        return generate_latest(self._registry)


class RankMetrics:
    """One rank's counters, by the part of their names after the colon."""

    def __init__(
        self, families: dict[str, MetricWrapperBase], labels: dict[str, str], finish_reasons: Several[str]
    ) -> None:
        self._metrics: dict[str, Any] = {}
        for name, family in families.items():
            key = name.removeprefix("vllm:")
            if name == "vllm:prompt_tokens_by_source":
                self._metrics |= {source: family.labels(**labels, source=source) for source in _SOURCES}
            elif name == "vllm:request_success":
                self._metrics |= {reason: family.labels(**labels, finished_reason=reason) for reason in finish_reasons}
            else:
                self._metrics[key] = family.labels(**labels)

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._metrics[name].set(value)

    def count(self, name: str, by: float = 1) -> None:
        """Count in a counter, if this server has it."""
        if name in self._metrics:
            self._metrics[name].inc(by)

    def observe(self, name: str, value: float) -> None:
        """Observe in a histogram, if this server has it."""
        if name in self._metrics:
            self._metrics[name].observe(value)

    def prompt(self, sequence: Sequence, *, caching: bool) -> None:
        """A prompt is computed: its tokens by where their KV came from, counted once however often it is computed."""
        cached, external = sequence.num_cached, sequence.num_external
        self.count("prompt_tokens", sequence.num_prompt)
        self.count("local_cache_hit", cached)
        self.count("external_kv_transfer", external)
        self.count("local_compute", sequence.num_prompt - cached - external)
        if caching:
            self.count("prefix_cache_queries", sequence.num_prompt)
            self.count("prefix_cache_hits", cached)
        self.count("external_prefix_cache_queries", sequence.num_prompt - cached)
        self.count("external_prefix_cache_hits", external)

    def token(self, sequence: Sequence, now_s: float) -> None:
        """A token is there."""
        self.count("generation_tokens")
        if len(sequence.output) == 1:
            sequence.first_s = now_s
            self.observe("time_to_first_token_seconds", now_s - sequence.arrived_s)
            self.observe("request_queue_time_seconds", sequence.scheduled_s - sequence.arrived_s)
            self.observe("request_prefill_time_seconds", now_s - sequence.scheduled_s)
        else:
            self.observe("inter_token_latency_seconds", now_s - sequence.decoded_s)
        sequence.decoded_s = now_s

    def finished(self, sequence: Sequence, now_s: float) -> None:
        """A generation is over."""
        self.count(str(sequence.finish))
        self.observe("e2e_request_latency_seconds", now_s - sequence.arrived_s)
        if sequence.output:
            self.observe("request_decode_time_seconds", now_s - sequence.first_s)
