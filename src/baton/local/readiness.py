"""What the gateway says of itself and its workers on /ready."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from baton.engine.client import HttpClient
from baton.engine.errors import EngineError
from baton.engine.origin import Origin


class WorkerReadiness(msgspec.Struct, frozen=True):
    """One worker as the gateway sees it."""

    name: str
    state: Literal["unreachable", "starting", "warming", "ready"]
    reason: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """The gateway's answer; `reason` is why not, "" when ready."""

    ready: bool
    reason: str = ""
    workers: tuple[WorkerReadiness, ...] = ()


class ReadinessProbe:
    """Asks one gateway, over one kept connection."""

    def __init__(self, gateway_url: str, *, timeout_s: float = 2.0) -> None:
        self._origin = Origin.parse(gateway_url)
        self._client = HttpClient(connect_timeout_s=timeout_s)
        self._timeout_s = timeout_s

    async def __call__(self) -> Readiness | None:
        """The gateway's answer; None if there is none that can be read."""
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        try:
            with await self._client.send(self._origin, "GET", "/ready", {}, deadline_s=deadline_s) as response:
                return msgspec.json.decode(await response.read(1 << 20), type=Readiness)
        except (EngineError, msgspec.DecodeError):
            return None

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()
