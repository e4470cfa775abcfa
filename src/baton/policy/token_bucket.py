"""A token bucket: a rate that may be exceeded for a moment, by as much as has been saved up.

What a request takes is an estimate, corrected when it ends, so the bucket may go into debt. Whatever is asked for is
granted at the latest when the bucket is full, even more than it holds: every wait it names is finite.
"""

from __future__ import annotations

_SURELY_S = 1e-6
"""Added to every wait that is named: after it the bucket suffices in spite of rounding."""


class TokenBucket:
    """One bucket, full at first.

    rate_per_s   what flows in
    burst        what it holds when it is full
    """

    __slots__ = ("_at_s", "_burst", "_level", "_rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = self._level = burst
        self._at_s = now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until `amount` may be taken; 0 = now."""
        if now_s > self._at_s:
            self._level = min(self._burst, self._level + (now_s - self._at_s) * self._rate_per_s)
            self._at_s = now_s
        missing = min(amount, self._burst) - self._level
        return missing / self._rate_per_s + _SURELY_S if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Take it; ask `wait_s` first."""
        self._level -= amount

    def correct(self, taken: float, used: float, now_s: float) -> None:
        """Put right what a request took: never back more than that, never above full; the rest of it as debt."""
        self.wait_s(0.0, now_s)  # what flowed in until now is lost if the bucket was full, whatever comes back
        self._level = min(self._burst, self._level + taken - max(0.0, used))
