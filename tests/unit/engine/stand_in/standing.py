"""Stand-ins on a clock that jumps, ranks without a server, and a client that asks them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Coroutine
from collections.abc import Sequence as Several
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from baton.engine.client import HttpClient
from baton.engine.kv_transfer import REQUEST_PREFILL
from baton.engine.origin import Origin
from baton.engine.stand_in.config import StandInConfig, StepTime
from baton.engine.stand_in.faults import NONE, Faults
from baton.engine.stand_in.metrics import Metrics
from baton.engine.stand_in.model import seed_of
from baton.engine.stand_in.rank import Rank
from baton.engine.stand_in.requests import COMPLETIONS
from baton.engine.stand_in.sequence import Sampling, Sequence
from baton.engine.stand_in.server import StandIn

T = TypeVar("T")
ROOT = Path(__file__).parents[4]
PROMPT = "What a stand-in says follows from the KV that it reads."
INSTANT = StandInConfig(
    step_time=StepTime.zero(), transfer_latency_s=0.0, transfer_bytes_per_s=1e18, answer_ends_every=0, dev_mode=True
)
"""a server that takes no time"""


def _virtual_time() -> Any:
    spec = importlib.util.spec_from_file_location("virtual_time", ROOT / "benchmarks" / "virtual_time.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time; what never ends does so after 10,000 virtual seconds, and an error in a callback counts."""
    errors: list[Any] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with asyncio.timeout(10_000):
            return await work

    result: T = _virtual_time().run(bounded())
    assert not errors, errors
    return result


def now_s() -> float:
    return asyncio.get_running_loop().time()


# -- a rank without a server ---------------------------------------------------------------------------------------


def alone(config: StandInConfig) -> tuple[Rank, Metrics]:
    """One rank that hands nothing over."""
    config = replace(config, kv_connector=False)
    metrics = Metrics(config, [0], 0.0)
    return Rank(config, 0, "engine", metrics.rank(0), HttpClient()), metrics


@dataclass
class Asked:
    """A sequence, when it was heard of, and its end."""

    sequence: Sequence
    tokens_s: list[float] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def output(self) -> list[int]:
        return [token.id for token in self.sequence.output]


def ask(rank: Rank, prompt: Several[int], max_tokens: int, *, faults: Faults = NONE, **sampling: Any) -> Asked:
    """Add a sequence to a rank."""
    asked = Asked(sequence_of(prompt, max_tokens, block_size=rank.config.block_size, faults=faults, **sampling))

    def heard() -> None:
        asked.tokens_s.append(now_s())
        if asked.sequence.finish is not None:
            asked.over.set()

    asked.sequence.arrived_s = now_s()
    asked.sequence.heard = heard
    rank.add(asked.sequence)
    return asked


def sequence_of(
    prompt: Several[int], max_tokens: int, *, block_size: int = 16, faults: Faults = NONE, weights: str = "right",
    request_id: str = "r", **sampling: Any,
) -> Sequence:  # fmt: skip
    return Sequence(
        request_id,
        list(prompt),
        Sampling(max_tokens=max_tokens, **sampling),
        params={},
        faults=faults,
        weights_seed=seed_of(weights),
        cache_salt="",
        block_size=block_size,
        arrived_s=0.0,
        heard=lambda: None,
    )


def answer_of(prompt: Several[int], max_tokens: int, *, block_size: int = 16, **asked: Any) -> list[int]:
    """The tokens that a prompt must get, however it is scheduled."""
    sequence = sequence_of(prompt, max_tokens, block_size=block_size, **asked)
    while sequence.finish is None:
        sequence.next_token(block_size)
    return [token.id for token in sequence.output]


# -- servers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Got:
    """An answer of a server."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        assert self.status == 200, self.body
        return str(self.json["choices"][0]["text"])

    @property
    def offer(self) -> dict[str, Any]:
        offer = self.json["kv_transfer_params"]
        assert isinstance(offer, dict)
        return offer

    @property
    def events(self) -> list[Any]:
        """Of a stream; what is no JSON as it is."""
        texts = [part.removeprefix(b"data: ").decode() for part in self.body.split(b"\n\n") if part]
        return [json.loads(text) if text.endswith("}") else text for text in texts]


class Server:
    """One stand-in and a client of it."""

    def __init__(self, config: StandInConfig, seed: int = 0) -> None:
        self.num_deaths = 0
        self.stand_in = StandIn(config, random=Random(seed), time_s=lambda: 1.7e9, died=self._died)
        self.client = HttpClient()

    def _died(self) -> None:
        self.num_deaths += 1

    @property
    def rank(self) -> Rank:
        return self.stand_in.ranks[0]

    async def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, within_s: float = 1000
    ) -> Got:
        origin = Origin("127.0.0.1", self.stand_in.port)
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        response = await self.client.send(origin, method, path, headers, raw, deadline_s=now_s() + within_s)
        with response:
            return Got(response.status, await response.read(1 << 24))

    async def complete(self, prompt: Any = PROMPT, *, headers: dict[str, str] | None = None, **asked: Any) -> Got:
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 8, **asked}
        return await self.send("POST", COMPLETIONS, body, headers)

    async def prefill(self, prompt: Any = PROMPT, **asked: Any) -> Got:
        return await self.complete(prompt, max_tokens=1, kv_transfer_params=dict(REQUEST_PREFILL), **asked)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name."""
        text = (await self.send("GET", "/metrics")).body.decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
        chosen = [s.value for s in samples if labels.items() <= s.labels.items()]
        assert chosen, name
        return sum(chosen)


@asynccontextmanager
async def serving(*configs: StandInConfig) -> AsyncIterator[list[Server]]:
    """Stand-ins on free ports, one a configuration."""
    servers = [Server(config, seed) for seed, config in enumerate(configs)]
    try:
        for server in servers:
            await server.stand_in.start("127.0.0.1", 0)
        yield servers
    finally:
        for server in servers:
            server.client.close()
            await server.stand_in.close()
        await asyncio.sleep(0)
