"""How late the event loop is: what every request waits for when something holds it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from baton.gateway.counts import Histogram


class EventLoopLag:
    """Measures again and again how much later than asked for the loop runs a timer; seconds.

    `clock_s` is `time.monotonic`: the loop's own `time()` stands still while the loop is held up. uvloop's timers are
    whole milliseconds, so up to one of them is no lag.
    """

    def __init__(self, lag_s: Histogram, *, period_s: float, clock_s: Callable[[], float]) -> None:
        self._lag_s = lag_s
        self._period_s = period_s
        self._clock_s = clock_s

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due_s = self._clock_s() + self._period_s
            await asyncio.sleep(self._period_s)
            self._lag_s.observe(max(0.0, self._clock_s() - due_s))
