"""A server that speaks vLLM's wire and has no model: real sockets, real schedules, real KV hand-off, no GPU.

It is for load, faults and scale. What it answers follows from the KV that it reads (`model.py`), how long it takes from
`StepTime`, and what goes wrong from `Faults`: POST /faults adds to them, DELETE clears them, GET shows them.
`tests/contract` holds it to what vLLM does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import msgspec

from baton.base.errors import ConfigError
from baton.base.reply import Reply, Request
from baton.base.server import HttpServer
from baton.engine.client import HttpClient
from baton.engine.stand_in.answers import JSON, Answer, error_json
from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.faults import Faults, read_faults
from baton.engine.stand_in.generation import ENGINE_DEAD, Generation
from baton.engine.stand_in.metrics import Metrics
from baton.engine.stand_in.model import chat_prompt, detokenize, seed_of, tokenize
from baton.engine.stand_in.rank import Rank
from baton.engine.stand_in.requests import CHAT, COMPLETIONS, ChatBody, CompletionBody, Refused, Unread, checked, parsed
from baton.engine.stand_in.sequence import Sequence
from baton.engine.vllm import RANK_HEADER, REQUEST_ID_HEADER


class _Tokenize(msgspec.Struct):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    return_token_strs: bool | None = None


class _Ids(msgspec.Struct):
    request_ids: list[str]


class StandIn:
    """One `vllm serve` that isn't one.

    random    ids come from it
    time_s    Unix time
    died      called when it ends by a fault
    """

    def __init__(
        self,
        config: StandInConfig,
        *,
        random: Random,
        time_s: Callable[[], float] = time.time,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.faults = Faults()
        self.port = 0
        self.ranks: list[Rank] = []
        self.generations: dict[str, Generation] = {}
        """those under way, by the engine's id of the request"""
        self.aborts: list[str] = []
        """ids that clients have asked to abort"""
        self._random = random
        self._time_s = time_s
        self._died = died
        self._cleared = asyncio.Event()
        self._client: HttpClient | None = None
        self._server: HttpServer | None = None
        self._metrics: Metrics
        self._background: set[asyncio.Task[None]] = set()
        self._routes: dict[str, tuple[str, Callable[[Request, Reply], Awaitable[None]]]] = {
            "/health": ("GET", self._health),
            "/ping": ("GET", self._health),
            "/version": ("GET", self._version),
            "/v1/models": ("GET", self._models),
            "/metrics": ("GET", self._tell_metrics),
            "/tokenize": ("POST", self._tokenize),
            CHAT: ("POST", self._chat),
            COMPLETIONS: ("POST", self._complete),
        }
        if config.release.has_abort_route:
            self._routes["/inference/v1/abort_requests"] = ("POST", self._abort)
        if config.dev_mode:
            self._routes["/reset_prefix_cache"] = ("POST", self._reset_prefix_cache)

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> None:
        """Listen, with fresh engines.

        port     0 takes a free one, which is kept when it is started again
        Raises   ConfigError when a port is taken
        """
        base = f"{self._random.getrandbits(128):032x}"
        self._metrics = Metrics(self.config, self.config.ranks, self._time_s())
        self._client = HttpClient()
        self.ranks = [
            Rank(
                self.config,
                number,
                base if self.config.dp_size == 1 else f"{base}_dp{number}",
                self._metrics.rank(number),
                self._client,
                stalled=lambda: self.faults.stall,
            )
            for number in self.config.ranks
        ]
        self._server = HttpServer(self._handle, lambda status, text: error_json(status, text, "InternalServerError"))
        try:
            for rank in self.ranks:
                await rank.start()
            await self._server.start(host, self.port or port)
        except OSError as error:
            await self.stop()
            raise ConfigError(f"the stand-in cannot listen on {host}:{self.port or port}: {error}") from error
        self.port = self._server.address[1]
        self._host = host

    async def stop(self) -> None:
        """Cut every connection; what the engines held is gone."""
        server, self._server = self._server, None
        for rank in self.ranks:
            rank.crashed = rank.crashed or "stopped"
        if server is not None:
            await server.stop(0)
        for rank in self.ranks:
            await rank.stop()
        if self._client is not None:
            self._client.close()

    def die(self) -> None:
        """Stop, as soon as the loop turns, and say so."""

        async def end() -> None:
            await self.stop()
            self._died()

        self._in_background(end())

    async def close(self) -> None:
        """Stop for good."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.stop()

    def set_faults(self, **faults: Any) -> None:
        """Add faults to those there are.

        Raises   ConfigError for a fault that there is not
        """
        self.faults.set(**faults)
        if self.faults.die:
            self.faults.die = False
            self.die()
        if self.faults.flap is not None:
            self._in_background(self._flap())
        self._go_on()

    def clear_faults(self) -> None:
        """No faults; what hangs goes on."""
        self.faults.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()
        self._go_on()

    def _go_on(self) -> None:
        for rank in self.ranks:
            rank.go_on()

    async def _flap(self) -> None:
        while (flap := self.faults.flap) is not None:
            await asyncio.sleep(flap.up_s)
            await self.stop()
            await asyncio.sleep(flap.down_s)
            await self.start(self._host, self.port)

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- routes --------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request, reply: Reply) -> None:
        if self._server is None:  # a process that is killed answers nothing that it still gets
            reply.abort()
            return
        try:
            if request.path == "/faults":
                self._change_faults(request, reply)
                return
            method, route = self._routes.get(request.path, ("", self._health))
            if not method:
                _json(reply, {"detail": "Not Found"}, 404)
            elif request.method != method:
                reply.send(405, {**JSON, "allow": method}, b'{"detail":"Method Not Allowed"}')
            else:
                await route(request, reply)
        except Refused as error:
            reply.send(error.status, JSON, error_json(error.status, str(error), error.kind, error.param))
        except ConfigError as error:
            reply.send(400, JSON, error_json(400, str(error), "BadRequestError"))

    def _change_faults(self, request: Request, reply: Reply) -> None:
        if request.method == "POST":
            self.set_faults(**read_faults(request.body))
        elif request.method == "DELETE":
            self.clear_faults()
        reply.send(200, JSON, msgspec.json.encode(self.faults))

    async def _health(self, _: Request, reply: Reply) -> None:
        reply.send(503 if any(rank.crashed for rank in self.ranks) else 200, {}, b"")

    async def _version(self, _: Request, reply: Reply) -> None:
        _json(reply, {"version": self.config.version})

    async def _models(self, _: Request, reply: Reply) -> None:
        created, config = int(self._time_s()), self.config
        rights = {"allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True}
        permission = {"id": "modelperm-stand-in", "object": "model_permission", "created": created, **rights}
        entry = {"object": "model", "created": created, "owned_by": "vllm", "root": config.root, "parent": None}
        entry |= {"max_model_len": config.max_model_len, "permission": [permission]}
        _json(reply, {"object": "list", "data": [{"id": name, **entry} for name in self._names]})

    async def _tell_metrics(self, _: Request, reply: Reply) -> None:
        for rank in self.ranks:
            rank.tell()
        reply.send(200, {"content-type": "text/plain; version=1.0.0; charset=utf-8"}, self._metrics.text())

    async def _tokenize(self, request: Request, reply: Reply) -> None:
        body = parsed(request.body, request.headers.get("content-type", ""), _Tokenize)
        self._check_model(body.model)
        if body.prompt is None and body.messages is None:
            raise Unread(
                "2 validation errors:\n  body.prompt: Field required\n  body.messages: Field required", "body.prompt"
            )
        ids = (
            tokenize(body.prompt)
            if body.prompt is not None
            else chat_prompt({"messages": body.messages, "tools": body.tools})
        )
        strings = [detokenize([i]) for i in ids] if body.return_token_strs else None
        _json(
            reply, {"count": len(ids), "max_model_len": self.config.max_model_len, "tokens": ids, "token_strs": strings}
        )

    async def _abort(self, request: Request, reply: Reply) -> None:
        if not self.config.enable_scale_out:
            raise Refused("This route needs --enable-scale-out.", status=403, kind="PermissionDeniedError")
        try:
            body = parsed(request.body, request.headers.get("content-type", ""), _Ids)
        except Unread as error:
            raise Unread(str(error)) from error  # this route names no parameter
        for request_id in body.request_ids:
            self.aborts.append(request_id)
            if request_id in self.generations:
                self.generations[request_id].abort()
        reply.send(200, {}, b"")

    async def _reset_prefix_cache(self, _: Request, reply: Reply) -> None:
        cleared = [rank.reset_prefix_cache() for rank in self.ranks]
        _json(reply, {"success": all(cleared)})

    # -- generation ----------------------------------------------------------------------------------------------

    async def _chat(self, request: Request, reply: Reply) -> None:
        body = parsed(request.body, request.headers.get("content-type", ""), ChatBody)
        if body.tools and body.tool_choice in (None, "auto") and not self.config.tool_parser:
            if body.params.get("do_remote_prefill") and self.config.kv_connector:
                self.ranks[0].hand_off.release(body.params)
            raise Refused('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        await self._generate(request, reply, body)

    async def _complete(self, request: Request, reply: Reply) -> None:
        await self._generate(
            request, reply, parsed(request.body, request.headers.get("content-type", ""), CompletionBody)
        )

    async def _generate(self, request: Request, reply: Reply, body: CompletionBody | ChatBody) -> None:
        rank = self.ranks[0]
        try:
            self._check_model(body.model)
            rank = self._rank(request.headers.get(RANK_HEADER, ""))
            prompts = body.prompts()
            samplings = checked(body, prompts, self.config)
        except Refused as error:
            if body.params.get("do_remote_prefill") and not isinstance(error, Unread) and self.config.kv_connector:
                rank.hand_off.release(body.params)
            raise
        if rank.crashed:
            reply.send(500, JSON, error_json(500, ENGINE_DEAD, "InternalServerError"))
            return
        faults = self.faults.take()
        id_base = request.headers.get(REQUEST_ID_HEADER) or f"{self._random.getrandbits(64):016x}"
        cleared = self._cleared
        generation = Generation(
            rank, faults, reply, cleared=lambda: asyncio.ensure_future(_waited(cleared)), die=self.die
        )
        n, now_s = body.n or 1, asyncio.get_running_loop().time()
        weights_seed = seed_of(faults.weights or self.config.weights)
        ids = self._ids(request.path, id_base, len(prompts))
        for index, sampling in enumerate(samplings):
            child = f"{index % n}_" if n > 1 else ""
            generation.sequences.append(
                Sequence(
                    f"{child}{ids[index // n]}-{self._random.getrandbits(32):08x}",
                    prompts[index // n],
                    sampling,
                    params=body.params if self.config.kv_connector else {},
                    faults=faults,
                    weights_seed=weights_seed,
                    cache_salt=body.cache_salt or "",
                    block_size=self.config.block_size,
                    arrived_s=now_s,
                    heard=generation.hears(index),
                )
            )
        answer = Answer(
            config=self.config,
            body=body,
            id_base=id_base,
            created=int(self._time_s()),
            sequences=list(generation.sequences),
        )
        self.generations.update(dict.fromkeys(ids, generation))
        try:
            await generation.run(answer)
        finally:
            for request_id in ids:
                self.generations.pop(request_id, None)

    @staticmethod
    def _ids(path: str, id_base: str, num_prompts: int) -> list[str]:
        """The engine's ids of a request's prompts, as the abort route takes them."""
        if path == CHAT:
            return [f"chatcmpl-{id_base}"]
        return [f"cmpl-{id_base}-{index}" for index in range(num_prompts)]

    def _rank(self, header: str) -> Rank:
        """The rank that a request asks for, or the one that has least to do.

        Raises   Refused
        """
        with contextlib.suppress(ValueError):
            number, ranks = int(header), self.config.ranks
            if number not in ranks:
                raise Refused(f"data_parallel_rank {number} is out of range [{ranks.start}, {ranks.stop}).")
            return self.ranks[number - ranks.start]
        return min(self.ranks, key=lambda rank: rank.num_unfinished)

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.config.model, *self.config.aliases)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in self._names:
            text = f"The model `{name}` does not exist. Valid aliases: {', '.join(self._names)}."
            raise Refused(text, "model", status=404, kind="NotFoundError")


async def _waited(event: asyncio.Event) -> None:
    await event.wait()


def _json(reply: Reply, value: Any, status: int = 200) -> None:
    reply.send(status, JSON, msgspec.json.encode(value))
