"""Whoever an API key belongs to: its class, its deadline, its limits, and what it has left of them."""

from __future__ import annotations

from baton.policy.token_bucket import TokenBucket


class Tenant:
    """One key's rights.

    priority          place of the highest class it may use, 0 = the highest there is
    ttft_deadline_s   a request that can't start within this is shed
    requests, tokens  None = no limit
    """

    __slots__ = ("_requests", "_tokens", "name", "priority", "ttft_deadline_s")

    def __init__(
        self,
        name: str,
        priority: int,
        ttft_deadline_s: float,
        requests: TokenBucket | None = None,
        tokens: TokenBucket | None = None,
    ) -> None:
        self.name = name
        self.priority = priority
        self.ttft_deadline_s = ttft_deadline_s
        self._requests = requests
        self._tokens = tokens

    def charge(self, num_tokens: int, now_s: float) -> float:
        """Take one request and its tokens from both limits, or nothing: then how long until they suffice, in s."""
        requests, tokens = self._requests, self._tokens
        wait_s = requests.wait_s(1.0, now_s) if requests else 0.0
        if tokens:
            wait_s = max(wait_s, tokens.wait_s(num_tokens, now_s))
        if wait_s:
            return wait_s
        if requests:
            requests.take(1.0)
        if tokens:
            tokens.take(num_tokens)
        return 0.0

    def settle(self, num_tokens: int, num_used: int, now_s: float) -> None:
        """A request that was charged `num_tokens` has ended, and took `num_used`."""
        if self._tokens:
            self._tokens.correct(num_tokens, num_used, now_s)

    def refund(self, num_tokens: int, now_s: float, *, request: bool) -> None:
        """Give back what was charged for a request that was not served.

        request   also the request itself: not for one whose client left, who could else ask without limit
        """
        self.settle(num_tokens, 0, now_s)
        if request and self._requests:
            self._requests.correct(1.0, 0.0, now_s)
