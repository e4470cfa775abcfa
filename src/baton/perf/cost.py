"""Time as a sum of named terms: a prediction is its ledger, and the ledger's parts are the prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Cost:
    """One summand of a step: what it is, its seconds, and how they come about; `limit` says what bounds it.

    limit   "bandwidth" (HBM), "arithmetic", "network", "latency" (launches and fixed costs), "host",
            "overlap" or "measured" (no formula: what a rehearsal adds)
    """

    name: str
    time_s: float
    limit: str
    reason: str

    def times(self, factor: float, why: str) -> Cost:
        """Return it `factor` times as long, for a reason."""
        return replace(self, time_s=self.time_s * factor, reason=f"{self.reason}; x {factor:.3g} {why}")


def total_s(costs: Iterable[Cost]) -> float:
    """Return the sum of costs, seconds."""
    return sum(cost.time_s for cost in costs)


def shares(costs: Sequence[Cost]) -> list[tuple[Cost, float]]:
    """Return costs with their share of the whole, the largest first: what limits a step."""
    whole = total_s(costs)
    return sorted(((cost, cost.time_s / whole) for cost in costs), key=lambda one: -one[1])
