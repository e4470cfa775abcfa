"""KV that a prefill rank keeps for whoever was told of it, until it is fetched or its lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator


class Leases:
    """What is held, by the engine's request id.

    lease_s   of an offer; a heartbeat extends what is left to two thirds of it
    let_go    given the blocks of a lease that is over
    Source: vLLM 0.32.0, nixl/base_worker.py (_handle_heartbeat, _reap_expired_send_leases)
    """

    def __init__(self, lease_s: float, let_go: Callable[[list[int]], None]) -> None:
        self.lease_s = lease_s
        self.num_expired = self.num_late_notices = 0
        self._let_go = let_go
        self._held: dict[str, tuple[list[int], asyncio.TimerHandle]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, request_id: str, blocks: list[int], *, expired: bool) -> None:
        """Keep the blocks of a request; `expired` ends the lease at once."""
        lease_s = 0.0 if expired else self.lease_s
        self._held[request_id] = (blocks, asyncio.get_running_loop().call_later(lease_s, self._expire, request_id))

    def extend(self, request_id: str) -> None:
        """A decode rank still wants this KV; of a lease that is over, nothing is said."""
        held = self._held.get(request_id)
        if held is not None:
            blocks, timer = held
            loop = asyncio.get_running_loop()
            until_s = loop.time() + self.lease_s * 2 / 3
            if until_s > timer.when():
                timer.cancel()
                self._held[request_id] = (blocks, loop.call_at(until_s, self._expire, request_id))

    def notify(self, request_id: str) -> None:
        """A decode rank has fetched this KV, or never will."""
        held = self._held.pop(request_id, None)
        if held is None:
            self.num_late_notices += 1
            return
        held[1].cancel()
        self._let_go(held[0])

    def forget(self) -> None:
        """The engine is gone, and so is all that it held."""
        for _, timer in self._held.values():
            timer.cancel()
        self._held.clear()

    def _expire(self, request_id: str) -> None:
        blocks, _ = self._held.pop(request_id)
        self.num_expired += 1
        self._let_go(blocks)
