"""The gateway: one OpenAI-compatible address over a pool of prefill and decode ranks.

/v1/chat/completions  /v1/completions   served over two legs (handoff.py), answered as bytes (relay.py, split.py)
/v1/models                              the model and its aliases, marked as such
/health                                 200: this process is alive
/ready                                  200 if a request would be served, else 503 with the reason
/debug/routes                           the latest routing decisions, explained, and what they rest on
/metrics                                what the gateway counts
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from random import Random
from time import monotonic

import msgspec

from baton.base.errors import BugError, RequestError, WorkerError
from baton.base.reply import Reply, Request
from baton.base.server import HttpServer, ServerLimits
from baton.engine.client import HttpClient
from baton.engine.kv_feeds import KvFeeds
from baton.engine.vllm import VllmServer
from baton.gateway import openai
from baton.gateway.access_log import AccessLog
from baton.gateway.door import Door
from baton.gateway.exact_prompts import ExactPrompts
from baton.gateway.failures import JSON, answer_error
from baton.gateway.handoff import AnyRouter, HandoffRunner
from baton.gateway.keys import Keys
from baton.gateway.loop_lag import EventLoopLag
from baton.gateway.metrics import GatewayMetrics, RankRequests
from baton.gateway.pool import Pool
from baton.gateway.prompts import Prompts
from baton.gateway.queue import AdmissionQueue
from baton.gateway.readiness import Readiness
from baton.gateway.remote_router import RemoteRouter
from baton.gateway.routes import Routes
from baton.gateway.serving import Serving
from baton.gateway.tracing import Tracing
from baton.policy.admission import Admission
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.prefix_index import PrefixIndex
from baton.policy.routing import Router
from baton.policy.step_times import StepTimes
from baton.recipe.recipe import Gateway as InRecipe
from baton.recipe.recipe import Role
from baton.recipe.workers import WorkersFile

MAX_PREFIX_BLOCKS = 1 << 17
"""of 512 bytes: 16 million tokens, more than the prefill ranks of a 32-GPU deployment can hold"""
_LAG_PERIOD_S = 0.25


class Gateway:
    """Answers requests for one deployment.

    random              source of request ids and canary nonces
    router              chooses the pair of every request: here, or, for a front, in the router process; None = here
    exact_prefixes      route by tokens and the ranks' KV events, where the router's index is of ExactPrefixes
    admission, keys     who is let in, and when; a front reads keys only to know whom it serves
    started_at_s        Unix seconds, shown by /v1/models
    request_timeout_s   the one deadline of a request, over both legs
    """

    def __init__(
        self,
        workers: WorkersFile,
        client: HttpClient,
        random: Random,
        *,
        started_at_s: float,
        request_timeout_s: float,
        router: AnyRouter | None = None,
        admission: Admission | None = None,
        keys: Keys | None = None,
        exact_prefixes: bool = False,
        access_log: AccessLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        router = router or Router(index=PrefixIndex(MAX_PREFIX_BLOCKS), times=StepTimes())
        usual = InRecipe()
        admission = admission or Admission(max_queued=usual.max_queued, hold_s=usual.hold_s)
        keys = keys or Keys(None, admission.classes, usual.ttft_deadline_s, 0.0)
        self.pool = Pool([VllmServer(client, worker) for worker in workers.workers], router)
        self.metrics = GatewayMetrics()
        routes_here = not isinstance(router, RemoteRouter)

        def predicted_wait_s(now_s: float) -> float:
            return 0.0 if isinstance(router, RemoteRouter) else router.predicted_wait_s(now_s, admission.hold_s)

        self.door = Door(AdmissionQueue(admission, predicted_wait_s, self.metrics), keys)
        self.pool.on_change = self.door.queue.wake
        self.runner = HandoffRunner(self.pool, router, self.metrics, door=self.door if routes_here else None)
        self.feeds: KvFeeds | None = None
        self._prompts = Prompts()
        if exact_prefixes:
            index = router if isinstance(router, RemoteRouter) else router.index
            if isinstance(index, ExactPrefixes):
                self.feeds = KvFeeds(workers.workers, index)
            elif not isinstance(index, RemoteRouter):
                raise BugError("exact prefixes need a router whose index is ExactPrefixes")
            told = index
            self._prompts = ExactPrompts(lambda: told.block_size, lambda: self.pool.servers_there(Role.PREFILL))
        self.routes = Routes(self.feeds)
        self.readiness = Readiness(self.pool, workers.model, workers.dtype, random)
        self.watching: asyncio.Task[None] | None = None
        self.hang_up_fronts: Callable[[], None] = lambda: None
        self._models = frozenset((workers.model, *workers.aliases))
        self._models_list = openai.models_list(workers.model, workers.aliases, int(started_at_s))
        self._random = random
        self._request_timeout_s = request_timeout_s
        self._access_log = access_log
        self._tracing = tracing

    @cached_property
    def serving(self) -> Serving:
        """What answers generation requests; made with the first, so that `runner` may be replaced before."""
        return Serving(
            self.runner,
            self.metrics,
            self.door,
            self._prompts,
            self.routes,
            self._models,
            self._random,
            request_timeout_s=self._request_timeout_s,
            access_log=self._access_log,
            tracing=self._tracing,
        )

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one HTTP request; every outcome is a reply."""
        if request.method == "POST" and request.path in (openai.CHAT, openai.COMPLETIONS):
            await self.serving.serve(request, reply)
            return
        try:
            await self._answer(request, reply)
        except (RequestError, WorkerError) as error:
            answer_error(error, reply)

    async def run(self) -> None:
        """The background work: keep the pool true, watch the loop; never ends by itself.

        Raises   WorkerError in a front whose router process is gone
        """
        lag = EventLoopLag(self.metrics.loop_lag_seconds, period_s=_LAG_PERIOD_S, clock_s=monotonic)
        router = self.runner.router
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(router.watch() if isinstance(router, RemoteRouter) else self.readiness.run())
            tasks.create_task(lag.run())
            if self.feeds is not None:
                tasks.create_task(self.feeds.run())

    async def _answer(self, request: Request, reply: Reply) -> None:
        match request.method, request.path:
            case "GET" | "HEAD", "/v1/models":
                reply.send(200, JSON, self._models_list)
            case "GET" | "HEAD", "/health":
                reply.send(200, JSON, b'{"alive":true}')
            case "GET" | "HEAD", "/ready":
                state = self.pool.describe()
                reply.send(200 if state["ready"] else 503, JSON, msgspec.json.encode(state))
            case "GET" | "HEAD", "/metrics":
                text = await self._ask_router(request.path) or self.metrics_text()
                reply.send(200, {"content-type": "text/plain; version=0.0.4; charset=utf-8"}, text)
            case "GET" | "HEAD", "/debug/routes":
                self.door.keys.of(request.headers)
                text = await self._ask_router(request.path) or msgspec.json.encode(self.serving.explain())
                reply.send(200, JSON, text)
            case (
                _,
                openai.CHAT | openai.COMPLETIONS | "/v1/models" | "/health" | "/ready" | "/metrics" | "/debug/routes",
            ):
                raise RequestError(405, f"{request.method} is not allowed on {request.path}.")
            case _:
                raise RequestError(404, f"There is no {request.path} here.", kind="NotFoundError")

    async def _ask_router(self, path: str) -> bytes:
        """What all processes say together; nothing if there is only this one."""
        router = self.runner.router
        return await router.ask(path) if isinstance(router, RemoteRouter) else b""

    def metrics_text(self) -> bytes:
        """What this process counts."""
        router = self.runner.router
        self.metrics.scraped(
            num_pairs=len(self.pool.pairs),
            num_verified_pairs=len(self.pool.verified),
            rank_requests=[
                RankRequests(rank.worker, rank.dp_rank, str(state.server.worker.role), router.load(rank))
                for state in self.pool.workers.values()
                for rank in state.ranks
                if isinstance(router, Router)
            ],
            queue_lengths=self.door.queue.lengths(),
            num_prefix_blocks=len(router.index) if isinstance(router, Router) else 0,
            num_access_log_lines_lost=self._access_log.num_lines_lost if self._access_log else 0,
        )
        return self.metrics.text()


