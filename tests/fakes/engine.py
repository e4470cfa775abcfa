"""A fake vLLM 0.32 server for unit tests: the real wire, real sockets, tokens from `fakes.tokens`, faults on demand.

    Fabric     where KV lies: reaches every rank's blocks by engine id, as NIXL does, and gives what is asked for
    FakeRank   one data-parallel rank: its blocks, the requests it holds KV for, its counters
    FakeVllm   one server; its attributes are its configuration and may change while it runs

It has no speed: whatever takes time waits for an event that the test sets. Source of every shape: servers of vLLM
0.32.0 with NixlConnector; a request that fails validation is "Bad Request", one that is parsed and then rejected is
"BadRequestError", and only the latter gives remote KV back.
"""

import asyncio
import json
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from baton.base.reply import Reply, Request
from baton.base.server import HttpServer
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker
from fakes.tokens import Token, chat_prompt, detokenize, generate, kv_of, tokenize

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MODEL, ALIAS = "tiny-r1", "deepseek-ai/DeepSeek-R1"
BLOCK_SIZE = 16
CONFIG = {"num_hidden_layers": 4, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
BLOCK_BYTES = BLOCK_SIZE * 4 * 576 * 4
NUM_BLOCKS = 4096
FINGERPRINT = "vllm-0.32.0-fake"
CREATED = 1795448015


class Refused(Exception):
    """A request the server answers with an error."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


class LoadFailed(Exception):
    """KV could not be fetched, and the policy is `fail`."""


def error_json(status: int, message: str, kind: str, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}}).encode()


@dataclass
class Faults:
    """What goes wrong with every generation from now on."""

    refuse: tuple[int, bytes] | None = None
    """answer this status and body"""
    hang_before_head: bool = False
    hang_after: int | None = None
    """hold the stream after so many tokens, until `resume` is set"""
    cut_after: int | None = None
    """cut the connection after so many tokens of a stream"""
    cut_inside: bool = False
    """cut it in the middle of an event"""
    error_after: int | None = None
    """send an error event instead of this token of a stream; 0 = before anything else"""
    garbage_after: int | None = None
    """send an event that is not JSON instead of this token"""
    no_done: bool = False
    """end streams without [DONE]"""
    answer: bytes | None = None
    """answer 200 with this body"""
    resume: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Leg:
    """One generation request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    dp_rank: int

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def params(self) -> dict[str, Any]:
        return self.body.get("kv_transfer_params") or {}

    @property
    def kind(self) -> str:
        if self.body.get("temperature") == -1 and self.body.get("prompt") == [0]:
            return "release"
        if self.params.get("do_remote_decode"):
            return "prefill"
        return "decode" if self.params else "alone"


@dataclass
class Running:
    """One request being computed."""

    dp_rank: int
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    fetched: bool = False


class Fabric:
    """Ranks by engine id."""

    def __init__(self) -> None:
        self.ranks: dict[str, FakeRank] = {}

    def fetch(self, params: dict[str, Any]) -> list[str] | None:
        """The contents of the named blocks, whoever's they are; None when the engine cannot be reached."""
        rank = self.ranks.get(str(params.get("remote_engine_id")))
        if rank is None:
            return None
        kv = [rank.blocks.get(block, "") for group in params["remote_block_ids"] for block in group]
        rank.notify(str(params.get("remote_request_id")))
        return kv

    def release(self, params: dict[str, Any]) -> None:
        rank = self.ranks.get(str(params.get("remote_engine_id")))
        if rank is not None:
            rank.notify(str(params.get("remote_request_id")))


class FakeRank:
    """One data-parallel rank."""

    def __init__(self, engine_id: str) -> None:
        self.engine_id = engine_id
        self.blocks: dict[int, str] = {}
        self.free = deque(range(1, NUM_BLOCKS))
        self.held: dict[str, tuple[list[int], asyncio.TimerHandle]] = {}
        self.counters: Counter[str] = Counter()

    def hold(self, request_id: str, kv: list[str], lease_s: float) -> list[int]:
        """Keep a finished prefill's KV until it is asked for or its lease ends."""
        ids = [self.free.popleft() for _ in kv]
        self.blocks.update(zip(ids, kv, strict=True))
        expire = asyncio.get_running_loop().call_later(lease_s, self._expire, request_id)
        self.held[request_id] = (ids, expire)
        return ids

    def notify(self, request_id: str) -> None:
        """A decode rank is done with this request's KV; freed blocks keep their contents until used again."""
        held = self.held.pop(request_id, None)
        if held is None:
            self.counters["notifications_after_expiry"] += 1
        else:
            held[1].cancel()
            self.free.extend(held[0])

    def _expire(self, request_id: str) -> None:
        ids, _ = self.held.pop(request_id)
        self.free.extend(ids)
        self.counters["expired"] += 1

    def forget(self) -> None:
        for _, expire in self.held.values():
            expire.cancel()
        self.held.clear()


class FakeVllm:
    """One `vllm serve`; start it with `start`, or use `fakes.deployment`."""

    def __init__(self, name: str, role: Role, fabric: Fabric, *, dp_size: int = 1, **config: Any) -> None:
        self.name = name
        self.role = role
        self.fabric = fabric
        self.dp_size = dp_size
        self.weights = "right"
        self.connector = True
        self.load_failure_policy = "fail"
        self.lease_s = 30.0
        self.block_size = BLOCK_SIZE
        self.cache_dtype = "auto"
        self.version = "0.32.0"
        self.root = "/models/tiny-r1"
        self.max_model_len = 2048
        self.scale_out = True
        self.tool_parser = False
        self.reasoning_tokens = 0
        self.metrics_text: str | None = None
        self.models_text: str | None = None
        self.faults = Faults()
        self.prefill_gate: asyncio.Event | None = None
        """computing a prompt waits for it"""
        for key, value in config.items():
            assert hasattr(self, key), key
            setattr(self, key, value)
        self.port = 0
        self.ranks: list[FakeRank] = []
        self.running: dict[str, Running] = {}
        self.legs: list[Leg] = []
        self.answers: list[bytes] = []
        self.aborts: list[str] = []
        self._server: HttpServer | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, with fresh engines; the port is kept over restarts."""
        base = str(uuid.uuid4())
        ids = [base] if self.dp_size == 1 else [f"{base}_dp{r}" for r in range(self.dp_size)]
        self.ranks = [FakeRank(engine_id) for engine_id in ids]
        self.fabric.ranks.update({rank.engine_id: rank for rank in self.ranks})
        self._server = HttpServer(self._handle, lambda status, text: error_json(status, text, "FromTheServer"))
        await self._server.start("127.0.0.1", self.port)
        self.port = self._server.address[1]

    async def die(self) -> None:
        """Close the listener and every connection; what the engines held is gone."""
        server, self._server = self._server, None
        for rank in self.ranks:
            rank.forget()
            self.fabric.ranks.pop(rank.engine_id, None)
        if server is not None:
            await server.stop(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker(self, **fields: Any) -> Worker:
        ranks = tuple(range(self.dp_size))
        return Worker(**{"name": self.name, "role": self.role, "url": self.url, "dp_ranks": ranks} | fields)

    @property
    def held(self) -> list[str]:
        """Requests whose KV is kept."""
        return [request_id for rank in self.ranks for request_id in rank.held]

    @property
    def idle(self) -> bool:
        return not self.running and not self.held

    def of_kind(self, kind: str) -> list[Leg]:
        """Legs of clients' requests; the gateway's own verifications are left out."""
        return [leg for leg in self.legs if leg.kind == kind and not leg.request_id.startswith("baton-verify")]

    # -- routes --------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request, reply: Reply) -> None:
        try:
            match request.method, request.path:
                case "GET", "/health":
                    reply.send(200, {}, b"")
                case "GET", "/version":
                    self._json(reply, {"version": self.version})
                case "GET", "/v1/models":
                    reply.send(200, {"content-type": "application/json"}, (self.models_text or self._models()).encode())
                case "GET", "/metrics":
                    text = self.metrics() if self.metrics_text is None else self.metrics_text
                    reply.send(200, {"content-type": "text/plain; version=0.0.4; charset=utf-8"}, text.encode())
                case "POST", "/tokenize":
                    ids = tokenize(json.loads(request.body)["prompt"])
                    self._json(reply, {"count": len(ids), "max_model_len": self.max_model_len, "tokens": ids})
                case "POST", "/inference/v1/abort_requests" if self.scale_out:
                    for request_id in json.loads(request.body)["request_ids"]:
                        self.aborts.append(request_id)
                        if request_id in self.running:
                            self.running[request_id].aborted.set()
                    self._json(reply, {})
                case "POST", "/v1/chat/completions" | "/v1/completions":
                    await self._generate(request, reply)
                case _:
                    self._json(reply, {"detail": "Not Found"}, 404)
        except Refused as error:
            body = error_json(error.status, str(error), error.kind, error.param)
            reply.send(error.status, {"content-type": "application/json"}, body)

    def _json(self, reply: Reply, value: Any, status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.answers.append(raw)
        reply.send(status, {"content-type": "application/json"}, raw)

    def _models(self) -> str:
        entry = {"object": "model", "created": CREATED, "owned_by": "vllm", "root": self.root, "parent": None}
        data = [{"id": name, **entry, "max_model_len": self.max_model_len} for name in (MODEL, ALIAS)]
        return json.dumps({"object": "list", "data": data})

    def metrics(self) -> str:
        """Prometheus text with the names and labels of vLLM 0.32."""
        lines = ["# TYPE process_start_time_seconds gauge", "process_start_time_seconds 1.79544928352e+09"]

        def family(name: str, kind: str, value: Callable[[int], object], suffix: str = "", **labels: str) -> None:
            more = "".join(f',{key}="{text}"' for key, text in labels.items())
            if f"# TYPE {name} {kind}" not in lines:
                lines.append(f"# TYPE {name} {kind}")
            lines.extend(
                f'{name}{suffix}{{engine="{r}",model_name="{MODEL}"{more}}} {value(r)}' for r in range(self.dp_size)
            )

        def count(name: str) -> Callable[[int], object]:
            return lambda r: float(self.ranks[r].counters[name])

        def num_running(r: int) -> float:
            return float(sum(running.dp_rank == r for running in self.running.values()))

        if self.connector:
            family("vllm:nixl_bytes_transferred", "histogram", count("transfers"), "_count")
            family("vllm:nixl_bytes_transferred", "histogram", count("bytes"), "_sum")
            for name, key in (
                ("vllm:nixl_num_failed_transfers", "failed"),
                ("vllm:nixl_num_failed_notifications", "failed_notifications"),
                ("vllm:nixl_num_kv_expired_reqs", "expired"),
                ("vllm:nixl_num_notifications_after_expiry", "notifications_after_expiry"),
            ):
                family(name, "counter", count(key), "_total")
        family("vllm:num_requests_running", "gauge", num_running)
        family("vllm:num_requests_waiting", "gauge", lambda _: 0.0)
        for source in ("local_compute", "local_cache_hit", "external_kv_transfer"):
            family("vllm:prompt_tokens_by_source", "counter", count(source), "_total", source=source)
        family(
            "vllm:cache_config_info",
            "gauge",
            lambda _: 1.0,
            block_size=str(self.block_size),
            cache_dtype=self.cache_dtype,
            enable_prefix_caching="False",
        )
        return "\n".join(lines) + "\n"

    # -- generation ----------------------------------------------------------------------------------------------

    async def _generate(self, request: Request, reply: Reply) -> None:
        path, body = request.path, parsed(request.path, request.body)
        dp_rank = int(request.headers.get("x-data-parallel-rank", "0"))
        if dp_rank >= self.dp_size:
            raise Refused(400, f"data_parallel_rank {dp_rank} is out of range", "BadRequestError")
        leg = Leg(path, request.headers, body, dp_rank)
        self.legs.append(leg)
        if self.faults.refuse is not None and leg.kind != "release":
            status, raw = self.faults.refuse
            reply.send(status, {"content-type": "application/json"}, raw)
            return
        params = leg.params if self.connector else {}
        try:
            if body["model"] not in (MODEL, ALIAS):
                raise Refused(404, f"The model `{body['model']}` does not exist.", "NotFoundError", "model")
            prompts = prompts_of(path, body)
            self._check(body, prompts)
        except Refused:
            if params.get("do_remote_prefill"):
                self.fabric.release(params)
            raise
        base = request.headers.get("x-request-id") or uuid.uuid4().hex
        external_id = f"chatcmpl-{base}" if path == CHAT else f"cmpl-{base}-0"
        running = self.running[external_id] = Running(dp_rank)
        try:
            await self._answer(leg, params, prompts, external_id, running, reply)
        except asyncio.CancelledError:
            if params.get("do_remote_prefill") and not running.fetched:
                self.fabric.release(params)
            raise
        finally:
            del self.running[external_id]

    def _check(self, body: dict[str, Any], prompts: list[list[int]]) -> None:
        if (body.get("temperature") or 0) < 0:
            raise Refused(400, "temperature must be non-negative", "BadRequestError", "temperature")
        if (body.get("min_tokens") or 0) > max_tokens(body):
            raise Refused(400, "min_tokens must be less than or equal to max_tokens", "BadRequestError")
        if max_tokens(body) < 1:
            raise Refused(400, "max_tokens must be at least 1", "BadRequestError", "max_tokens")
        if any(len(prompt) + 1 > self.max_model_len for prompt in prompts):
            raise Refused(400, f"the maximum context length is {self.max_model_len}", "BadRequestError")
        if body.get("tools") and body.get("tool_choice", "auto") == "auto" and not self.tool_parser:
            raise Refused(400, '"auto" tool choice requires --enable-auto-tool-choice', "BadRequestError")

    async def _answer(
        self,
        leg: Leg,
        params: dict[str, Any],
        prompts: list[list[int]],
        external_id: str,
        running: Running,
        reply: Reply,
    ) -> None:
        body, rank = leg.body, self.ranks[leg.dp_rank]
        if self.faults.hang_before_head:
            await asyncio.Event().wait()
        if self.faults.answer is not None:
            reply.send(200, {"content-type": "application/json"}, self.faults.answer)
            return
        n = body.get("n") or 1
        choices, offer = [], None
        try:
            for p, prompt in enumerate(prompts):
                for i in range(n):
                    kv = await self._kv(rank, params, prompt, running)
                    tokens: list[Token] = []
                    if not running.aborted.is_set():
                        tokens = generate(self.weights, kv, salt(body, i), max_tokens(body))
                        if params.get("do_remote_decode"):
                            offer = self._offer(leg, rank, external_id, p * n + i, kv, len(prompt))
                    choices.append(Choice(p * n + i, prompt, *stopped(body, tokens, running.aborted.is_set())))
        except LoadFailed:
            failed = error_json(500, "Internal server error", "InternalServerError")
            if body.get("stream"):
                reply.start(200, {"content-type": "text/event-stream; charset=utf-8"})
                reply.write(b"data: " + failed + b"\n\ndata: [DONE]\n\n")
                reply.end()
            else:
                reply.send(500, {"content-type": "application/json"}, failed)
            return
        if body.get("stream"):
            await self._stream(leg, prompts, choices, external_id, reply)
        else:
            self._json(reply, self._whole(leg, prompts, choices, external_id, offer))

    async def _kv(self, rank: FakeRank, params: dict[str, Any], prompt: list[int], running: Running) -> list[str]:
        """The KV a generation reads: fetched from where `params` say, or computed here."""
        if params.get("do_remote_prefill"):
            running.fetched = True
            kv = self.fabric.fetch(params)
            if kv is not None:
                rank.counters["external_kv_transfer"] += len(prompt)
                rank.counters["transfers"] += 1
                rank.counters["bytes"] += len(kv) * BLOCK_BYTES
                return kv
            rank.counters["failed"] += 1
            if self.load_failure_policy == "fail":
                raise LoadFailed
            rank.counters["external_kv_transfer"] += len(prompt)  # with `recompute` the metrics lie
            return kv_of(self.weights, prompt, self.block_size)
        if self.prefill_gate is not None:
            waits = [asyncio.ensure_future(event.wait()) for event in (self.prefill_gate, running.aborted)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if not running.aborted.is_set():
            rank.counters["local_compute"] += len(prompt)
        return kv_of(self.weights, prompt, self.block_size)

    def _offer(
        self, leg: Leg, rank: FakeRank, external_id: str, index: int, kv: list[str], num_tokens: int
    ) -> dict[str, Any]:
        request_id = f"{f'{index}_' if index else ''}{external_id}-{uuid.uuid4().hex[:8]}"
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [rank.hold(request_id, kv, self.lease_s)],
            "remote_engine_id": rank.engine_id,
            "remote_request_id": request_id,
            "remote_host": "127.0.0.1",
            "remote_port": 18255 + leg.dp_rank,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": num_tokens,
            "remote_blocks_expiry_time": None,
            "transfer_mode": "pull",
            "remote_prefill_cached_tokens": 0,
        }

    # -- answers -------------------------------------------------------------------------------------------------

    def _head(self, leg: Leg, external_id: str, streamed: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if streamed else "chat.completion") if leg.path == CHAT else "text_completion"
        return {
            "id": external_id.removesuffix("-0"),
            "object": kind,
            "created": CREATED,
            "model": leg.body["model"],
        }

    def _whole(
        self,
        leg: Leg,
        prompts: list[list[int]],
        choices: "list[Choice]",
        external_id: str,
        offer: dict[str, Any] | None,
    ) -> dict[str, Any]:
        chat, ids = leg.path == CHAT, bool(leg.body.get("return_token_ids"))
        written = [self._chat_choice(leg, choice) if chat else completion_choice(leg, choice) for choice in choices]
        answer = {
            **self._head(leg, external_id, False),
            "choices": written,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**usage(prompts, choices), "completion_tokens_details": None},
        }
        if chat:
            answer |= {"prompt_logprobs": None, "prompt_token_ids": prompts[0] if ids else None, "prompt_text": None}
        return {**answer, "kv_transfer_params": offer, "ec_transfer_params": None, "metrics": None}

    def _chat_choice(self, leg: Leg, choice: "Choice") -> dict[str, Any]:
        text, calls = detokenize([token.id for token in choice.tokens]), []
        reasoning, text = text[: self.reasoning_tokens] or None, text[self.reasoning_tokens :]
        if leg.body.get("tools") and leg.body.get("tool_choice", "auto") != "none":
            name = leg.body["tools"][0]["function"].get("name")
            calls = [
                {"id": "call-0", "type": "function", "function": {"name": name, "arguments": json.dumps({"x": text})}}
            ]
        message = {
            "role": "assistant",
            "content": None if calls else text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": reasoning,
        }
        return {
            "index": choice.index,
            "message": {**message, "tool_calls": calls} if calls else message,
            "logprobs": chat_logprobs(leg.body, choice.tokens),
            "finish_reason": "tool_calls" if calls else choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": [token.id for token in choice.tokens] if leg.body.get("return_token_ids") else None,
            "routed_experts": None,
        }

    async def _stream(
        self, leg: Leg, prompts: list[list[int]], choices: "list[Choice]", external_id: str, reply: Reply
    ) -> None:
        chat, ids = leg.path == CHAT, bool(leg.body.get("return_token_ids"))
        head, faults, sent = self._head(leg, external_id, True), self.faults, 0
        reply.start(200, {"content-type": "text/event-stream; charset=utf-8"})

        def say(payload: bytes) -> None:
            reply.write(b"data: " + payload + b"\n\n")

        def event(value: dict[str, Any]) -> None:
            say(json.dumps({**head, **value}, separators=(",", ":")).encode())

        if chat and faults.error_after != 0:
            for choice in choices:
                delta = {"role": "assistant", "content": ""}
                first = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
                event({"choices": [first], "prompt_token_ids": choice.prompt if ids else None, "prompt_text": None})
        for choice in choices:
            for i, token in enumerate(choice.tokens):
                if sent == faults.hang_after:
                    await faults.resume.wait()
                if sent == faults.cut_after:
                    if faults.cut_inside:
                        reply.write(b'data: {"id":"cmpl')
                    await reply.drain()
                    await asyncio.sleep(0)
                    reply.abort()
                    return
                if sent == faults.error_after:
                    say(error_json(500, "Internal server error", "InternalServerError"))
                    say(b"[DONE]")
                    reply.end()
                    return
                if sent == faults.garbage_after:
                    say(b"{not json")
                sent += 1
                last = i + 1 == len(choice.tokens)
                end: dict[str, Any] = {"finish_reason": choice.finish_reason if last else None}
                if chat:
                    key = "reasoning" if i < self.reasoning_tokens else "content"
                    piece = {"delta": {key: chr(token.id)}, "logprobs": chat_logprobs(leg.body, [token])}
                    end |= {"stop_reason": choice.stop_reason} if last else {}
                else:
                    text = detokenize(choice.prompt) if leg.body.get("echo") and i == 0 else ""
                    piece = {
                        "text": text + chr(token.id),
                        "logprobs": text_logprobs(leg.body, [token], i),
                        "prompt_token_ids": choice.prompt if ids and i == 0 else None,
                    }
                    end["stop_reason"] = choice.stop_reason if last else None
                event({"choices": [{"index": choice.index, **piece, **end, "token_ids": [token.id] if ids else None}]})
                await asyncio.sleep(0)
        if (leg.body.get("stream_options") or {}).get("include_usage"):
            event({"choices": [], "usage": usage(prompts, choices), "system_fingerprint": FINGERPRINT})
        if not faults.no_done:
            say(b"[DONE]")
        reply.end()


@dataclass(frozen=True)
class Choice:
    """One generation of a request."""

    index: int
    prompt: list[int]
    tokens: list[Token]
    finish_reason: str
    stop_reason: str | None


def parsed(path: str, raw: bytes) -> dict[str, Any]:
    """A body that has passed validation; what fails here never reaches the serving code."""

    def invalid(param: str) -> Refused:
        return Refused(400, f"1 validation error:\n  {param}: Input should be valid", "Bad Request", param)

    try:
        body = json.loads(raw)
    except ValueError as error:
        raise invalid("body") from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise invalid("model")
    number = (int, float)
    kinds: dict[str, Any] = {
        "max_tokens": int, "max_completion_tokens": int, "min_tokens": int, "seed": int, "n": int,
        "temperature": number,
        "stop": (str, list), "tools": list, "stream": bool, "stream_options": dict, "kv_transfer_params": dict,
        "echo": bool, "top_logprobs": int, "prompt_logprobs": int, "logprobs": bool if path == CHAT else int,
        "return_token_ids": bool,
    }  # fmt: skip
    for name, kind in kinds.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise invalid(name)
    if body.get("stream_options") is not None and not body.get("stream"):
        raise Refused(400, "Stream options can only be defined when `stream=True`.", "Bad Request", "stream_options")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise Refused(400, "when using `top_logprobs`, `logprobs` must be set.", "Bad Request", "top_logprobs")
    if body.get("n") is not None and not 1 <= body["n"] <= 1024:
        raise invalid("n")
    if path == CHAT:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise invalid("messages")
        if not all(
            isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in body.get("tools") or []
        ):
            raise invalid("tools")
    elif not prompts_of(path, body, strict=False):
        raise invalid("prompt")
    return body


def prompts_of(path: str, body: dict[str, Any], *, strict: bool = True) -> list[list[int]]:
    """Token ids of every prompt of a request."""
    if path == CHAT:
        return [chat_prompt(body)]
    prompt = body.get("prompt")

    def is_ids(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i < 2**31 for i in value)

    if isinstance(prompt, str) and prompt:
        return [tokenize(prompt)]
    if is_ids(prompt):
        return [prompt]
    if isinstance(prompt, list) and prompt and all(isinstance(p, str) and p for p in prompt):
        return [tokenize(p) for p in prompt]
    if isinstance(prompt, list) and prompt and all(is_ids(p) for p in prompt):
        return prompt
    assert not strict
    return []


def max_tokens(body: dict[str, Any]) -> int:
    wanted = body.get("max_completion_tokens") if "messages" in body else None
    wanted = body.get("max_tokens") if wanted is None else wanted
    return 16 if wanted is None else min(wanted, 256)


def salt(body: dict[str, Any], choice: int) -> int | None:
    """What the sampler adds to the logits; a fake without a seed samples like seed 0."""
    return (body.get("seed") or 0) + choice if body.get("temperature", 1.0) else None


def stopped(body: dict[str, Any], tokens: list[Token], aborted: bool) -> tuple[list[Token], str, str | None]:
    """Tokens up to the first stop string, why they end, and which string it was."""
    if aborted:
        return [], "abort", None
    stops = body.get("stop") or []
    text = detokenize([token.id for token in tokens])
    found = [
        (text.index(s), s) for s in ([stops] if isinstance(stops, str) else stops) if isinstance(s, str) and s in text
    ]
    if not found:
        return tokens, "length", None
    at, which = min(found)
    return tokens[:at], "stop", which


def usage(prompts: list[list[int]], choices: list[Choice]) -> dict[str, Any]:
    prompt, completion = sum(map(len, prompts)), sum(len(choice.tokens) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def completion_choice(leg: Leg, choice: Choice) -> dict[str, Any]:
    text, ids = detokenize([token.id for token in choice.tokens]), bool(leg.body.get("return_token_ids"))
    asked = leg.body.get("prompt_logprobs") is not None
    return {
        "index": choice.index,
        "text": detokenize(choice.prompt) + text if leg.body.get("echo") else text,
        "logprobs": text_logprobs(leg.body, choice.tokens, 0),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "token_ids": [token.id for token in choice.tokens] if ids else None,
        "prompt_logprobs": [None, *({str(i): {"logprob": -1.0}} for i in choice.prompt[1:])] if asked else None,
        "prompt_token_ids": choice.prompt if ids else None,
        "routed_experts": None,
    }


def text_logprobs(body: dict[str, Any], tokens: list[Token], offset: int) -> dict[str, Any] | None:
    if body.get("logprobs") is None:
        return None
    tops = [{chr(t.id): t.logprob, chr(t.other_id): t.other_logprob} for t in tokens]
    return {
        "text_offset": [offset + i for i in range(len(tokens))],
        "token_logprobs": [token.logprob for token in tokens],
        "tokens": [chr(token.id) for token in tokens],
        "top_logprobs": [dict(list(top.items())[: max(1, body["logprobs"])]) for top in tops],
    }


def chat_logprobs(body: dict[str, Any], tokens: list[Token]) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        return {"token": chr(token_id), "logprob": logprob, "bytes": [token_id]}

    tops = [[entry(t.id, t.logprob), entry(t.other_id, t.other_logprob)] for t in tokens]
    num_top = body.get("top_logprobs") or 0
    return {
        "content": [
            {**entry(t.id, t.logprob), "top_logprobs": top[:num_top]} for t, top in zip(tokens, tops, strict=True)
        ]
    }


def num_blocks(num_tokens: int) -> int:
    return ceil(num_tokens / BLOCK_SIZE)
