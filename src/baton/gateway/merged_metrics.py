"""One /metrics answer for several processes: what fronts count is added up, the router process tells the rest."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

OF_THE_ROUTER = frozenset(
    {
        "baton_pairs", "baton_pairs_verified", "baton_rank_requests", "baton_queue_length", "baton_prefix_blocks",
        "process_start_time_seconds", "process_max_fds",
    }
)  # fmt: skip
"""families that only the router process can tell; all others are sums over the processes"""


def merged(router: bytes, fronts: Iterable[bytes]) -> bytes:
    """Prometheus text of all processes; families keep the order of the router process's."""
    families = {family.name: family for family in text_string_to_metric_families(router.decode())}
    for text in fronts:
        for family in text_string_to_metric_families(text.decode()):
            if family.name not in OF_THE_ROUTER:
                _add(families.setdefault(family.name, Metric(family.name, family.documentation, family.type)), family)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(families.values())))
    return generate_latest(registry)


def _add(to: Metric, more: Metric) -> None:
    known = {(sample.name, *sorted(sample.labels.items())): place for place, sample in enumerate(to.samples)}
    for sample in more.samples:
        place = known.get((sample.name, *sorted(sample.labels.items())))
        if place is None:
            to.samples.append(sample)
        else:
            to.samples[place] = to.samples[place]._replace(value=to.samples[place].value + sample.value)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        return self._families
