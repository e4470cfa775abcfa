"""What is reserved on one rank, and what follows from it."""

from __future__ import annotations

from math import inf

_RECOVERY_S = 30.0
"""Half of what is known of a rank's slowness is forgotten in this time, so that it is tried again."""
_SLOWNESS_WEIGHT = 0.2
_NOISE = 1.25
"""A rank this much slower is no slower: else whichever noise has made the fastest would get all that comes alone."""


class Slowness:
    """How many times as long as its pool's model says a rank takes, from 1 to 16; what is faster teaches the model."""

    __slots__ = ("_seen_s", "_value")

    def __init__(self) -> None:
        self._value = 1.0
        self._seen_s = 0.0

    def at(self, now_s: float) -> float:
        """The factor; it goes back towards 1 while nothing is seen."""
        value = self._faded(now_s) if self._value != 1.0 else 1.0
        return value if value > _NOISE else 1.0

    def saw(self, ratio: float, now_s: float) -> None:
        """Work took `ratio` times what was predicted."""
        before = self._faded(now_s)
        self._value = before + _SLOWNESS_WEIGHT * (min(max(ratio, 1.0), 16.0) - before)
        self._seen_s = now_s

    def _faded(self, now_s: float) -> float:
        left: float = 0.5 ** (max(0.0, now_s - self._seen_s) / _RECOVERY_S)
        return 1.0 + (self._value - 1.0) * left


class PrefillLoad:
    """A prefill rank's queue: first come, first served, each with the seconds it is predicted to take."""

    __slots__ = ("_head_began_s", "last_turn", "num_requests", "slowness", "work_s")

    def __init__(self) -> None:
        self.num_requests = 0
        self.work_s = 0.0
        self.last_turn = 0
        self.slowness = Slowness()
        self._head_began_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long the rank still works on what it has; of what is overdue nothing is left."""
        if not self.num_requests:
            return 0.0
        share_s = self.work_s / self.num_requests
        return self.work_s - min(share_s, max(0.0, now_s - self._head_began_s))

    def join(self, work_s: float, now_s: float) -> None:
        """One more request."""
        if not self.num_requests:
            self._head_began_s = now_s
        self.num_requests += 1
        self.work_s += work_s

    def leave(self, work_s: float, now_s: float) -> float:
        """One request is over; returns when the rank can have begun with it: when the one before it was over."""
        began_s, self._head_began_s = self._head_began_s, now_s
        self.num_requests -= 1
        self.work_s = max(0.0, self.work_s - work_s) if self.num_requests else 0.0
        return began_s


class DecodeLoad:
    """A decode rank's batch, those included that are still on their way to it."""

    __slots__ = ("kv_tokens", "last_turn", "max_kv_tokens", "max_num_seqs", "num_requests", "slowness")

    def __init__(self) -> None:
        self.num_requests = 0
        self.kv_tokens = 0.0
        self.max_num_seqs = inf
        self.max_kv_tokens = inf
        self.last_turn = 0
        self.slowness = Slowness()

    def join(self, kv_tokens: float) -> None:
        """One more request, with the KV it holds on average."""
        self.num_requests += 1
        self.kv_tokens += kv_tokens

    def leave(self, kv_tokens: float) -> None:
        """One request is over."""
        self.num_requests -= 1
        self.kv_tokens = max(0.0, self.kv_tokens - kv_tokens) if self.num_requests else 0.0

    def num_over(self, kv_tokens: float) -> float:
        """How many requests must end before one more, of so much KV, has room."""
        over = self.num_requests + 1 - self.max_num_seqs
        if self.kv_tokens + kv_tokens > self.max_kv_tokens and self.num_requests:
            over = max(over, (self.kv_tokens + kv_tokens - self.max_kv_tokens) * self.num_requests / self.kv_tokens)
        return max(0.0, over)
