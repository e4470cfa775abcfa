"""Counters and histograms of one thread: counting costs a fraction of a microsecond, a scrape reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from baton.base.errors import BugError


class Tally:
    """One number: `tally.n += 1`."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0

    def inc(self, amount: int = 1) -> None:
        """Add to it."""
        self.n += amount


class Histogram:
    """Observations by bucket; `bounds` ascend, each is part of its bucket, and one bucket more has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ItlCounts(Histogram):
    """The gaps between the outputs of streams, seconds."""

    __slots__ = ()

    def add(self, gap_s: float, num_events: int) -> None:
        """Count one read of a stream, `gap_s` after the one before that brought an output, with `num_events` of them.

        A client waits the gap for the first of them and nothing for the others: so they are counted. A read that
        completes no event counts nothing, and its wait belongs to the next.
        """
        if num_events:
            counts = self.counts
            counts[bisect_left(self.bounds, gap_s)] += 1
            counts[0] += num_events - 1
            self.total += gap_s


OneHistogram = TypeVar("OneHistogram", bound=Histogram)


class Tallies(Collector):
    """A counter or gauge: one `Tally` for every combination of its labels' values that has been asked for."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        kind: Literal["counter", "gauge"] = "counter",
    ) -> None:
        self._name, self._text, self._labels, self._kind = name, text, labels, kind
        self._children: dict[tuple[str, ...], Tally] = {} if labels else {(): Tally()}
        registry.register(self)

    def of(self, *values: str) -> Tally:
        """The number for these values, in the order of the labels; to be kept where it is needed often.

        Raises   BugError for another number of values than of labels
        """
        child = self._children.get(values)
        if child is None:
            child = self._children[_checked(self._name, values, self._labels)] = Tally()
        return child

    def labels(self, **values: str) -> Tally:
        """The number for these values, by the names of their labels."""
        return self.of(*[values[label] for label in self._labels])

    def replace(self, numbers: Iterable[tuple[tuple[str, ...], int]]) -> None:
        """Set a gauge anew: combinations that are not given are gone."""
        self._children.clear()
        for values, number in numbers:
            self.of(*values).n = number

    def collect(self) -> Iterable[Metric]:
        """What a scrape reads."""
        family = CounterMetricFamily if self._kind == "counter" else GaugeMetricFamily
        metric = family(self._name, self._text, labels=self._labels)
        for values, tally in self._children.items():
            metric.add_metric(values, tally.n)
        yield metric


class Histograms(Collector, Generic[OneHistogram]):
    """A histogram: one of `make` for every combination of its labels' values that has been asked for."""

    def __init__(
        self,
        registry: CollectorRegistry,
        make: Callable[[Sequence[float]], OneHistogram],
        name: str,
        text: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
    ) -> None:
        self._make, self._name, self._text, self._bounds, self._labels = make, name, text, bounds, labels
        self._children: dict[tuple[str, ...], OneHistogram] = {} if labels else {(): make(bounds)}
        registry.register(self)

    def of(self, *values: str) -> OneHistogram:
        """The histogram for these values, in the order of the labels; to be kept where it is needed often.

        Raises   BugError for another number of values than of labels
        """
        child = self._children.get(values)
        if child is None:
            child = self._children[_checked(self._name, values, self._labels)] = self._make(self._bounds)
        return child

    def collect(self) -> Iterable[Metric]:
        """What a scrape reads."""
        metric = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, child in self._children.items():
            buckets = [(bound, float(upto)) for bound, upto in zip(bounds, accumulate(child.counts), strict=True)]
            metric.add_metric(values, buckets, child.total)
        yield metric


def _checked(name: str, values: tuple[str, ...], labels: Sequence[str]) -> tuple[str, ...]:
    if len(values) != len(labels):
        raise BugError(f"{name} has the labels {tuple(labels)}, not {len(values)}: {values}")
    return values
