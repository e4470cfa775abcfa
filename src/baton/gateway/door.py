"""Where requests come in: each is charged to whoever's key it has, and waits while the engines have enough to do."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from baton.gateway.keys import Keys
from baton.gateway.queue import AdmissionQueue, Turn


class Entry(NamedTuple):
    """What a request brings to the door.

    key          hash of its API key
    num_tokens   prompt and output, estimated: they are charged, and put right when it ends
    priority     place of the class it asks for
    """

    key: str
    num_tokens: int
    priority: int


class Door:
    """Admits requests of a deployment."""

    def __init__(self, queue: AdmissionQueue, keys: Keys) -> None:
        self.keys = keys
        self.queue = queue

    def knock(self, entry: Entry) -> Turn | None:
        """Charge a request; None: it may go on, at once.

        Raises   RequestError 401, 429, 503
        """
        return self.queue.knock(self.keys.tenant(entry.key), entry.num_tokens, entry.priority)

    async def enter(self, entry: Entry) -> bool:
        """`knock`, and wait if need be; whether it has waited. Reserve at once, without another await.

        Raises   RequestError 401, 429, 503; nothing is charged then
        """
        turn = self.knock(entry)
        if turn is not None:
            await self.queue.wait(turn)
        return turn is not None

    def settle(self, entry: Entry, num_used: int) -> None:
        """A request that was let in has ended, and took so many tokens."""
        self.keys.settle(entry.key, entry.num_tokens, num_used, asyncio.get_running_loop().time())
