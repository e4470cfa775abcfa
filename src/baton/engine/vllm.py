"""One vLLM server as its clients see it: what it is, what it does, and how a leg is stopped.

Knows vLLM's routes and headers; not what a request is for, nor which rank should get it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from baton.base.errors import WorkerError
from baton.base.http1 import header_lines
from baton.engine.client import HttpClient
from baton.engine.kv_transfer import JsonObject, release_body
from baton.engine.metrics import EngineMetrics
from baton.engine.origin import Origin
from baton.engine.response import Response
from baton.recipe.workers import Worker

RANK_HEADER = "x-data-parallel-rank"
REQUEST_ID_HEADER = "x-request-id"

_MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What must be equal for KV of one server to be right on another; empty where a server does not tell.

    vLLM's own handshake also compares heads, layers, attention backend and transfer mode, and refuses the transfer; it
    does not compare the weights, nor does `/v1/models` name them: `weights` comes from the workers file.
    """

    engine_version: str
    model: str
    weights: str
    attention_backend: str
    block_size: str
    kv_cache_dtype: str

    def difference(self, other: Identity) -> str:
        """The first field that differs, as text; empty when the two may be paired."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs and mine != theirs:
                return f"{name.replace('_', ' ')} {mine!r} and {theirs!r}"
        return ""


class VllmServer:
    """A worker's HTTP side; one object a worker, on one event loop."""

    def __init__(self, client: HttpClient, worker: Worker) -> None:
        self.worker = worker
        self.origin = Origin.parse(worker.url)
        self.max_kv_tokens: int | None = None
        """tokens of KV that one rank holds, as `identity` was last told"""
        self._client = client

    async def start(
        self,
        path: str,
        body: bytes,
        *,
        request_id: str,
        dp_rank: int,
        deadline_s: float,
        headers: Mapping[str, str],
        fresh: bool = False,
    ) -> Response:
        """Send one leg to one rank; on return the engine may have seen it (see HttpClient.start, also for `fresh`).

        request_id   ours: letters, digits and hyphens
        deadline_s   absolute, on the loop's clock, for the whole exchange
        Raises       EngineUnreachable, EngineTimeout: nothing was sent
        """
        more = header_lines(headers) if headers else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.origin}\r\ncontent-type: application/json\r\n{REQUEST_ID_HEADER}: "
            f"{request_id}\r\n{RANK_HEADER}: {dp_rank}\r\n{more}content-length: {len(body)}\r\n\r\n"
        )
        message = head.encode("latin-1") + body
        return await self._client.start(self.origin, message, f"POST {path}", deadline_s, fresh=fresh)

    async def post(
        self, path: str, body: bytes, *, request_id: str, dp_rank: int, deadline_s: float, headers: Mapping[str, str]
    ) -> Response:
        """Send one leg to one rank and wait for the response's head.

        Raises   EngineError
        """
        leg = {**headers, "content-type": "application/json", REQUEST_ID_HEADER: request_id, RANK_HEADER: str(dp_rank)}
        return await self._client.send(self.origin, "POST", path, leg, body, deadline_s=deadline_s)

    async def ask(self, path: str, body: JsonObject, *, request_id: str, dp_rank: int, timeout_s: float) -> JsonObject:
        """One whole, unstreamed exchange with one rank.

        Raises   EngineError; WorkerError when the answer is not a JSON object with status 200
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        raw = msgspec.json.encode(body)
        response = await self.post(path, raw, request_id=request_id, dp_rank=dp_rank, deadline_s=deadline_s, headers={})
        answer = await response.read(_MAX_ANSWER_BYTES)
        if response.status != 200:
            raise WorkerError(
                f"{self.worker.name} answered {response.status} to POST {path}: {answer[:500].decode(errors='replace')}"
            )
        return _json_object(answer, f"{self.worker.name} POST {path}")

    async def healthy(self, timeout_s: float) -> None:
        """Return if /health answers 200.

        Raises   EngineError, WorkerError
        """
        await self._get("/health", timeout_s)

    async def metrics(self, timeout_s: float) -> EngineMetrics:
        """Read /metrics.

        Raises   EngineError, WorkerError
        """
        return EngineMetrics((await self._get("/metrics", timeout_s)).decode(errors="replace"))

    async def identity(self, timeout_s: float) -> Identity:
        """Ask the server what it is.

        Raises   EngineError, WorkerError
        """
        version = _json_object(await self._get("/version", timeout_s), f"{self.worker.name} /version")
        models = await self.models(timeout_s)
        metrics = await self.metrics(timeout_s)
        cache, self.max_kv_tokens = metrics.cache_config(), metrics.max_kv_tokens()
        return Identity(
            engine_version=str(version.get("version", "")),
            model=str(models[0].get("root", "")),
            weights=self.worker.weights,
            attention_backend=self.worker.attention_backend,
            block_size=cache.get("block_size", ""),
            kv_cache_dtype=cache.get("cache_dtype", ""),
        )

    async def models(self, timeout_s: float) -> list[JsonObject]:
        """The entries of /v1/models, at least one.

        Raises   EngineError, WorkerError
        """
        answer = _json_object(await self._get("/v1/models", timeout_s), f"{self.worker.name} /v1/models")
        models = answer.get("data")
        if not models or not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise WorkerError(f"{self.worker.name} serves no model: {answer!r}")
        return models

    async def tokenize(self, model: str, text: str, timeout_s: float) -> list[int]:
        """Token ids of a text, as the engine counts them.

        Raises   EngineError, WorkerError
        """
        body = {"model": model, "prompt": text}
        answer = await self.ask("/tokenize", body, request_id="tokenize", dp_rank=0, timeout_s=timeout_s)
        tokens = answer.get("tokens")
        if not isinstance(tokens, list):
            raise WorkerError(f"{self.worker.name} answered no tokens to POST /tokenize: {answer!r:.300}")
        return tokens

    async def abort(self, engine_request_ids: list[str], timeout_s: float) -> bool:
        """Stop running requests by the engine's own ids; False when the server has no such route (--enable-scale-out).

        Raises   EngineError
        """
        body = msgspec.json.encode({"request_ids": engine_request_ids})
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        response = await self._client.send(
            self.origin,
            "POST",
            "/inference/v1/abort_requests",
            {"content-type": "application/json"},
            body,
            deadline_s=deadline_s,
        )
        await response.read(_MAX_ANSWER_BYTES)
        return response.status == 200

    async def release(self, model: str, params: JsonObject, *, request_id: str, dp_rank: int, timeout_s: float) -> None:
        """Have this decode rank tell prefill that nobody will fetch the KV of `params`.

        Raises   EngineError; WorkerError when the rank accepted what it should have rejected
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        body = msgspec.json.encode(release_body(model, params))
        response = await self.post(
            "/v1/completions", body, request_id=request_id, dp_rank=dp_rank, deadline_s=deadline_s, headers={}
        )
        with response:
            if response.status == 200:
                raise WorkerError(f"{self.worker.name} served the release request {request_id} instead of rejecting it")
            await response.read(_MAX_ANSWER_BYTES)

    async def _get(self, path: str, timeout_s: float) -> bytes:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        response = await self._client.send(self.origin, "GET", path, {}, deadline_s=deadline_s)
        body = await response.read(_MAX_ANSWER_BYTES)
        if response.status != 200:
            raise WorkerError(f"{self.worker.name} answered {response.status} to GET {path}: {body[:200]!r}")
        return body


def engine_request_ids(path: str, request_id: str) -> list[str]:
    """The engine's ids of a request sent with this X-Request-Id, as the abort route wants them."""
    return [f"chatcmpl-{request_id}"] if path.endswith("/chat/completions") else [f"cmpl-{request_id}-0"]


def _json_object(raw: bytes, what: str) -> JsonObject:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WorkerError(f"{what} answered what is not JSON: {raw[:200]!r}") from error
    if not isinstance(value, dict):
        raise WorkerError(f"{what} answered {type(value).__name__}, expected a JSON object")
    return value
