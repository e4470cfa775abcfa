"""What the gateway counts: Prometheus metrics under `baton_`, one registry a gateway, nothing global.

Base units and endings are Prometheus', names are vLLM's wherever both measure the same thing. What is counted for every
request or event is a `Tally` or a `Histogram` of counts.py, bound here once; the rest are prometheus_client's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from baton.gateway.counts import Histogram, Histograms, ItlCounts, Tallies
from baton.gateway.ledger import PARTS, Ledger

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ITL_SECONDS = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
_LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_RATIOS = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)


class RankRequests(NamedTuple):
    """How many requests are reserved on one rank."""

    worker: str
    dp_rank: int
    role: str
    num_requests: int


class GatewayMetrics:
    """Requests are what clients send; generations are the single hand-offs they consist of."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._of_requests(self._registry)
        self._of_latency(self._registry)
        self._of_tokens(self._registry)
        self._of_the_gateway(self._registry)

    def _of_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Tallies(
            registry, "baton_requests", "Requests answered, by path and HTTP status.", ["path", "status"]
        )
        self.generations = Tallies(registry, "baton_generations", "Generations ended, by outcome.", ["outcome"])
        self.decode_alone = Tallies(
            registry, "baton_decode_alone", "Requests served without prefill, by reason.", ["reason"]
        )
        self.sheds = Tallies(
            registry, "baton_sheds", "Requests turned away unserved, by reason and class.", ["reason", "class"]
        )
        self.retries = Tallies(
            registry,
            "baton_retries",
            "Tries of a generation that failed and were followed by another, by leg.",
            ["leg"],
        )
        self.releases = Tallies(
            registry, "baton_kv_releases", "KV given back after a request ended between its legs.", ["result"]
        )
        for result in ("released", "left_to_lease"):
            self.releases.of(result)  # a series that begins at 1 has no increase that an alert could see
        for leg in ("prefill", "decode"):
            self.retries.of(leg)
        self.in_flight = Gauge("baton_requests_in_flight", "Requests being answered.", registry=registry)
        self._queue_length = Tallies(
            registry, "baton_queue_length", "Requests waiting for admission, by class.", ["class"], "gauge"
        )

    def _of_latency(self, registry: CollectorRegistry) -> None:
        self.ttft_seconds = Histograms(
            registry,
            Histogram,
            "baton_time_to_first_token_seconds",
            "From a streamed request's arrival to its first byte.",
            _SECONDS,
        ).of()
        parts = Histograms(
            registry,
            Histogram,
            "baton_ttft_part_seconds",
            "Parts of the time to the first token, of streams; those of one request sum to it.",
            _SECONDS,
            ["part"],
        )
        self._parts = {part: parts.of(part) for part in PARTS if part != "transfer_and_decode"}
        self.ttft_to_predicted = Histograms(
            registry,
            Histogram,
            "baton_ttft_observed_to_predicted_ratio",
            "From admission to a stream's first byte, as a multiple of what the router had predicted.",
            _RATIOS,
        ).of()
        self.itl_seconds = Histograms(
            registry,
            ItlCounts,
            "baton_inter_token_latency_seconds",
            "Gap before each event of a stream but the first; of events that arrive together, all but one have none.",
            _ITL_SECONDS,
        ).of()
        self.e2e_seconds = Histograms(
            registry,
            Histogram,
            "baton_e2e_request_latency_seconds",
            "From a request's arrival to the end of its answer, of requests that were answered whole.",
            _SECONDS,
        ).of()
        self.queue_seconds = Histograms(
            registry,
            Histogram,
            "baton_request_queue_time_seconds",
            "Wait for admission, of requests that were admitted, by class.",
            _SECONDS,
            ["class"],
        )
        legs = Histograms(
            registry, Histogram, "baton_leg_seconds", "Duration of one leg, from its sending.", _SECONDS, ["leg"]
        )
        self.prefill_leg = legs.of("prefill")
        self.decode_leg = legs.of("decode")

    def _of_tokens(self, registry: CollectorRegistry) -> None:
        self.prompt_tokens = Tallies(
            registry, "baton_prompt_tokens", "Prompt tokens, as the prefill legs' usage counts them."
        ).of()
        hits = Tallies(
            registry,
            "baton_prefix_hit_tokens",
            "Prompt tokens that the prefill rank had in its cache: predicted by the router, reported by the engine "
            "(of vLLM with --enable-prompt-tokens-details).",
            ["source"],
        )
        self.prefix_hit_tokens_predicted = hits.of("predicted")
        self.prefix_hit_tokens_reported = hits.of("reported")
        self.output_events = Tallies(
            registry, "baton_output_events", "Events of streams passed on, of at least one token each."
        ).of()
        self.kv_blocks_handed_over = Tallies(
            registry, "baton_kv_blocks_handed_over", "KV blocks that prefill legs offered to decode legs."
        ).of()
        self._prefix_blocks = Tallies(
            registry, "baton_prefix_blocks", "Prompt blocks the router remembers, over all ranks.", (), "gauge"
        ).of()

    def _of_the_gateway(self, registry: CollectorRegistry) -> None:
        self.pairs = Gauge("baton_pairs", "Pairs of ranks of the workers file.", registry=registry)
        self.verified_pairs = Gauge("baton_pairs_verified", "Pairs of ranks that may serve.", registry=registry)
        self._rank_requests = Tallies(
            registry, "baton_rank_requests", "Requests reserved on a rank.", ["worker", "dp_rank", "role"], "gauge"
        )
        self.loop_lag_seconds = Histograms(
            registry,
            Histogram,
            "baton_event_loop_lag_seconds",
            "How late the event loop ran a timer: what it holds up, every request waits for.",
            _LAG_SECONDS,
        ).of()
        self._access_log_lines_lost = Tallies(
            registry, "baton_access_log_lines_lost", "Lines of the access log that could not be written."
        ).of()
        ProcessCollector(registry=registry)

    def first_byte(self, ledger: Ledger, predicted_s: float = 0.0) -> None:
        """A stream has begun; `predicted_s` is the router's word on the time from admission to now, else 0."""
        self.ttft_seconds.observe(ledger.first_byte - ledger.arrived)
        began, parts = ledger.arrived, self._parts
        for name, ended in ledger.spans():
            parts[name].observe(ended - began)
            began = ended
        if predicted_s > 0:
            self.ttft_to_predicted.observe((ledger.first_byte - ledger.admitted) / predicted_s)

    def scraped(
        self,
        *,
        num_pairs: int,
        num_verified_pairs: int,
        rank_requests: Iterable[RankRequests],
        queue_lengths: Mapping[str, int],
        num_prefix_blocks: int,
        num_access_log_lines_lost: int,
    ) -> None:
        """What is read off the gateway only when somebody asks; `queue_lengths` are requests by class."""
        self.pairs.set(num_pairs)
        self.verified_pairs.set(num_verified_pairs)
        self._rank_requests.replace(((of.worker, str(of.dp_rank), of.role), of.num_requests) for of in rank_requests)
        self._queue_length.replace(((name,), length) for name, length in queue_lengths.items())
        self._prefix_blocks.n = num_prefix_blocks
        self._access_log_lines_lost.n = num_access_log_lines_lost

    def text(self) -> bytes:
        """The /metrics answer."""
        return generate_latest(self._registry)
