"""The gateway: one OpenAI-compatible address over a pool of prefill and decode ranks.

/v1/chat/completions  /v1/completions   served over two legs (handoff.py), answered as bytes (relay.py, split.py)
/v1/models                              the model and its aliases, marked as such
/health                                 200: this process is alive
/ready                                  200 if a request would be served, else 503 with the reason
/metrics                                what the gateway counts
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from random import Random

import msgspec

from baton.base.errors import RequestError, WorkerError
from baton.base.reply import Reply, Request
from baton.base.server import HttpServer, ServerLimits
from baton.engine.client import HttpClient
from baton.engine.errors import EngineTimeout, EngineUnreachable
from baton.engine.vllm import VllmServer
from baton.gateway import openai
from baton.gateway.handoff import RETRY_AFTER_S, EngineRefused, Generation, HandoffRunner
from baton.gateway.metrics import GatewayMetrics
from baton.gateway.pool import Pool
from baton.gateway.readiness import Readiness
from baton.gateway.relay import StreamFailed, relay
from baton.gateway.split import serve_split
from baton.policy.routing import Router
from baton.recipe.workers import WorkersFile

log = logging.getLogger("baton.gateway")

JSON = {"content-type": "application/json"}
_TRACE_HEADERS = ("traceparent", "tracestate")


class Gateway:
    """Answers requests for one deployment.

    random              source of request ids and canary nonces
    started_at_s        Unix seconds, shown by /v1/models
    request_timeout_s   the one deadline of a request, over both legs
    """

    def __init__(
        self, workers: WorkersFile, client: HttpClient, random: Random, *, started_at_s: float, request_timeout_s: float
    ) -> None:
        self.pool = Pool([VllmServer(client, worker) for worker in workers.workers])
        self.metrics = GatewayMetrics()
        self.runner = HandoffRunner(self.pool, Router(), self.metrics)
        self.readiness = Readiness(self.pool, workers.model, workers.dtype, random)
        self.watching: asyncio.Task[None] | None = None
        self._models = frozenset((workers.model, *workers.aliases))
        self._models_list = openai.models_list(workers.model, workers.aliases, int(started_at_s))
        self._random = random
        self._request_timeout_s = request_timeout_s

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one HTTP request; every outcome is a reply."""
        status, headers = 200, {}
        try:
            await self._route(request, reply)
            return
        except StreamFailed as error:
            if not error.client_knows:
                separator = b"" if error.at_event_boundary else b"\n\n"
                reply.write(separator + b"data: " + openai.error_body(502, str(error)) + b"\n\n")
            reply.end()
            status, body = 502, b""
        except EngineRefused as error:
            status, body = _engine_error(error)
        except RequestError as error:
            status, body = error.status, openai.error_body(error.status, error.message, error.kind, error.param)
            if error.retry_after_s is not None:
                headers["retry-after"] = str(int(error.retry_after_s))
        except EngineUnreachable as error:  # another try may find another pair, or this engine back
            status, body = 503, openai.error_body(503, str(error), "service_unavailable")
            headers["retry-after"] = str(RETRY_AFTER_S)
        except EngineTimeout as error:
            status, body = 504, openai.error_body(504, str(error))
        except WorkerError as error:
            status, body = 502, openai.error_body(502, str(error))
        self._count(request, status)
        if not reply.started:
            reply.send(status, JSON | headers, body)

    async def _route(self, request: Request, reply: Reply) -> None:
        match request.method, request.path:
            case "POST", openai.CHAT | openai.COMPLETIONS:
                await self._generate(request, reply)
                self._count(request, 200)
            case "GET" | "HEAD", "/v1/models":
                reply.send(200, JSON, self._models_list)
            case "GET" | "HEAD", "/health":
                reply.send(200, JSON, b'{"alive":true}')
            case "GET" | "HEAD", "/ready":
                state = self.pool.describe()
                reply.send(200 if state["ready"] else 503, JSON, msgspec.json.encode(state))
            case "GET" | "HEAD", "/metrics":
                self.metrics.verified_pairs.set(len(self.pool.verified))
                reply.send(200, {"content-type": "text/plain; version=0.0.4; charset=utf-8"}, self.metrics.text())
            case _, openai.CHAT | openai.COMPLETIONS | "/v1/models" | "/health" | "/ready" | "/metrics":
                raise RequestError(405, f"{request.method} is not allowed on {request.path}.")
            case _:
                raise RequestError(404, f"There is no {request.path} here.", kind="NotFoundError")

    async def _generate(self, request: Request, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        call = openai.read_call(request.path, request.headers, request.body, self._models)
        request_id = f"{self._random.getrandbits(128):032x}"
        if call.decode_alone:
            self.metrics.decode_alone.labels(reason=call.decode_alone).inc()
        generation = Generation(
            path=call.path,
            model=call.model,
            request_id=request_id,
            deadline_s=arrived_s + self._request_timeout_s,
            headers={name: request.headers[name] for name in _TRACE_HEADERS if name in request.headers},
            decode_alone=bool(call.decode_alone),
        )
        headers = {"x-request-id": request_id, "x-baton-legs": "decode" if call.decode_alone else "prefill+decode"}

        def on_first() -> None:
            self.metrics.ttft_seconds.observe(loop.time() - arrived_s)

        with self.metrics.in_flight.track_inprogress():
            if len(call.singles) > 1:
                await serve_split(self.runner, call, generation, reply, headers, on_first)
                return
            async with self.runner.decoding(generation, call.singles[0]) as response:
                await relay(response, reply, headers, on_first)

    def _count(self, request: Request, status: int) -> None:
        if request.path in (openai.CHAT, openai.COMPLETIONS):
            self.metrics.requests.labels(path=request.path, status=str(status)).inc()


def _engine_error(error: EngineRefused) -> tuple[int, bytes]:
    """An engine's error as the client gets it: its own body where that has OpenAI's shape, and its status."""
    try:
        shaped = isinstance(msgspec.json.decode(error.body)["error"]["message"], str)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError):
        shaped = False
    if shaped and error.status >= 400:
        return error.status, error.body
    status = error.status if 400 <= error.status < 500 else 502
    return status, openai.error_body(status, str(error))


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
) -> AsyncIterator[tuple[Gateway, str]]:
    """Run a gateway while the block runs; gives it and its base URL.

    Its `watching` keeps the pool true and never ends by itself: if it does, the gateway must not go on.
    grace_s   how long requests may go on after the block has ended
    Raises    OSError when the address cannot be had
    """
    client = HttpClient(connect_timeout_s=5.0)
    gateway = Gateway(workers, client, random, started_at_s=started_at_s, request_timeout_s=request_timeout_s)
    server = HttpServer(gateway.handle, openai.error_body, ServerLimits(max_body_bytes=max_body_bytes))
    await server.start(host, port)
    gateway.watching = asyncio.create_task(gateway.readiness.run())
    bound_host, bound_port = server.address
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    try:
        yield gateway, f"http://{shown}:{bound_port}"
    finally:
        gateway.watching.cancel()
        await asyncio.wait([gateway.watching])
        await server.stop(grace_s)
        await gateway.runner.settle()
        client.close()
