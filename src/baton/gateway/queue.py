"""The admission queue as requests see it: they wait in it, each on its own future, and are let go or turned away.

It looks at the gate when somebody comes, when something is released (`wake`), and by a timer: the gate also opens by
itself, as what the router predicts comes true. Nobody waits past a deadline.

One request is let go per turn of the loop: it reserves its pair in the turn it wakes, and the gate is asked anew with
that on the books. Whoever leaves while waiting, or in the very turn of being let go, holds nothing up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from baton.base.errors import RequestError
from baton.gateway.metrics import GatewayMetrics
from baton.policy.admission import Admission, Reason, Shed
from baton.policy.fair_queue import Waiting
from baton.policy.tenant import Tenant
from baton.policy.token_bucket import TokenBucket
from baton.recipe.api_keys import ApiKey

PRIORITY_HEADER = "x-baton-priority"
"""On a request: the class it asks for, if not the highest its key may use."""

_SOONEST_S, _LATEST_S = 0.002, 0.1

_TEXTS = {
    Reason.TOO_LATE: "The service is overloaded: this request would not start in the {deadline:g} s it may wait; "
    "try again in {retry:.0f} s.",
    Reason.QUEUE_FULL: "The service is overloaded: its queue is full; try again in {retry:.0f} s.",
    Reason.EXPIRED: "The service is overloaded: this request did not start in the {deadline:g} s it may wait; "
    "try again in {retry:.0f} s.",
    Reason.STOPPING: "The service is stopping; try again in {retry:.0f} s.",
    Reason.RATE_LIMITED: "The API key {name} is over its limit; try again in {retry:.3g} s.",
}


class Turn(NamedTuple):
    """A request that waits; its future gets None, or why it is turned away."""

    waiting: Waiting
    future: asyncio.Future[Shed | None]


class AdmissionQueue:
    """An `Admission` with futures and a timer round it; times are the running loop's.

    predicted_wait_s   the router's prediction at a time: asked whenever the gate is looked at
    """

    def __init__(
        self, admission: Admission, predicted_wait_s: Callable[[float], float], metrics: GatewayMetrics
    ) -> None:
        self._admission = admission
        self._predicted_wait_s = predicted_wait_s
        self._metrics = metrics
        self._futures: dict[Waiting, asyncio.Future[Shed | None]] = {}
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None

    def priority(self, asked: str) -> int:
        """The place of a class by its name, as the header has it; the highest for none.

        Raises   RequestError 400 for a class that there is not
        """
        if not asked:
            return 0
        classes = self._admission.classes
        if asked not in classes:
            text = f"The header {PRIORITY_HEADER} is {asked[:80]!r}; allowed: {', '.join(classes)}."
            raise RequestError(400, text, param=PRIORITY_HEADER)
        return classes.index(asked)

    async def enter(self, tenant: Tenant, num_tokens: int = 0, priority: int = 0) -> None:
        """`knock`, and `wait` if need be."""
        turn = self.knock(tenant, num_tokens, priority)
        if turn is not None:
            await self.wait(turn)

    def knock(self, tenant: Tenant, num_tokens: int = 0, priority: int = 0) -> Turn | None:
        """A request has come; None: it may go on, reserve at once.

        num_tokens   prompt and output, estimated; `tenant.settle` puts it right when the request has ended
        Raises       RequestError 429 for a key over its limit, 503 for overload; nothing is charged then
        """
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        outcome = self._admission.enter(tenant, now_s, self._predicted_wait_s(now_s), num_tokens, priority)
        if outcome is None:
            return None
        if isinstance(outcome, Shed):
            raise self._refusal(outcome, tenant, max(priority, tenant.priority))
        future = self._futures[outcome] = loop.create_future()
        if outcome.displaced is not None:
            self._tell(outcome.displaced, Shed(503, Reason.QUEUE_FULL, self._admission.retry_after_s(now_s, 0.0)))
            outcome.displaced = None
        self.wake()
        return Turn(outcome, future)

    async def wait(self, turn: Turn) -> None:
        """Return when it may go on: reserve at once, without another await.

        Raises   RequestError 503; nothing is charged then
        """
        try:
            shed = await turn.future
        except asyncio.CancelledError:
            self.leave(turn)
            raise
        waiting = turn.waiting
        if shed is not None:
            raise self._refusal(shed, waiting.tenant, waiting.priority)
        waited_s = asyncio.get_running_loop().time() - waiting.entered_s
        self._metrics.queue_seconds.of(self._admission.classes[waiting.priority]).observe(waited_s)

    def leave(self, turn: Turn) -> None:
        """Its client has gone: what it was charged goes back."""
        self._futures.pop(turn.waiting, None)
        self._admission.leave(turn.waiting, asyncio.get_running_loop().time())

    def wake(self) -> None:
        """Something was released, or a rank is back: look at the gate in this turn of the loop."""
        if self._futures and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._look)

    def close(self) -> None:
        """Turn away all who wait: the gateway stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in list(self._futures):
            self._admission.leave(waiting, asyncio.get_running_loop().time())
            self._tell(waiting, Shed(503, Reason.STOPPING, 1.0))

    def lengths(self) -> Mapping[str, int]:
        """How many wait, by class."""
        return self._admission.lengths()

    def _look(self) -> None:
        """Shed who is late, let one go if the gate is open, and see to it that somebody looks again."""
        self._woken = False
        now_s, again_s = asyncio.get_running_loop().time(), _LATEST_S
        try:
            for waiting in self._admission.expired(now_s):
                self._tell(waiting, Shed(503, Reason.EXPIRED, self._admission.retry_after_s(now_s, 0.0)))
            wait_s = self._predicted_wait_s(now_s)
            while (chosen := self._admission.next(now_s, wait_s)) is not None:
                if self._tell(chosen, None):
                    self.wake()
                    break
            again_s = min(_LATEST_S, max(_SOONEST_S, wait_s - self._admission.hold_s))
        finally:
            self._arm(now_s + again_s)

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._admission.next_deadline_s()
        if deadline_s is not None:
            self._timer = asyncio.get_running_loop().call_at(min(at_s, deadline_s), self._look)

    def _tell(self, waiting: Waiting, shed: Shed | None) -> bool:
        """Wake one; False: its client has left in this very turn."""
        future = self._futures.pop(waiting, None)
        if future is None or future.done():
            return False
        future.set_result(shed)
        return True

    def _refusal(self, shed: Shed, tenant: Tenant, priority: int) -> RequestError:
        self._metrics.sheds.of(shed.reason, self._admission.classes[priority]).inc()
        text = _TEXTS[shed.reason].format(name=tenant.name, retry=shed.retry_after_s, deadline=tenant.ttft_deadline_s)
        kind = "rate_limit_exceeded" if shed.status == 429 else "service_unavailable"
        return RequestError(shed.status, text, kind=kind, retry_after_s=shed.retry_after_s)


def tenant_of(key: ApiKey, classes: tuple[str, ...], ttft_deadline_s: float, now_s: float) -> Tenant:
    """Whoever a key belongs to.

    classes           highest first, as `Admission.classes`
    ttft_deadline_s   if the key has none of its own
    """
    return Tenant(
        key.name,
        classes.index(key.priority),
        key.ttft_deadline_s or ttft_deadline_s,
        _bucket(key.requests_per_s, key.requests_burst, 1.0, now_s),
        _bucket(key.tokens_per_s, key.tokens_burst, 60.0, now_s),
    )


def _bucket(rate_per_s: float | None, burst: float | None, saved_s: float, now_s: float) -> TokenBucket | None:
    if rate_per_s is None:
        return None
    return TokenBucket(rate_per_s, burst or max(1.0, rate_per_s * saved_s), now_s)
