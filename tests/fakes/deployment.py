"""A whole deployment in one process: stand-in engines, the real gateway between them and the test, real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from baton.base.server import HttpServer
from baton.engine.client import HttpClient
from baton.engine.origin import Origin
from baton.engine.response import Response
from baton.engine.stand_in.requests import CHAT, COMPLETIONS
from baton.gateway import openai
from baton.gateway.app import Gateway
from baton.gateway.readiness import Readiness
from baton.policy.rank import RankId
from baton.recipe.recipe import Role
from baton.recipe.workers import WorkersFile
from fakes.observed import ALIAS, MODEL, ObservedEngine

LIMIT_S = 15.0
"""No test waits this long unless it fails."""


async def eventually(true: Callable[[], object], what: str = "the condition") -> None:
    """Return once `true()` is; a wait for something that must happen, bounded."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not true():  # noqa: ASYNC110 (what is waited for lies in engines that know nothing of a waiter)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true in {LIMIT_S} s") from None


@dataclass(frozen=True)
class Got:
    """One whole HTTP answer."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which must have OpenAI's shape."""
        error: dict[str, Any] = self.json["error"]
        assert isinstance(error["message"], str)
        assert error["message"]
        assert {"type", "param", "code"} <= error.keys()
        return error

    @property
    def payloads(self) -> list[bytes]:
        """The data of each server-sent event."""
        assert self.raw.endswith(b"\n\n")
        events = self.raw.removesuffix(b"\n\n").split(b"\n\n")
        assert all(event.startswith(b"data: ") for event in events), self.raw
        return [event.removeprefix(b"data: ") for event in events]

    @property
    def events(self) -> list[Any]:
        """The JSON events of a stream that ended as it should."""
        *events, done = self.payloads
        assert done == b"[DONE]"
        return [json.loads(event) for event in events]


