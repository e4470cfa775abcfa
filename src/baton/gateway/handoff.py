"""One single generation over its two legs: reserve, prefill, hand over, decode; and what is owed when it ends early.

Every end settles with the engines: a running prefill is aborted by id, KV that prefill holds for nobody is released, a
running decode ends with its connection. Settling goes on in the background after the client has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from baton.base.errors import RequestError, WorkerError
from baton.engine.errors import EngineUnreachable
from baton.engine.kv_transfer import JsonObject, decode_body, prefill_body, read_offer, rejection_released_kv
from baton.engine.response import Response
from baton.engine.vllm import engine_request_ids
from baton.gateway.metrics import GatewayMetrics
from baton.gateway.pool import Pool
from baton.policy.handoff import Debt, Handoff, State
from baton.policy.rank import Pair
from baton.policy.routing import Router

log = logging.getLogger("baton.gateway")

RETRY_AFTER_S = 5
"""What clients are told to wait when no pair is ready: an engine comes back in 20 s at best."""

_MAX_ANSWER_BYTES = 16 << 20


class EngineRefused(WorkerError):
    """An engine answered a leg with an error; its own words are the answer to the client."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"engine answered {status}: {body[:300].decode(errors='replace')}")
        self.status = status
        self.body = body


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """What one generation needs besides its body; `deadline_s` is absolute, on the loop's clock."""

    path: str
    model: str
    request_id: str
    deadline_s: float
    headers: Mapping[str, str]
    decode_alone: bool


class HandoffRunner:
    """Runs generations on a pool; `settle_s` bounds the work that is left after a request has ended early."""

    def __init__(self, pool: Pool, router: Router, metrics: GatewayMetrics, *, settle_s: float = 30.0) -> None:
        self._pool = pool
        self._router = router
        self._metrics = metrics
        self._settle_s = settle_s
        self._settling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def decoding(self, generation: Generation, body: JsonObject) -> AsyncIterator[Response]:
        """The decode rank's response, status 200, after prefill has handed over; leaving the block ends the request.

        Raises   RequestError 503 when no pair may serve, EngineRefused, EngineError, NoKvOffered
        """
        handoff, params = Handoff(), None
        reservation = self._router.reserve(self._pool.verified)
        if reservation is None:
            handoff.to(State.SHED)
            self._metrics.generations.labels(outcome=str(handoff.state)).inc()
            reason = self._pool.not_ready_reason()
            raise RequestError(
                503, f"No pair of ranks is ready: {reason}", kind="service_unavailable", retry_after_s=RETRY_AFTER_S
            )
        pair = reservation.pair
        try:
            if generation.decode_alone:
                self._router.prefilled(reservation)
            else:
                handoff.to(State.PREFILLING)
                params = await self._prefill(pair, generation, body)
                self._router.prefilled(reservation)
                handoff.to(State.HANDED_OFF)
            body = decode_body(body, params) if params else body
            leg = self._decode(pair, generation, body, partial(handoff.to, State.DECODING))
            with self._metrics.leg_seconds.labels(leg="decode").time(), await leg as response:
                yield response
            handoff.to(State.COMPLETED)
        except BaseException as error:
            if isinstance(error, EngineUnreachable):
                self._lose(pair, error)
            left = handoff.state
            ended = State.CANCELLED if isinstance(error, (asyncio.CancelledError, GeneratorExit)) else State.FAILED
            debt = handoff.to(ended)
            if params and (debt is Debt.RELEASE_KV or _left_kv(error)):
                self._in_background(self._release(pair, generation, params))
            log.info("request %s %s while %s: %s", generation.request_id, ended, left, error or type(error).__name__)
            raise
        finally:
            self._router.release(reservation)
            self._metrics.generations.labels(outcome=str(handoff.state)).inc()

    async def settle(self) -> None:
        """Wait for what earlier requests still owe the engines."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=self._settle_s)

    async def _prefill(self, pair: Pair, generation: Generation, body: JsonObject) -> JsonObject:
        # A task of its own: a client that leaves must not cut this connection, or the finished KV's address is lost.
        leg = asyncio.create_task(self._prefill_leg(pair, generation, body))
        try:
            return await asyncio.shield(leg)
        except asyncio.CancelledError:
            self._in_background(self._abandon_prefill(pair, generation, leg))
            raise

    async def _prefill_leg(self, pair: Pair, generation: Generation, body: JsonObject) -> JsonObject:
        with self._metrics.leg_seconds.labels(leg="prefill").time():
            response = await self._pool.server(pair.prefill).post(
                generation.path,
                msgspec.json.encode(prefill_body(body)),
                request_id=generation.request_id,
                dp_rank=pair.prefill.dp_rank,
                deadline_s=generation.deadline_s,
                headers=generation.headers,
            )
            answer = await response.read(_MAX_ANSWER_BYTES)
        if response.status != 200:
            raise EngineRefused(response.status, answer)
        return read_offer(answer)

    async def _decode(
        self, pair: Pair, generation: Generation, body: JsonObject, on_sent: Callable[[], object]
    ) -> Response:
        response = await self._pool.server(pair.decode).post(
            generation.path,
            msgspec.json.encode(body),
            request_id=generation.request_id,
            dp_rank=pair.decode.dp_rank,
            deadline_s=generation.deadline_s,
            headers=generation.headers,
            on_sent=on_sent,
        )
        if response.status != 200:
            raise EngineRefused(response.status, await response.read(_MAX_ANSWER_BYTES))
        return response

    async def _abandon_prefill(self, pair: Pair, generation: Generation, leg: asyncio.Task[JsonObject]) -> None:
        """Stop a prefill nobody waits for; if it finishes first, release what it computed."""
        server = self._pool.server(pair.prefill)
        try:
            async with asyncio.timeout(self._settle_s):
                ids = engine_request_ids(generation.path, generation.request_id)
                if not await server.abort(ids, self._settle_s):
                    leg.cancel()  # without the abort route a closed connection is all that is left
                params = await leg
        except (WorkerError, TimeoutError, asyncio.CancelledError) as error:
            leg.cancel()
            log.debug("prefill of %s ended after its client had gone: %r", generation.request_id, error)
            return
        await self._release(pair, generation, params)

    async def _release(self, pair: Pair, generation: Generation, params: JsonObject) -> None:
        """Give prefill its KV back through the decode rank, or any other; if that fails the lease ends it."""
        others = [other.decode for other in self._pool.verified if other.prefill == pair.prefill]
        for rank in dict.fromkeys([pair.decode, *others]):
            try:
                await self._pool.server(rank).release(
                    generation.model,
                    params,
                    request_id=f"{generation.request_id}-release",
                    dp_rank=rank.dp_rank,
                    timeout_s=self._settle_s,
                )
            except EngineUnreachable as error:
                log.info("KV of %s was not released by %s: %s", generation.request_id, rank, error)
            except WorkerError as error:
                log.warning("KV of %s was not released by %s: %s", generation.request_id, rank, error)
                break
            else:
                self._metrics.releases.labels(result="released").inc()
                return
        self._metrics.releases.labels(result="left_to_lease").inc()
        log.warning("KV of %s is left to its lease", generation.request_id)

    def _lose(self, pair: Pair, error: EngineUnreachable) -> None:
        for rank in pair:
            if self._pool.server(rank).origin == error.origin:
                self._pool.lost(rank.worker, str(error))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


def _left_kv(error: BaseException) -> bool:
    """Whether a decode leg that failed like this has left the KV it was offered untouched."""
    if isinstance(error, EngineRefused):
        return not rejection_released_kv(error.status, error.body)
    return isinstance(error, EngineUnreachable)
