"""One chat or completions request from its body to its reply, and what is kept of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from time import monotonic
from typing import Any

from baton.base.errors import RequestError, WorkerError
from baton.base.reply import Reply, Request
from baton.engine.response import Response
from baton.gateway import openai
from baton.gateway.access_log import AccessLine, AccessLog
from baton.gateway.door import Door, Entry
from baton.gateway.failures import answer_error
from baton.gateway.handoff import Generation, HandoffRunner
from baton.gateway.ledger import Ledger
from baton.gateway.metrics import GatewayMetrics
from baton.gateway.prompts import Prompts
from baton.gateway.queue import PRIORITY_HEADER
from baton.gateway.relay import relay
from baton.gateway.routes import Routes
from baton.gateway.split import serve_split
from baton.gateway.tracing import CONTEXT_HEADERS, Trace, Tracing
from baton.policy.routing import Router

ROUTE_HEADER = "x-baton-route"
"""On a request: explain the route; on its reply: the explanation."""
SESSION_HEADER = "x-session-id"
"""Requests of one session prefer the pair that served it last."""
_USUAL_OSL = 256
"""Charged for the output of a request that names no limit, until it has ended."""
CLIENT_LEFT = 499
"""The status of a request whose client did not wait, in logs and metrics; by nginx's convention, for HTTP has none."""