@contextlib.asynccontextmanager
async def serve(
    workers: WorkersFile,
    host: str,
    port: int,
    *,
    random: Random,
    started_at_s: float,
    request_timeout_s: float,
    max_body_bytes: int,
    grace_s: float = 10.0,
    router: AnyRouter | None = None,
    admission: Admission | None = None,
    keys: Keys | None = None,
    exact_prefixes: bool = False,
    access_log: AccessLog | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[tuple[Gateway, str]]:
    """Run a gateway while the block runs; gives it and its base URL.

    Its `watching` keeps the pool true and never ends by itself: if it does, the gateway must not go on.
    grace_s   how long requests may go on after the block has ended
    router    a RemoteRouter makes it one of several fronts that share the address
    Raises    OSError when the address, or the router process, cannot be had
    """
    client = HttpClient(connect_timeout_s=5.0)
    gateway = Gateway(
        workers,
        client,
        random,
        started_at_s=started_at_s,
        request_timeout_s=request_timeout_s,
        router=router,
        admission=admission,
        keys=keys,
        exact_prefixes=exact_prefixes,
        access_log=access_log,
        tracing=tracing,
    )
    server = HttpServer(gateway.handle, openai.error_body, ServerLimits(max_body_bytes=max_body_bytes))
    if isinstance(router, RemoteRouter):
        await router.connect(gateway.pool.ranks, state_changed=gateway.pool.mirror, metrics=gateway.metrics_text)
    await server.start(host, port, reuse_port=isinstance(router, RemoteRouter))
    gateway.watching = asyncio.create_task(gateway.run())
    bound_host, bound_port = server.address
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    try:
        yield gateway, f"http://{shown}:{bound_port}"
    finally:
        gateway.watching.cancel()
        await asyncio.wait([gateway.watching])
        gateway.door.queue.close()
        await server.stop(grace_s)
        await gateway.runner.settle()
        if isinstance(router, RemoteRouter):
            router.close()
        client.close()
