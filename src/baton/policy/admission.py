"""Which requests may go to the engines now, which wait, and which are turned away at once.

Engines serve first come, first served, so whatever has been sent to them has lost its priority: requests are held here
while the least wait at the engines is above `hold_s`. Every wait is bounded by the request's deadline for its start:
one that will not make it, as far as can be predicted, is shed as it comes; one that has not made it is shed then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from baton.policy.fair_queue import FairQueue, Place, Waiting
from baton.policy.tenant import Tenant

WEIGHTS: Mapping[str, int] = MappingProxyType({"interactive": 16, "standard": 4, "batch": 1})
"""Classes, highest first, and their shares of the dispatches when all of them wait."""

_PACE_WEIGHT = 1 / 32
"""Of the latest dispatch: counted in dispatches, so that a stall is forgotten as soon as the queue moves again."""
_MIN_RETRY_S, _MAX_RETRY_S = 1.0, 60.0


class Reason(StrEnum):
    """Why a request was turned away."""

    RATE_LIMITED = "rate_limited"
    TOO_LATE = "too_late"
    """It would start after its deadline, as far as can be predicted."""
    QUEUE_FULL = "queue_full"
    EXPIRED = "expired"
    """Its deadline passed while it waited."""
    STOPPING = "stopping"
    """The gateway stops."""


@dataclass(frozen=True, slots=True)
class Shed:
    """A request that is turned away: 429 for a key over its limit, else 503, and when to come again."""

    status: int
    reason: Reason
    retry_after_s: float


class Admission:
    """The gate and the queue before it.

    weights      of the classes, highest first
    max_queued   most requests that wait
    hold_s       the gate is open while the engines' least wait is at most this
    """

    __slots__ = ("_clock_s", "_num_entered", "_pace_s", "_queue", "classes", "hold_s", "max_queued")

    def __init__(self, weights: Mapping[str, int] = WEIGHTS, *, max_queued: int, hold_s: float) -> None:
        self.classes = tuple(weights)
        self.max_queued = max_queued
        self.hold_s = hold_s
        self._queue = FairQueue(tuple(weights.values()))
        self._num_entered = 0
        self._pace_s = -1.0
        self._clock_s = 0.0

    def enter(
        self, tenant: Tenant, now_s: float, predicted_wait_s: float, num_tokens: int = 0, priority: int = 0
    ) -> Waiting | Shed | None:
        """A request has come. None: it may go on; it has been charged to its tenant, as has one that waits.

        predicted_wait_s   the least wait at the engines, as the router predicts it
        num_tokens         prompt and output, estimated; `Tenant.settle` corrects it
        priority           the class it asks for; at best it gets the one its tenant may use
        """
        limited_s = tenant.charge(num_tokens, now_s)
        if limited_s:
            return Shed(429, Reason.RATE_LIMITED, limited_s)
        if predicted_wait_s <= self.hold_s and not self._queue.num_waiting:
            return None
        return self._queued(tenant, now_s, predicted_wait_s, num_tokens, max(priority, tenant.priority))

    def next(self, now_s: float, predicted_wait_s: float) -> Waiting | None:
        """Who may go on now; None: nobody waits, the gate is closed, or `expired` must be asked first."""
        first = self._queue.first_due()
        if first is None or not predicted_wait_s <= self.hold_s or first.deadline_s <= now_s:
            return None
        waiting = self._queue.pop()
        assert waiting is not None, "somebody waits"
        waiting.place = Place.DISPATCHED
        self._paced(now_s)
        return waiting

    def expired(self, now_s: float) -> list[Waiting]:
        """Take out those whose deadline has passed: they are shed."""
        expired = []
        while (first := self._queue.first_due()) is not None and first.deadline_s <= now_s:
            self._shed(first, now_s)
            expired.append(first)
        return expired

    def leave(self, waiting: Waiting, now_s: float) -> None:
        """Its client has gone, while it waited or in the moment it was dispatched: its tokens go back."""
        if waiting.place is Place.QUEUED:
            self._queue.remove(waiting)
        elif waiting.place is not Place.DISPATCHED:
            return
        waiting.place = Place.LEFT
        waiting.tenant.refund(waiting.num_tokens, now_s, request=False)

    def next_deadline_s(self) -> float | None:
        """When `expired` has something to say, if nothing happens before; None: nobody waits."""
        first = self._queue.first_due()
        return None if first is None else first.deadline_s

    def retry_after_s(self, now_s: float, predicted_wait_s: float) -> float:
        """When those who wait now will have been served, between 1 s and a minute."""
        wait_s = self._queue.num_waiting * self._dispatch_s(now_s) + predicted_wait_s
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, wait_s))

    def lengths(self) -> dict[str, int]:
        """How many wait, by class."""
        return dict(zip(self.classes, self._queue.lengths(), strict=True))

    def _queued(
        self, tenant: Tenant, now_s: float, predicted_wait_s: float, num_tokens: int, priority: int
    ) -> Waiting | Shed:
        self._num_entered += 1
        due = (now_s + tenant.ttft_deadline_s, self._num_entered)
        waiting = Waiting(tenant, priority, due, num_tokens, now_s)
        starts_s = now_s + self._queue.num_ahead(waiting) * self._dispatch_s(now_s) + predicted_wait_s
        if starts_s > waiting.deadline_s:
            tenant.refund(num_tokens, now_s, request=True)
            late_s = starts_s - waiting.deadline_s
            return Shed(503, Reason.TOO_LATE, min(_MAX_RETRY_S, max(_MIN_RETRY_S, late_s)))
        if self._queue.num_waiting >= self.max_queued:
            displaced = self._queue.displaced_by(waiting)
            if displaced is waiting:
                tenant.refund(num_tokens, now_s, request=True)
                return Shed(503, Reason.QUEUE_FULL, self.retry_after_s(now_s, predicted_wait_s))
            self._shed(displaced, now_s)
            waiting.displaced = displaced
        if not self._queue.num_waiting:
            self._clock_s = now_s
        self._queue.push(waiting)
        return waiting

    def _shed(self, waiting: Waiting, now_s: float) -> None:
        self._queue.remove(waiting)
        waiting.place = Place.SHED
        waiting.tenant.refund(waiting.num_tokens, now_s, request=True)

    def _paced(self, now_s: float) -> None:
        """Learn from a dispatch how long one takes while somebody waits."""
        took_s = max(0.0, now_s - self._clock_s)
        self._pace_s = took_s if self._pace_s < 0 else self._pace_s + (took_s - self._pace_s) * _PACE_WEIGHT
        self._clock_s = now_s

    def _dispatch_s(self, now_s: float) -> float:
        """Seconds between dispatches, a stall that lasts until now counted as one; 0 until one has been seen."""
        if self._pace_s < 0:
            return 0.0
        stalled_s = now_s - self._clock_s if self._queue.num_waiting else 0.0
        return self._pace_s + max(0.0, stalled_s - self._pace_s) * _PACE_WEIGHT
