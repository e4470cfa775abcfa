"""How long to wait before a crashed process is started again."""

from __future__ import annotations


class Backoff:
    """Doubling waits.

    first_s    after the first crash
    most_s     never longer than this
    steady_s   ready for this long = healthy: the next crash counts as the first again
    """

    def __init__(self, *, first_s: float = 1.0, most_s: float = 30.0, steady_s: float = 60.0) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self.steady_s = steady_s
        self.num_crashes = 0
        """in a row"""

    def after_crash(self, ready_for_s: float) -> float:
        """Seconds to wait now; `ready_for_s` is how long the process had been ready when it ended."""
        if ready_for_s >= self.steady_s:
            self.num_crashes = 0
        self.num_crashes += 1
        return float(min(self.most_s, self.first_s * 2 ** min(self.num_crashes - 1, 16)))
