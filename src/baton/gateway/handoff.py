"""One single generation over its two legs: reserve, prefill, hand over, decode; and what is owed when it ends early.

Every end settles with the engines: a running prefill is aborted by id, KV that prefill holds for nobody is released, a
running decode ends with its connection. Settling goes on in the background after the client has gone.

A generation whose engine vanished before the client got anything is tried again on another pair, if there is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import monotonic
from typing import Any, TypeAlias

import msgspec

from baton.base.errors import RequestError, WorkerError
from baton.engine.errors import EngineDisconnected, EngineError, EngineUnreachable
from baton.engine.kv_transfer import (
    JsonObject,
    decode_body,
    num_blocks,
    prefill_body,
    read_prefilled,
    rejection_released_kv,
)
from baton.engine.response import Response
from baton.engine.vllm import VllmServer, engine_request_ids
from baton.gateway.door import Door, Entry
from baton.gateway.ledger import Ledger
from baton.gateway.metrics import GatewayMetrics
from baton.gateway.openai import Body
from baton.gateway.pool import Pool
from baton.gateway.remote_router import RemoteRouter
from baton.gateway.tracing import Trace
from baton.policy.handoff import Debt, Handoff, State
from baton.policy.rank import Pair
from baton.policy.routing import Ask, Router

log = logging.getLogger("baton.gateway")

RETRY_AFTER_S = 5
"""What clients are told to wait when no pair is ready: an engine comes back in 20 s at best."""

_MAX_ANSWER_BYTES = 16 << 20


AnyRouter: TypeAlias = Router | RemoteRouter
AnyReservation: TypeAlias = Any
"""a router's own: Router's Reservation, RemoteRouter's RemoteReservation"""


