"""What the gateway counts, under names of its own; one registry a gateway, nothing global."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class GatewayMetrics:
    """Requests are what clients send; generations are the single hand-offs they consist of."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "baton_requests", "Requests answered, by path and HTTP status.", ["path", "status"], registry=registry
        )
        self.generations = Counter(
            "baton_generations", "Generations ended, by outcome.", ["outcome"], registry=registry
        )
        self.decode_alone = Counter(
            "baton_decode_alone", "Requests served without prefill, by reason.", ["reason"], registry=registry
        )
        self.releases = Counter(
            "baton_kv_releases", "KV given back after a request ended between its legs.", ["result"], registry=registry
        )
        self.in_flight = Gauge("baton_requests_in_flight", "Requests being answered.", registry=registry)
        self.verified_pairs = Gauge("baton_pairs_verified", "Pairs of ranks that may serve.", registry=registry)
        self.ttft_seconds = Histogram(
            "baton_ttft_seconds",
            "From a streamed request's arrival to its first byte.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.leg_seconds = Histogram(
            "baton_leg_seconds", "Duration of one leg.", ["leg"], buckets=_SECONDS, registry=registry
        )

    def text(self) -> bytes:
        """The /metrics answer."""
        return generate_latest(self._registry)
