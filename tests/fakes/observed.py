"""A stand-in engine that remembers what it was asked: what unit tests run the gateway against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from prometheus_client import generate_latest

from baton.base.reply import Reply, Request
from baton.engine.stand_in.config import StandInConfig, StepTime
from baton.engine.stand_in.faults import Refusal
from baton.engine.stand_in.generation import Generation
from baton.engine.stand_in.requests import CHAT, COMPLETIONS
from baton.engine.stand_in.server import StandIn
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker

MODEL, ALIAS = "tiny-r1", "deepseek-ai/DeepSeek-R1"
SHAPE = {"num_hidden_layers": 4, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
"""of the model, as its config.json has it; in float32"""
CREATED = 1795448015
_DEFAULTS = {
    "model": MODEL,
    "aliases": (ALIAS,),
    "max_model_len": 2048,
    "num_gpu_blocks": 2048,
    "enable_prefix_caching": False,
    "kv_bytes_per_token": 4 * (512 + 64) * 4,
    "answer_ends_every": 0,
    "step_time": StepTime.zero(),
    "transfer_latency_s": 0.0,
    "transfer_bytes_per_s": 1e18,
}
_READ = (
    "process_start_time_seconds", "vllm:cache_config_info", "vllm:num_requests_running", "vllm:num_requests_waiting",
    "vllm:prompt_tokens_by_source_total", "vllm:nixl_bytes_transferred_sum", "vllm:nixl_bytes_transferred_count",
    "vllm:nixl_num_failed_transfers_total", "vllm:nixl_num_failed_notifications_total",
    "vllm:nixl_num_kv_expired_reqs_total", "vllm:nixl_num_notifications_after_expiry_total",
)  # fmt: skip
"""the metrics that baton reads: writing and parsing all of them would take longer than the rest of a test"""


@dataclass(frozen=True)
class Leg:
    """One generation request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def dp_rank(self) -> int:
        return int(self.headers.get("x-data-parallel-rank", "0"))

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


class ObservedEngine(StandIn):
    """One server that takes no time; `config` is the stand-in's, besides what it has here.

    metrics_text, models_text   what these routes answer instead
    """

    def __init__(
        self,
        name: str = "decode-0",
        role: Role = Role.DECODE,
        *,
        metrics_text: str | None = None,
        models_text: str | None = None,
        **config: Any,
    ) -> None:
        super().__init__(StandInConfig(**{**_DEFAULTS, **config}), random=Random(name), time_s=lambda: CREATED)
        self.name = name
        self.role = role
        self.metrics_text = metrics_text
        self.models_text = models_text
        self.num_requests = 0
        """of any route"""
        self.legs: list[Leg] = []
        self.answers: list[bytes] = []
        """whole answers of generations"""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await super().start(host, port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def worker(self, **fields: Any) -> Worker:
        of_server = {"name": self.name, "role": self.role, "url": self.url, "dp_ranks": tuple(self.config.ranks)}
        return Worker(**of_server | fields)

    @property
    def running(self) -> dict[str, Generation]:
        """Requests that are not answered yet, by the engine's id."""
        return self.generations

    @property
    def held(self) -> list[str]:
        """Requests whose KV is kept for whoever fetches it."""
        return [request_id for rank in self.ranks for request_id in rank.leases]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is computed or fetched, and no block is taken."""
        return not any(rank.num_unfinished or rank.pool.usage for rank in self.ranks)

    def of_kind(self, kind: str) -> list[Leg]:
        """Legs of clients' requests; the gateway's own verifications are left out."""
        return [leg for leg in self.legs if leg.kind == kind and not leg.request_id.startswith("baton-verify")]

    def refuse(self, status: int, raw: bytes) -> None:
        """Answer this to every generation from now on."""
        self.set_faults(refuse=Refusal(status=status, body=raw.decode(errors="surrogateescape")))

    def answer(self, raw: bytes) -> None:
        """Answer 200 and this to every generation from now on."""
        self.set_faults(answer=raw.decode(errors="surrogateescape"))

    async def _tell_metrics(self, _: Request, reply: Reply) -> None:
        for rank in self.ranks:
            rank.tell()
        reply.send(200, {}, generate_latest(self._metrics._registry.restricted_registry(_READ)))

    async def _handle(self, request: Request, reply: Reply) -> None:
        self.num_requests += 1
        instead = {"/metrics": self.metrics_text, "/v1/models": self.models_text}.get(request.path)
        if instead is not None:
            reply.send(200, {}, instead.encode())
            return
        if request.path in (CHAT, COMPLETIONS):
            self.legs.append(Leg(request.path, request.headers, json.loads(request.body)))
            reply = cast(Reply, _Heard(reply, self.answers))
        await super()._handle(request, reply)


class _Heard:
    """A reply whose answer is noted down, if it is a whole one."""

    def __init__(self, reply: Reply, answers: list[bytes]) -> None:
        self._reply = reply
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if status == 200:
            self._answers.append(body)
        self._reply.send(status, headers, body)
