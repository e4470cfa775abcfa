"""Who is next: classes share by weight, the tenants of a class in turn, a tenant's requests by deadline.

Between classes start-time fair queueing: each class that waits has a tag, the lowest is next, and a dispatch moves its
class's tag on by 1 / weight. A class that begins to wait starts at the tag served last: it has saved nothing up. Within
a class tenants stand in a ring: who was served, and who begins to wait, goes to its end.

So nobody starves. Take a request in class c with p requests of its own tenant before it, and K tenants in its class. At
most n = (p + 1) K dispatches of its class come up to and with its own: between two turns of its tenant each other one
has one. Of every other class d come at most floor(n w_d / w_c) + 1: its tag was not below the tag served last, and c's
was at most 1 / w_c above that.
Source: P. Goyal, H. Vin, H. Cheng, Start-time Fair Queuing, SIGCOMM 1996.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum
from math import lcm

from baton.policy.tenant import Tenant


class Place(Enum):
    """Where a request is that had to wait."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    SHED = "shed"
    LEFT = "left"


class Waiting:
    """A request that waits.

    priority     place of its class, 0 = the highest
    due          deadline and order of arrival: the order within its tenant
    displaced    who lost its place in a full queue to this one
    """

    __slots__ = ("displaced", "due", "entered_s", "num_tokens", "place", "priority", "tenant")

    def __init__(self, tenant: Tenant, priority: int, due: tuple[float, int], num_tokens: int, now_s: float) -> None:
        self.tenant = tenant
        self.priority = priority
        self.due = due
        self.num_tokens = num_tokens
        self.entered_s = now_s
        self.place = Place.QUEUED
        self.displaced: Waiting | None = None

    @property
    def deadline_s(self) -> float:
        """When it is shed if it still waits."""
        return self.due[0]


def _due(waiting: Waiting) -> tuple[float, int]:
    return waiting.due


class _Class:
    """One class: its tag, how far a dispatch moves it, and its tenants in the order of their turns."""

    __slots__ = ("num_waiting", "step", "tag", "tenants")

    def __init__(self, step: int) -> None:
        self.step = step
        self.tag = self.num_waiting = 0
        self.tenants: OrderedDict[str, list[Waiting]] = OrderedDict()


class FairQueue:
    """Requests of several classes.

    weights   of the classes, highest class first: whole numbers, so that tags are exact
    """

    __slots__ = ("_by_deadline", "_classes", "_served_tag", "num_waiting")

    def __init__(self, weights: Sequence[int]) -> None:
        common = lcm(*weights)
        self._classes = [_Class(common // weight) for weight in weights]
        self._by_deadline: list[Waiting] = []
        self._served_tag = 0
        self.num_waiting = 0

    def push(self, waiting: Waiting) -> None:
        """Let it wait."""
        of = self._classes[waiting.priority]
        if not of.num_waiting:
            of.tag = max(of.tag, self._served_tag)
        insort(of.tenants.setdefault(waiting.tenant.name, []), waiting, key=_due)
        insort(self._by_deadline, waiting, key=_due)
        of.num_waiting += 1
        self.num_waiting += 1

    def pop(self) -> Waiting | None:
        """Take the next one out; None: nobody waits."""
        of = min((one for one in self._classes if one.num_waiting), key=lambda one: one.tag, default=None)
        if of is None:
            return None
        name = next(iter(of.tenants))
        waiting = of.tenants[name][0]
        self.remove(waiting)
        if name in of.tenants:
            of.tenants.move_to_end(name)
        self._served_tag = of.tag
        of.tag += of.step
        return waiting

    def remove(self, waiting: Waiting) -> None:
        """Take out one that waits here."""
        of = self._classes[waiting.priority]
        flow = of.tenants[waiting.tenant.name]
        for line in (flow, self._by_deadline):
            del line[bisect_left(line, waiting.due, key=_due)]
        if not flow:
            del of.tenants[waiting.tenant.name]
        of.num_waiting -= 1
        self.num_waiting -= 1

    def first_due(self) -> Waiting | None:
        """The one with the earliest deadline."""
        return self._by_deadline[0] if self._by_deadline else None

    def num_ahead(self, waiting: Waiting) -> int:
        """At most how many go before one that is about to be pushed, if nobody comes after it."""
        of = self._classes[waiting.priority]
        flow = of.tenants.get(waiting.tenant.name, [])
        num_own = bisect_left(flow, waiting.due, key=_due)
        num_ahead = num_own + sum(min(len(other), num_own + 1) for other in of.tenants.values() if other is not flow)
        shares = (
            min(other.num_waiting, (num_ahead + 1) * of.step // other.step + 1)
            for other in self._classes
            if other is not of
        )
        return num_ahead + sum(shares)

    def displaced_by(self, waiting: Waiting) -> Waiting:
        """Who goes if one more comes to a full queue: of the lowest class, the tenant that waits most, its newest.

        That may be `waiting` itself; it is never one of a higher class.
        """
        for of in reversed(self._classes[waiting.priority + 1 :]):
            if of.num_waiting:
                return _newest(of)
        of = self._classes[waiting.priority]
        num_own = len(of.tenants.get(waiting.tenant.name, ())) + 1
        if any(len(flow) > num_own for flow in of.tenants.values()):
            return _newest(of)
        return waiting

    def lengths(self) -> list[int]:
        """How many wait, by class."""
        return [of.num_waiting for of in self._classes]


def _newest(of: _Class) -> Waiting:
    longest: list[Waiting] = max(of.tenants.values(), key=len)
    return max(longest, key=lambda waiting: waiting.due[1])