class Http:
    """A test's HTTP client of one address."""

    def __init__(self, client: HttpClient, url: str) -> None:
        self._client = client
        self._origin = Origin.parse(url)

    async def open(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Response:
        """Send, and return with the answer's head."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        deadline_s = asyncio.get_running_loop().time() + LIMIT_S
        return await self._client.send(self._origin, "POST", path, sent, raw, deadline_s=deadline_s)

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Got:
        response = await self.open(path, body, headers)
        return Got(response.status, response.headers, await response.read(1 << 30))

    async def get(self, path: str, method: str = "GET") -> Got:
        deadline_s = asyncio.get_running_loop().time() + LIMIT_S
        response = await self._client.send(self._origin, method, path, {}, deadline_s=deadline_s)
        return Got(response.status, response.headers, await response.read(1 << 30))


@dataclass
class Deployment:
    """What a test holds."""

    prefills: list[ObservedEngine]
    decodes: list[ObservedEngine]
    client: HttpClient
    gateway: Gateway = field(init=False)
    workers: WorkersFile = field(init=False)
    url: str = field(init=False)
    http: Http = field(init=False)

    @property
    def engines(self) -> list[ObservedEngine]:
        return [*self.prefills, *self.decodes]

    @property
    def prefill(self) -> ObservedEngine:
        return self.prefills[0]

    @property
    def decode(self) -> ObservedEngine:
        return self.decodes[0]

    async def ready(self) -> None:
        await eventually(lambda: len(self.gateway.pool.verified) == len(self.gateway.pool.pairs), "every pair verified")

    async def idle(self, *, but_for_leases: bool = False) -> None:
        """Nothing runs, nothing is reserved, and no KV is held (or only until its lease ends)."""
        await eventually(lambda: not any(engine.running for engine in self.engines), "every engine idle")
        await eventually(lambda: not any(self.loads), "nothing reserved")
        await self.gateway.runner.settle()
        if not but_for_leases:
            await eventually(lambda: not any(engine.held for engine in self.engines), "no KV held")
            await eventually(lambda: all(engine.is_empty for engine in self.engines), "no KV block taken")

    @property
    def loads(self) -> list[int]:
        router = self.gateway.runner.router
        return [router.load(RankId(e.name, rank)) for e in self.engines for rank in e.config.ranks]

    @property
    def expired(self) -> int:
        """KV that nobody gave back in time, or that was given back twice."""
        leases = [rank.leases for engine in self.engines for rank in engine.ranks]
        return sum(held.num_expired + held.num_late_notices for held in leases)

    def outcomes(self) -> dict[str, float]:
        (family,) = self.gateway.metrics.generations.collect()
        samples = family.samples
        return {s.labels["outcome"]: s.value for s in samples if s.name.endswith("_total")}

    def metric(self, name: str, **labels: str) -> float:
        return self.gateway.metrics._registry.get_sample_value(name, labels) or 0.0

    async def native(self, path: str, body: dict[str, Any]) -> Got:
        """What a decode engine answers by itself."""
        return await Http(self.client, self.decode.url).post(path, body)


@contextlib.asynccontextmanager
async def deployment(
    *,
    prefill: int | list[dict[str, Any]] = 1,
    decode: int | list[dict[str, Any]] = 1,
    worker: Callable[[ObservedEngine], dict[str, Any]] = lambda _: {},
    started: Callable[[ObservedEngine], bool] = lambda _: True,
    alter: Callable[[Gateway], None] = lambda _: None,
    readiness: type[Readiness] = Readiness,
    ready: bool = True,
    request_timeout_s: float = LIMIT_S,
    checkpoint: Path | None = None,
    dtype: str = "float32",
) -> AsyncIterator[Deployment]:
    """Run stand-in engines and a gateway.

    prefill, decode   how many servers, or the configuration of each
    worker            fields that a server's entry in the workers file has besides its own
    started           which servers are there from the beginning
    alter             called with the gateway before it serves
    readiness         the class that keeps the pool
    """

    def engines(role: Role, wanted: int | list[dict[str, Any]]) -> list[ObservedEngine]:
        configs: list[dict[str, Any]] = [{}] * wanted if isinstance(wanted, int) else wanted
        return [ObservedEngine(f"{role}-{i}", role, **config) for i, config in enumerate(configs)]

    client = HttpClient()
    found = Deployment(engines(Role.PREFILL, prefill), engines(Role.DECODE, decode), client)
    for engine in found.engines:
        await engine.start()
        if not started(engine):
            await engine.stop()
    found.workers = WorkersFile(
        model=MODEL,
        aliases=(ALIAS,),
        dtype=dtype,
        checkpoint=checkpoint,
        workers=tuple(engine.worker(**worker(engine)) for engine in found.engines),
    )
    inner = HttpClient()
    gateway = found.gateway = Gateway(
        found.workers, inner, Random(1), started_at_s=1.0, request_timeout_s=request_timeout_s
    )
    gateway.readiness = readiness(
        gateway.pool, MODEL, dtype, Random(2), poll_s=0.01, answer_s=2.0, verify_s=5.0, max_retry_s=0.02, counters_s=0.1
    )
    alter(gateway)
    server = HttpServer(gateway.handle, openai.error_body)
    await server.start("127.0.0.1", 0)
    found.url = "http://{}:{}".format(*server.address)
    found.http = Http(client, found.url)
    watching = asyncio.create_task(gateway.readiness.run())
    crashes: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: crashes.append(context))
    try:
        async with asyncio.timeout(LIMIT_S):
            if ready:
                await found.ready()
            yield found
    finally:
        watched = watching.done()
        watching.cancel()
        outcome = (await asyncio.gather(watching, return_exceptions=True))[0]
        client.close()
        await server.stop(0)
        await gateway.runner.settle()
        inner.close()
        for engine in found.engines:
            await engine.close()
    assert not crashes, crashes
    assert not watched, outcome


def chat(text: str = "Say hello!", **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 0,
        **fields,
    }


def completion(prompt: Any = "One river and a stone", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}


def body_for(path: str, **fields: Any) -> dict[str, Any]:
    return chat(**fields) if path == CHAT else completion(**fields)


__all__ = [
    "ALIAS", "CHAT", "COMPLETIONS", "LIMIT_S", "MODEL", "Deployment", "Got", "Http", "body_for", "chat", "completion",
    "deployment", "eventually",
]  # fmt: skip
