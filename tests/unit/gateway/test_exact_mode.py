"""The gateway routing by tokens and KV events, on stand-in engines with a prefix cache."""

import contextlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from fakes.deployment import CHAT, COMPLETIONS, LIMIT_S, Http, chat, completion, eventually
from fakes.observed import MODEL, ObservedEngine

from baton.base.errors import ConfigError
from baton.engine.client import HttpClient
from baton.engine.stand_in.config import KvEventsPorts
from baton.gateway.app import Gateway, serve
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.routing import Router
from baton.policy.step_times import StepTimes
from baton.recipe.recipe import Role
from baton.recipe.workers import WorkersFile

LONG = "A prompt of more than a few blocks, each of sixteen tokens, as a stand-in counts them: one a byte. " * 2


class Served:
    def __init__(self, gateway: Gateway, http: Http, prefills: list[ObservedEngine]) -> None:
        self.gateway = gateway
        self.http = http
        self.prefills = prefills

    async def route(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (await self.http.post(path, body)).status == 200
        route: dict[str, Any] = (await self.explained())["routes"][0]
        return route

    async def explained(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.http.get("/debug/routes")).json
        return answer


@contextlib.asynccontextmanager
async def served(version: str = "0.32.0", **of_worker: Any) -> AsyncIterator[Served]:
    caching = {"enable_prefix_caching": True, "kv_events": KvEventsPorts(), "dev_mode": True, "version": version}
    prefills = [ObservedEngine(f"prefill-{i}", Role.PREFILL, **caching) for i in range(2)]
    decode = ObservedEngine("decode-0", Role.DECODE, version=version)
    for engine in (*prefills, decode):
        await engine.start()
    workers = [decode.worker()]
    for engine in prefills:
        publisher = engine.ranks[0].publisher
        assert publisher is not None
        ports = {"kv_events_port": publisher.port, "kv_replay_port": publisher.replay_port}
        workers.append(engine.worker(**ports | of_worker))
    router = Router(index=ExactPrefixes(10_000), times=StepTimes())
    client = HttpClient()
    try:
        async with serve(
            WorkersFile(model=MODEL, workers=tuple(workers)), "127.0.0.1", 0, random=Random(1), started_at_s=0,
            request_timeout_s=LIMIT_S, max_body_bytes=1 << 20, grace_s=0, router=router, exact_prefixes=True,
        ) as (gateway, url):  # fmt: skip
            await eventually(lambda: len(gateway.pool.verified) == 2, "both pairs verified")
            yield Served(gateway, Http(client, url), prefills)
    finally:
        client.close()
        for engine in (*prefills, decode):
            await engine.close()


def num_told(found: Served, place: int) -> int:
    index = found.gateway.runner.router.index  # type: ignore[union-attr]
    assert isinstance(index, ExactPrefixes)
    return index.num_told(found.gateway.pool.ranks[1 + place])


@pytest.mark.parametrize("version", ["0.32.0", "0.23.0"])
@pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, completion(LONG)), (CHAT, chat(LONG))])
async def test_a_prompt_goes_where_the_events_say_its_blocks_are(version: str, path: str, body: dict[str, Any]) -> None:
    async with served(version) as found:
        await eventually(lambda: num_told(found, 0) + num_told(found, 1) > 0, "verifying has filled blocks")
        first = await found.route(path, body)
        place = int(first["prefill"].partition("/")[0].removeprefix("prefill-"))
        num_blocks = first["num_prompt_tokens"] // 16
        await eventually(lambda: num_told(found, place) >= num_blocks, "its blocks are told of")
        second = await found.route(path, body)
        assert second["prefill"] == first["prefill"]
        assert second["num_prefill_hit_tokens"] == min(num_blocks * 16, second["num_prompt_tokens"] - 1)
        used = found.prefills[place].answers[-1]
        assert b'"cached_tokens":%d' % (min(num_blocks * 16, (second["num_prompt_tokens"] - 1) // 16 * 16)) in used


async def test_a_cleared_cache_is_known_to_be_empty() -> None:
    async with served() as found:
        first = await found.route(COMPLETIONS, completion(LONG))
        place = int(first["prefill"].partition("/")[0].removeprefix("prefill-"))
        await eventually(lambda: found.prefills[place].is_empty)
        engine = Http(found.http._client, found.prefills[place].url)
        assert (await engine.post("/reset_prefix_cache", {})).status == 200
        await engine.post(COMPLETIONS, completion("x"))  # an engine tells with its next step
        await eventually(lambda: num_told(found, place) < len(LONG) // 16, "the engine has said so")


async def test_what_ranks_tell_is_explained() -> None:
    async with served() as found:
        await found.route(COMPLETIONS, completion(LONG))
        events = (await found.explained())["kv_events"]
        assert events["block_size"] == 16
        assert set(events["ranks"]) == {"prefill-0/0", "prefill-1/0"}
        assert sum(rank["blocks"] for rank in events["ranks"].values()) > 0


async def test_without_any_rank_that_tells_there_is_no_exact_mode() -> None:
    with pytest.raises(ConfigError, match="kv_events_port"):
        async with served(kv_events_port=None, kv_replay_port=None):
            pass
