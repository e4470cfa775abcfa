"""The deployment under proof, as the proof reaches it: its gateway, its ranks, their counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec

from baton.base.errors import ConfigError, WorkerError
from baton.engine.canary import Answer, Canary
from baton.engine.client import HttpClient
from baton.engine.kv_transfer import JsonObject
from baton.engine.metrics import RankCounters
from baton.engine.origin import Origin
from baton.engine.vllm import VllmServer
from baton.recipe.recipe import Role
from baton.recipe.workers import WorkersFile

Result = TypeVar("Result")
_MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long each wait of a proof may take, seconds; counters lag behind answers, and CPUs are slow."""

    ready_s: float = 180.0
    answer_s: float = 180.0
    counters_s: float = 20.0
    poll_s: float = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One engine rank."""

    server: VllmServer
    dp_rank: int


class Subject:
    """A gateway and the ranks behind it; every wait is bounded by `patience`."""

    def __init__(
        self, workers: WorkersFile, gateway_url: str, client: HttpClient, random: Random, patience: Patience
    ) -> None:
        self.model = workers.model
        self.dtype = workers.dtype
        self.patience = patience
        self._checkpoint = workers.checkpoint
        self._gateway = Origin.parse(gateway_url)
        self._client = client
        self._random = random
        self.servers = {worker.name: VllmServer(client, worker) for worker in workers.workers}
        self.ranks = {
            role: [
                Rank(server=self.servers[worker.name], dp_rank=dp_rank)
                for worker in workers.workers
                if worker.role is role
                for dp_rank in worker.dp_ranks
            ]
            for role in Role
        }

    async def ready_state(self) -> JsonObject:
        """The gateway's /ready answer."""
        return await self._exchange("GET", "/ready", b"", allowed=(200, 503))

    async def through_gateway(self, canary: Canary) -> Answer:
        """A canary's answer over both legs.

        Raises   WorkerError on any status but 200
        """
        return Answer.read(await self._exchange("POST", canary.path, msgspec.json.encode(canary.body(self.model))))

    async def ask(self, rank: Rank, path: str, body: JsonObject) -> JsonObject:
        """One rank's own answer, without the gateway.

        Raises   EngineError; WorkerError on any status but 200
        """
        return await rank.server.ask(
            path, body, request_id=self.request_id(), dp_rank=rank.dp_rank, timeout_s=self.patience.answer_s
        )

    async def release(self, rank: Rank, params: JsonObject) -> None:
        """Have a decode rank give back KV that nobody will fetch."""
        await rank.server.release(
            self.model,
            params,
            request_id=self.request_id(),
            dp_rank=rank.dp_rank,
            timeout_s=self.patience.answer_s,
        )

    async def unfinished(self) -> int:
        """Requests running or waiting anywhere."""
        metrics = [await server.metrics(self.patience.answer_s) for server in self.servers.values()]
        return sum(metric.unfinished() for metric in metrics)

    async def counters(self) -> dict[Role, RankCounters]:
        """Counters summed over the ranks of each role."""
        readings = {name: await server.metrics(self.patience.answer_s) for name, server in self.servers.items()}
        sums: dict[Role, RankCounters] = {}
        for role, ranks in self.ranks.items():
            for rank in ranks:
                counters = readings[rank.server.worker.name].counters(rank.dp_rank)
                sums[role] = sums[role] + counters if role in sums else counters
        return sums

    async def limits(self) -> tuple[int, int, str]:
        """KV block size (tokens), longest sequence (tokens) and KV number format of the decode engines."""
        server = self.ranks[Role.DECODE][0].server
        cache = (await server.metrics(self.patience.answer_s)).cache_config()
        if not cache.get("block_size", "").isdecimal():
            raise WorkerError(f"{server.worker.name} does not report its KV block size (vllm:cache_config_info)")
        cache_dtype = cache.get("cache_dtype", "auto")
        models = await server.models(self.patience.answer_s)
        return (
            int(cache["block_size"]),
            int(models[0].get("max_model_len") or 2048),
            self.dtype if cache_dtype == "auto" else cache_dtype,
        )

    async def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        return await self.ranks[Role.DECODE][0].server.tokenize(self.model, text, self.patience.answer_s)

    async def checkpoint(self) -> Path:
        """Folder of the checkpoint: as given, or as the engines name it, if it is on this machine.

        Raises   ConfigError
        """
        if self._checkpoint is not None:
            return self._checkpoint
        root = Path(str((await self.ranks[Role.DECODE][0].server.models(self.patience.answer_s))[0].get("root")))
        if not (root / "config.json").is_file():
            raise ConfigError(
                f"the engines serve {root}, which is no folder here; give its copy: `checkpoint` in the workers file, "
                "or --checkpoint (config.json is enough)"
            )
        return root

    def request_id(self) -> str:
        """A fresh id, recognisable in the engines' logs."""
        return f"baton-prove-{self._random.getrandbits(64):016x}"

    async def poll(
        self, ask: Callable[[], Coroutine[Any, Any, Result]], enough: Callable[[Result], bool], wait_s: float
    ) -> Result:
        """Ask until it is enough or time is up; the last answer either way."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        answer = await ask()
        while not enough(answer) and loop.time() < deadline_s:
            await asyncio.sleep(self.patience.poll_s)
            answer = await ask()
        return answer

    async def _exchange(self, method: str, path: str, body: bytes, allowed: tuple[int, ...] = (200,)) -> JsonObject:
        deadline_s = asyncio.get_running_loop().time() + self.patience.answer_s
        headers = {"content-type": "application/json"}
        response = await self._client.send(self._gateway, method, path, headers, body, deadline_s=deadline_s)
        raw = await response.read(_MAX_ANSWER_BYTES)
        if response.status not in allowed:
            shown = raw[:500].decode(errors="replace")
            raise WorkerError(f"the gateway answered {response.status} to {method} {path}: {shown}")
        answer: JsonObject = msgspec.json.decode(raw)
        return answer