class EngineRefused(WorkerError):
    """An engine answered a leg with an error; its own words are the answer to the client."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"engine answered {status}: {body[:300].decode(errors='replace')}")
        self.status = status
        self.body = body


class Generation:
    """What one generation needs besides its body, and what becomes of it.

    deadline_s   absolute, on the loop's clock
    prefill_headers, decode_headers   passed on to the engines, such as trace context
    request_id   what the engines know it by; of several generations of one request each has its own
    client_id    what the client knows the request by
    entry        what it brings to the door; None where it has been let in
    reservation  None until a pair is reserved
    outcome      the last state of its last try
    num_output_tokens   events passed on, or what the engine says; 0 while unknown
    """

    __slots__ = (
        "ask", "client_id", "deadline_s", "decode_headers", "entry", "ledger", "model", "num_cached_tokens",
        "num_kv_blocks", "num_output_tokens", "num_prompt_bytes", "num_prompt_tokens", "outcome", "path",
        "prefill_headers", "request_id", "reservation", "trace",
    )  # fmt: skip

    def __init__(
        self, path: str, model: str, request_id: str, deadline_s: float, headers: Mapping[str, str], ask: Ask,
        num_prompt_bytes: int, ledger: Ledger,
    ) -> None:  # fmt: skip
        self.path = path
        self.model = model
        self.request_id = self.client_id = request_id
        self.deadline_s = deadline_s
        self.prefill_headers = self.decode_headers = headers
        self.ask = ask
        self.num_prompt_bytes = num_prompt_bytes
        self.ledger = ledger
        self.entry: Entry | None = None
        self.reservation: AnyReservation | None = None
        self.num_prompt_tokens: int | None = None
        self.num_cached_tokens: int | None = None
        self.num_output_tokens = self.num_kv_blocks = 0
        self.outcome = ""
        self.trace: Trace | None = None


class HandoffRunner:
    """Runs generations on a pool.

    door          admits requests; None: all at once, or, with a RemoteRouter, as the router process does
    settle_s      bounds the work that is left after a request has ended early
    max_retries   further tries of a generation whose engine vanished before the client got anything
    """

    def __init__(
        self,
        pool: Pool,
        router: AnyRouter,
        metrics: GatewayMetrics,
        *,
        door: Door | None = None,
        settle_s: float = 30.0,
        max_retries: int = 2,
    ) -> None:
        self.router = router
        self.door = door
        self._pool = pool
        self._metrics = metrics
        self._settle_s = settle_s
        self._max_retries = max_retries
        self._settling: set[asyncio.Task[None]] = set()

    async def run(
        self,
        generation: Generation,
        body: Body,
        deliver: Callable[[Response], Awaitable[None]],
        begun: Callable[[], bool],
    ) -> None:
        """Serve one generation: `deliver` gets the decode rank's response, status 200, once prefill has handed over.

        begun    whether the client has got anything: from then on a generation is not tried again
        Raises   RequestError 503 when no pair may serve; EngineRefused, EngineError, NoKvOffered, what deliver raises
        """
        avoid: tuple[str, ...] = ()
        for num_retries_left in range(self._max_retries, -1, -1):
            reservation = await self._reserve(generation, avoid)
            try:
                await self._once(generation, body, reservation, deliver)
                return
            except (EngineUnreachable, EngineDisconnected) as error:
                avoid = (*avoid, self._worker(reservation.pair, error))
                others = any(
                    pair.prefill.worker not in avoid and pair.decode.worker not in avoid for pair in self._pool.verified
                )
                if begun() or not num_retries_left or not others:
                    raise
                self._metrics.retries.of("decode" if generation.ledger.prefilled else "prefill").inc()
                generation.ledger.retry(monotonic())

    async def settle(self) -> None:
        """Wait for what earlier requests still owe the engines."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=self._settle_s)

    async def enter(self, entry: Entry) -> bool:
        """Let a request of several generations in, for all of them; whether it has waited.

        Raises   RequestError 401, 429, 503
        """
        if isinstance(self.router, RemoteRouter):
            return await self.router.enter(entry)
        return self.door is not None and await self.door.enter(entry)

    def left(self, entry: Entry, num_used: int) -> None:
        """A request that was let in has ended, and took so many tokens."""
        if isinstance(self.router, RemoteRouter):
            self.router.left(entry, num_used)
        elif self.door is not None:
            self.door.settle(entry, num_used)

    async def _reserve(self, generation: Generation, avoid: tuple[str, ...]) -> AnyReservation:
        reservation: AnyReservation | None
        entry = generation.entry
        try:
            if isinstance(self.router, RemoteRouter):
                reservation = await self.router.reserve(generation.ask, monotonic(), avoid, generation.client_id, entry)
                if reservation is not None:
                    generation.ledger.admitted += reservation.waited_s
            else:
                if entry is not None and self.door is not None and await self.door.enter(entry):
                    generation.ledger.admitted = monotonic()
                reservation = self.router.reserve(generation.ask, monotonic(), avoid)
        except RequestError:
            self._shed(generation)
            raise
        generation.entry, generation.reservation = None, reservation
        if reservation is None:
            self._shed(generation)
            raise RequestError(
                503,
                f"No pair of ranks is ready: {self._pool.not_ready_reason()}",
                kind="service_unavailable",
                retry_after_s=RETRY_AFTER_S,
            )
        return reservation

    def _shed(self, generation: Generation) -> None:
        generation.outcome = State.SHED
        self._metrics.generations.of(State.SHED).inc()

    async def _once(
        self,
        generation: Generation,
        body: Body,
        reservation: AnyReservation,
        deliver: Callable[[Response], Awaitable[None]],
    ) -> None:
        """One try, from its reservation to its one outcome."""
        handoff, params, pair, ledger = Handoff(), None, reservation.pair, generation.ledger
        try:
            if not reservation.local:
                handoff.to(State.PREFILLING)
                params = await self._prefill(pair, generation, body)
                ledger.prefilled = monotonic()
                self.router.prefilled(
                    reservation, ledger.prefilled, generation.num_prompt_tokens, generation.num_cached_tokens
                )
                handoff.to(State.HANDED_OFF)
                body = decode_body(body, params)
            response = await self._decode(pair, generation, body, lambda: handoff.to(State.DECODING))
            with response:
                await deliver(response)
            handoff.to(State.COMPLETED)
        except BaseException as error:
            self._failed(generation, reservation, handoff, params, error)
            raise
        finally:
            ledger.ended = now_s = ledger.ended or monotonic()
            if ledger.prefill_sent:
                self._metrics.prefill_leg.observe((ledger.prefilled or now_s) - ledger.prefill_sent)
            if ledger.decode_sent:
                self._metrics.decode_leg.observe(now_s - ledger.decode_sent)
            completed = handoff.state is State.COMPLETED
            self.router.release(reservation, now_s, generation.num_output_tokens, completed)
            if self.door is not None:
                self.door.queue.wake()
            generation.outcome = handoff.state
            self._metrics.generations.of(handoff.state).inc()

    def _failed(
        self,
        generation: Generation,
        reservation: AnyReservation,
        handoff: Handoff,
        params: JsonObject | None,
        error: BaseException,
    ) -> None:
        """A try ends early: note it, and pay what is owed."""
        if isinstance(error, EngineUnreachable):
            self._lose(reservation.pair, error)
        left = handoff.state
        ended = State.CANCELLED if isinstance(error, (asyncio.CancelledError, GeneratorExit)) else State.FAILED
        debt = handoff.to(ended)
        if params and (debt is Debt.RELEASE_KV or _left_kv(error)):
            self._in_background(self._release(reservation.pair, generation, params))
        log.info("request %s %s while %s: %s", generation.request_id, ended, left, error or type(error).__name__)

    async def _prefill(self, pair: Pair, generation: Generation, body: Body) -> JsonObject:
        server, raw = self._pool.server(pair.prefill), msgspec.json.encode(prefill_body(body))
        response = None
        try:
            for fresh in (False, True):
                response = await _started(server, generation, raw, pair.prefill.dp_rank, fresh=fresh)
                generation.ledger.prefill_sent = monotonic()
                try:
                    answer = await response.whole(_MAX_ANSWER_BYTES)
                    break
                except EngineDisconnected:
                    if fresh or not response.unheard:
                        raise
        except asyncio.CancelledError:
            # The connection stays: cut now, the address of KV that is finished all the same would be lost.
            if response is not None:
                self._in_background(self._abandon_prefill(pair, generation, response))
            raise
        assert response is not None, "the loop ends with an answer or an error"
        if response.status != 200:
            raise EngineRefused(response.status, answer)
        prefilled = read_prefilled(answer)
        generation.num_prompt_tokens, generation.num_cached_tokens = (
            prefilled.num_prompt_tokens,
            prefilled.num_cached_tokens,
        )
        assert prefilled.kv_transfer_params is not None, "read_prefilled checks it"
        generation.num_kv_blocks = num_blocks(prefilled.kv_transfer_params)
        return prefilled.kv_transfer_params

    async def _decode(self, pair: Pair, generation: Generation, body: Body, on_sent: Callable[[], object]) -> Response:
        server, raw = self._pool.server(pair.decode), msgspec.json.encode(body)
        for fresh in (False, True):
            response = await _started(server, generation, raw, pair.decode.dp_rank, fresh=fresh, decode=True)
            if not fresh:
                generation.ledger.decode_sent = monotonic()
                on_sent()
            try:
                await response.head()
                break
            except EngineDisconnected:
                if fresh or not response.unheard:
                    raise
            except BaseException:
                response.close()
                raise
        if response.status != 200:
            raise EngineRefused(response.status, await response.read(_MAX_ANSWER_BYTES))
        return response

    async def _abandon_prefill(self, pair: Pair, generation: Generation, response: Response) -> None:
        """Stop a prefill nobody waits for; if it finishes first, release what it computed."""
        server = self._pool.server(pair.prefill)
        try:
            async with asyncio.timeout(self._settle_s):
                ids = engine_request_ids(generation.path, generation.request_id)
                if not await server.abort(ids, self._settle_s):
                    return  # without the abort route a closed connection is all that is left
                answer = await response.whole(_MAX_ANSWER_BYTES)
                if response.status != 200:
                    return
                params = read_prefilled(answer).kv_transfer_params
        except (WorkerError, TimeoutError) as error:
            log.debug("prefill of %s ended after its client had gone: %r", generation.request_id, error)
            return
        finally:
            response.close()
        if params:
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
                self._metrics.releases.of("released").inc()
                return
        self._metrics.releases.of("left_to_lease").inc()
        log.warning("KV of %s is left to its lease", generation.request_id)

    def _lose(self, pair: Pair, error: EngineUnreachable) -> None:
        for rank in pair:
            if self._pool.server(rank).origin == error.origin:
                self._pool.lost(rank.worker, str(error))

    def _worker(self, pair: Pair, error: EngineError) -> str:
        """The worker of a pair that an error came from."""
        return next(rank.worker for rank in pair if self._pool.server(rank).origin == error.origin)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


async def _started(
    server: VllmServer, generation: Generation, raw: bytes, dp_rank: int, *, fresh: bool, decode: bool = False
) -> Response:
    return await server.start(
        generation.path,
        raw,
        request_id=generation.request_id,
        dp_rank=dp_rank,
        deadline_s=generation.deadline_s,
        headers=generation.decode_headers if decode else generation.prefill_headers,
        fresh=fresh,
    )


def _left_kv(error: BaseException) -> bool:
    """Whether a decode leg that failed like this has left the KV it was offered untouched."""
    if isinstance(error, EngineRefused):
        return not rejection_released_kv(error.status, error.body)
    return isinstance(error, EngineUnreachable)