class Serving:
    """Serves requests through a runner.

    door                where requests come in
    prompts             what the router is told of prompts
    routes              keeps the decisions
    models              the names that are served
    random              source of request ids
    request_timeout_s   the one deadline of a request, over both legs
    access_log          None = none
    tracing             None: trace context passes through as it came
    """

    def __init__(
        self,
        runner: HandoffRunner,
        metrics: GatewayMetrics,
        door: Door,
        prompts: Prompts,
        routes: Routes,
        models: frozenset[str],
        random: Random,
        *,
        request_timeout_s: float,
        access_log: AccessLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._runner = runner
        self._metrics = metrics
        self._door = door
        self._models = models
        self._random = random
        self._request_timeout_s = request_timeout_s
        self._access_log = access_log
        self._tracing = tracing
        self._prompts = prompts
        self._routes = routes

    async def serve(self, request: Request, reply: Reply) -> None:
        """Answer one request; every outcome is a reply, but for a client that has left."""
        ledger, call, generations, entry, error_text = Ledger(monotonic()), None, [], None, None
        trace = self._tracing.begin(request.headers) if self._tracing else None
        status = CLIENT_LEFT
        try:
            key = self._door.keys.of(request.headers)
            call = openai.read_call(request.path, request.headers, request.body, self._models)
            priority = self._door.queue.priority(request.headers.get(PRIORITY_HEADER, ""))
            generations = await self._generations(request, call, ledger, trace)
            entry = generations[0].entry = Entry(key, _num_tokens(generations), priority)
            await self._generate(request, call, generations, reply)
            status = 200
        except (WorkerError, RequestError) as error:
            status, error_text = answer_error(error, reply), str(error)
        finally:
            self._metrics.requests.of(request.path, str(status)).inc()
            self._learn(generations)
            if entry is not None and generations[0].entry is None and entry.key:
                self._runner.left(entry, _num_used(generations))
            if self._access_log or trace:
                self._record(request, reply, call, generations, ledger, trace, status, error_text)

    def explain(self) -> dict[str, Any]:
        """The /debug/routes answer of a process that routes itself: the latest decisions, and what they rest on."""
        router = self._runner.router
        assert isinstance(router, Router), "a front asks the router process"
        return {**self._routes.explain(router), "tokens_per_byte": self._prompts.tokens_per_byte}

    async def _generate(self, request: Request, call: openai.Call, generations: list[Generation], reply: Reply) -> None:
        metrics, explain = self._metrics, ROUTE_HEADER in request.headers
        request_id = generations[0].client_id
        if call.decode_alone:
            metrics.decode_alone.of(call.decode_alone).inc()

        def headers(of: Generation) -> dict[str, str]:
            return self._reply_headers(of, request_id, explain)

        metrics.in_flight.inc()
        try:
            if len(generations) == 1:
                await self._single(generations[0], call.singles[0], reply, headers)
            else:
                await self._enter(generations)
                await serve_split(self._runner, call, generations, reply, headers, metrics.itl_seconds)
        finally:
            metrics.in_flight.dec()
        metrics.e2e_seconds.observe(monotonic() - generations[0].ledger.arrived)

    async def _enter(self, generations: list[Generation]) -> None:
        """Let a request of several generations in, once for all of them."""
        entry = generations[0].entry
        assert entry is not None, "the first brings it"
        has_waited = await self._runner.enter(entry)
        generations[0].entry = None
        if has_waited:
            now_s = monotonic()
            for generation in generations:
                generation.ledger.admitted = now_s

    async def _single(
        self, generation: Generation, body: openai.Body, reply: Reply, headers: Callable[[Generation], dict[str, str]]
    ) -> None:
        itl = self._metrics.itl_seconds

        async def deliver(response: Response) -> None:
            await relay(response, reply, lambda: headers(generation), generation, itl)

        await self._runner.run(generation, body, deliver, lambda: reply.started)

    async def _generations(
        self, request: Request, call: openai.Call, ledger: Ledger, trace: Trace | None
    ) -> list[Generation]:
        request_id = f"{self._random.getrandbits(128):032x}"
        deadline_s = asyncio.get_running_loop().time() + self._request_timeout_s
        sent = request.headers
        headers = {} if trace else {name: sent[name] for name in CONTEXT_HEADERS if name in sent}
        session = sent.get(SESSION_HEADER, "")
        several = len(call.singles) > 1
        asks = await self._prompts.asks(call, session)
        ledger.admitted = monotonic()
        generations = []
        for index, (ask, num_bytes) in enumerate(asks):
            made = Generation(call.path, call.model, request_id, deadline_s, headers, ask, num_bytes, ledger)
            if several:
                made.request_id, made.ledger = f"{request_id}-{index}", ledger.fork()
            if trace and self._tracing:
                made.trace = self._tracing.part(trace) if several else trace
                made.prefill_headers, made.decode_headers = made.trace.prefill_headers(), made.trace.decode_headers()
            generations.append(made)
        return generations

    def _reply_headers(self, generation: Generation, request_id: str, explain: bool) -> dict[str, str]:
        """The reply's own headers, once its first byte is here."""
        ledger, reservation = generation.ledger, generation.reservation
        assert reservation is not None, "what answers was reserved"
        if ledger.first_byte:
            self._runner.router.decoding(reservation, ledger.first_byte)
            self._metrics.first_byte(ledger, reservation.decision.ttft_s)
        headers = {
            "x-request-id": request_id,
            "x-baton-legs": "decode" if reservation.local else "prefill+decode",
            "server-timing": ledger.server_timing(),
        }
        if explain:
            headers[ROUTE_HEADER] = reservation.decision.text()
        self._routes.add(request_id, reservation.decision)
        return headers

    def _learn(self, generations: list[Generation]) -> None:
        """Count what was served, and take over what the engines have said of prompts."""
        metrics = self._metrics
        for generation in generations:
            num_tokens, reservation = generation.num_prompt_tokens, generation.reservation
            if reservation is not None:
                metrics.prefix_hit_tokens_predicted.n += reservation.decision.num_prefill_hit_tokens
            if generation.ledger.first_byte:
                metrics.output_events.n += generation.num_output_tokens
            if num_tokens is not None:
                self._prompts.learn(generation.num_prompt_bytes, num_tokens)
                metrics.prompt_tokens.n += num_tokens
            metrics.kv_blocks_handed_over.n += generation.num_kv_blocks
            if generation.num_cached_tokens is not None:
                metrics.prefix_hit_tokens_reported.n += generation.num_cached_tokens

    def _record(
        self,
        request: Request,
        reply: Reply,
        call: openai.Call | None,
        generations: list[Generation],
        ledger: Ledger,
        trace: Trace | None,
        status: int,
        error: str | None,
    ) -> None:
        """Write the request's line, and its spans."""
        first = next(
            (one for one in generations if one.outcome != "completed"), generations[0] if generations else None
        )
        if first is not None:
            ledger = first.ledger
        ledger.ended = ledger.ended or monotonic()
        line = AccessLine(
            time=datetime.now(UTC),
            request_id=first.client_id if first else "",
            path=request.path,
            status=status,
            model=call.model if call else None,
            outcome=(first.outcome or None) if first else None,
            stream=call.stream if call else False,
            num_prompt_tokens=first.num_prompt_tokens if first else None,
            num_output_tokens=sum(one.num_output_tokens for one in generations) if generations else None,
            sent_bytes=reply.sent_bytes,
            client=request.peer,
            trace_id=trace.name if trace else None,
            error=error,
        )
        if first and first.reservation:
            line.prefill = None if first.reservation.local else str(first.reservation.pair.prefill)
            line.decode = str(first.reservation.pair.decode)
        if trace and self._tracing:
            for one in generations:
                self._tracing.legs(one.trace or trace, one.ledger, line)
            self._tracing.request(trace, ledger, line)
        if self._access_log:
            self._access_log.write(line, ledger)


def _num_tokens(generations: list[Generation]) -> int:
    """What a request may take, prompts and outputs, before anything is known of it."""
    return sum(
        one.ask.num_prompt_tokens + (_USUAL_OSL if one.ask.max_output_tokens is None else one.ask.max_output_tokens)
        for one in generations
    )


def _num_used(generations: list[Generation]) -> int:
    """What it took; a prompt that no engine has counted as it was estimated."""
    return sum(
        (one.num_prompt_tokens or one.ask.num_prompt_tokens) + one.num_output_tokens
        for one in generations
        if one.reservation is not None
    )
