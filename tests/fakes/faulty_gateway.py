"""Gateways that are wrong in ways a client can't see; `alter=with_runner(...)` puts one into a deployment."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from baton.engine.kv_transfer import JsonObject
from baton.engine.response import Response
from baton.gateway.app import Gateway
from baton.gateway.handoff import Generation, HandoffRunner
from baton.gateway.readiness import Readiness
from baton.policy.rank import Pair

OnSent: TypeAlias = Callable[[], object]


def with_runner(runner: type[HandoffRunner]) -> Callable[[Gateway], None]:
    def alter(gateway: Gateway) -> None:
        gateway.runner = runner(gateway.pool, gateway.runner.router, gateway.metrics)

    return alter


def swapped(pair: Pair) -> Pair:
    return Pair(pair.decode, pair.prefill)


class SwapsPools(HandoffRunner):
    """Prefills on decode ranks and decodes on prefill ranks."""

    async def _prefill(self, pair: Pair, generation: Generation, body: JsonObject) -> JsonObject:
        return await super()._prefill(swapped(pair), generation, body)

    async def _decode(self, pair: Pair, generation: Generation, body: JsonObject, on_sent: OnSent) -> Response:
        return await super()._decode(swapped(pair), generation, body, on_sent)


class ForgetsToPull(HandoffRunner):
    """Sends the decode leg without `do_remote_prefill`: decode computes the prompt a second time."""

    async def _decode(self, pair: Pair, generation: Generation, body: JsonObject, on_sent: OnSent) -> Response:
        params = {**body["kv_transfer_params"], "do_remote_prefill": False}
        return await super()._decode(pair, generation, {**body, "kv_transfer_params": params}, on_sent)


class SkipsPrefill(HandoffRunner):
    """Sends everything to decode alone."""

    async def _prefill(self, pair: Pair, generation: Generation, body: JsonObject) -> JsonObject:
        return {"none": True}

    async def _decode(self, pair: Pair, generation: Generation, body: JsonObject, on_sent: OnSent) -> Response:
        alone = {key: value for key, value in body.items() if key != "kv_transfer_params"}
        return await super()._decode(pair, generation, alone, on_sent)


class ExchangesBlocks(HandoffRunner):
    """Gives each of two requests that prefill at a time the other's blocks."""

    _waiting: tuple[JsonObject, "asyncio.Future[JsonObject]"] | None = None

    async def _prefill(self, pair: Pair, generation: Generation, body: JsonObject) -> JsonObject:
        mine = await super()._prefill(pair, generation, body)
        if self._waiting is None:
            other: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
            self._waiting = mine, other
            theirs = await other
        else:
            (theirs, other), self._waiting = self._waiting, None
            other.set_result(mine)
        return {**mine, "remote_block_ids": theirs["remote_block_ids"]}


class Believes(Readiness):
    """Takes every pair that answers for verified."""

    async def _try(self, pair: Pair) -> str:
        return ""
