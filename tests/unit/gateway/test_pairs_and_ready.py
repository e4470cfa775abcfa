"""Readiness is a pair's: only ranks that are compatible and have handed off to each other serve."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from fakes.deployment import CHAT, Deployment, Http, chat, deployment, eventually
from fakes.observed import ObservedEngine

from baton.base.errors import WorkerError
from baton.gateway.app import serve
from baton.gateway.pool import UNVERIFIED, Pool
from baton.recipe.workers import WorkersFile

SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")


async def judged(d: Deployment) -> dict[str, Any]:
    """The /ready answer once every pair has been tried."""
    await eventually(lambda: all("not verified" not in reason for reason in d.gateway.pool.pairs.values()))
    got = await d.http.get("/ready")
    state = got.json
    assert got.status == (200 if state["ready"] else 503)
    return state


async def test_ready_says_no_with_the_reason_until_a_pair_has_proved_itself() -> None:
    async with deployment(started=lambda engine: engine.name != "decode-0", ready=False) as d:
        await eventually(lambda: d.gateway.pool.workers["prefill-0"].identity)
        got = await d.http.get("/ready")
        assert got.status == 503
        assert got.json["ready"] is False
        assert "decode-0" in got.json["reason"]
        assert (await d.http.get("/health")).status == 200
        await d.decode.start()
        await d.ready()
        got = await d.http.get("/ready")
        assert got.status == 200
        assert got.json["reason"] == ""
        assert [worker["state"] for worker in got.json["workers"]] == ["ready", "ready"]
        assert [(p["prefill"], p["decode"], p["verified"]) for p in got.json["pairs"]] == [
            ("prefill-0/0", "decode-0/0", True)
        ]


async def test_a_verification_leaves_nothing_behind() -> None:
    async with deployment(prefill=2, decode=2) as d:
        await d.idle()
        assert d.expired == 0


@pytest.mark.parametrize(
    ("config", "fields", "said"),
    [
        ({"version": "0.31.0"}, {}, "engine version '0.32.0' and '0.31.0'"),
        ({"block_size": 32}, {}, "block size '16' and '32'"),
        ({"cache_dtype": "fp8"}, {}, "kv cache dtype 'auto' and 'fp8'"),
        ({"root": "/models/other"}, {}, "model '/models/tiny-r1' and '/models/other'"),
        ({}, {"weights": "b"}, "weights 'a' and 'b'"),
        ({}, {"attention_backend": "FLASHMLA"}, "attention backend 'CPU_MLA' and 'FLASHMLA'"),
    ],
    ids=["version", "block size", "cache dtype", "model", "weights", "attention backend"],
)
async def test_incompatible_engines_are_never_paired(config: dict[str, Any], fields: dict[str, str], said: str) -> None:
    def worker(engine: ObservedEngine) -> dict[str, Any]:
        mine = {"weights": "a", "attention_backend": "CPU_MLA"}
        return mine | (fields if engine.name == "decode-0" else {})

    async with deployment(decode=[config], worker=worker, ready=False) as d:
        state = await judged(d)
        assert state["ready"] is False
        assert f"not compatible: {said}" in state["reason"]
        assert not d.decode.legs


async def test_an_incompatible_rank_does_not_keep_the_others_from_serving() -> None:
    async with deployment(decode=[{}, {"block_size": 32}], ready=False) as d:
        state = await judged(d)
        assert state["ready"] is True
        assert [pair["verified"] for pair in state["pairs"]] == [True, False]
        assert [worker["state"] for worker in state["workers"]] == ["ready", "ready", "warming"]
        for _ in range(3):
            assert (await d.http.post(CHAT, chat())).status == 200
        assert not d.decodes[1].legs


async def test_a_decode_engine_without_kv_connector_never_serves_and_the_reason_says_so() -> None:
    async with deployment(decode=[{"kv_connector": False}], ready=False) as d:
        state = await judged(d)
        assert state["ready"] is False
        assert "computed the rest itself" in state["reason"]
        assert "--kv-transfer-config" in state["reason"]


async def test_a_prefill_engine_without_kv_connector_never_serves_and_the_reason_says_so() -> None:
    async with deployment(prefill=[{"kv_connector": False}], ready=False) as d:
        state = await judged(d)
        assert state["ready"] is False
        assert "--kv-transfer-config" in state["reason"]


async def test_a_decode_engine_with_other_weights_never_serves() -> None:
    async with deployment(decode=[{"weights": "wrong"}], ready=False) as d:
        state = await judged(d)
        assert state["ready"] is False
        assert "compute different things" in state["reason"]
        await d.idle(but_for_leases=True)


async def test_kv_that_comes_from_other_blocks_than_named_keeps_a_pair_from_serving() -> None:
    def shifted(d: Deployment) -> None:
        (rank,) = d.prefill.ranks
        contents_of = rank.contents_of
        rank.contents_of = lambda blocks: contents_of([block + 1 for block in blocks])  # type: ignore[method-assign]

    async with deployment(started=lambda engine: engine.name != "decode-0", ready=False) as d:
        shifted(d)
        await d.decode.start()
        state = await judged(d)
        assert state["ready"] is False
        assert "changed the answer" in state["reason"] or "prefill-0" in state["reason"]


@pytest.mark.parametrize(
    "config",
    [
        {"metrics_text": "not { prometheus"},
        {"metrics_text": ""},
        {
            "metrics_text": "".join(
                f'vllm:prompt_tokens_by_source_total{{engine="0",source="{s}"}} NaN\n' for s in SOURCES
            )
        },
        {"models_text": "[]"},
        {"models_text": '{"data": []}'},
        {"models_text": '{"data": ["x"]}'},
        {"models_text": '{"data": 3}'},
        {"models_text": "<html>"},
    ],
    ids=str,
)
@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_server_that_is_no_vllm_never_serves_and_does_not_stop_the_gateway(role: str, config: dict) -> None:
    sides: dict[str, Any] = {role: [config]}
    async with deployment(**sides, ready=False) as d:
        if role == "prefill" and "{ " not in config.get("metrics_text", "{ "):
            await d.ready()  # prefill's counters are the proof's business
            return
        worker, (pair,) = d.gateway.pool.workers[f"{role}-0"], d.gateway.pool.pairs
        await eventually(lambda: worker.reason not in {"", "not asked yet"} or d.gateway.pool.pairs[pair] != UNVERIFIED)
        got = await d.http.get("/ready")
        assert got.status == 503
        assert got.json["reason"]
        assert (await d.http.get("/health")).status == 200


async def test_a_worker_that_joins_later_joins() -> None:
    async with deployment(prefill=2, decode=2, started=lambda e: e.name[-1] == "0", ready=False) as d:
        await eventually(lambda: len(d.gateway.pool.verified) == 1)
        assert (await d.http.post(CHAT, chat())).status == 200
        for engine in (d.prefills[1], d.decodes[1]):
            await engine.start()
        await d.ready()
        assert len(d.gateway.pool.verified) == 4


async def test_a_worker_that_restarts_is_verified_again() -> None:
    async with deployment() as d:
        await d.decode.stop()
        await eventually(lambda: not d.gateway.pool.verified)
        d.decode.config = replace(d.decode.config, weights="new and wrong")
        await d.decode.start()
        state = await judged_again(d)
        assert state["ready"] is False
        assert "compute different things" in state["reason"]
        await d.decode.stop()
        await eventually(lambda: d.gateway.pool.workers["decode-0"].identity is None)
        d.decode.config = replace(d.decode.config, weights="right")
        await d.decode.start()
        await d.ready()


async def judged_again(d: Deployment) -> dict[str, Any]:
    await eventually(lambda: any("different" in reason for reason in d.gateway.pool.pairs.values()))
    return (await d.http.get("/ready")).json


async def test_a_worker_that_is_slow_to_answer_once_is_not_lost() -> None:
    """One missed answer is a busy engine; two are one that is gone."""
    async with deployment() as d:
        server = d.gateway.pool.workers["decode-0"].server
        healthy, calls = server.healthy, []

        async def sometimes(timeout_s: float) -> None:
            calls.append(timeout_s)
            if len(calls) == 1:
                raise WorkerError("it took too long")
            await healthy(timeout_s)

        server.healthy = sometimes  # type: ignore[method-assign]
        await eventually(lambda: len(calls) > 2)
        assert d.gateway.pool.verified


async def test_every_pair_of_data_parallel_ranks_is_verified_and_used() -> None:
    async with deployment(prefill=[{"dp_size": 2}], decode=[{"dp_size": 3}]) as d:
        assert len(d.gateway.pool.verified) == 6
        tried = {leg.dp_rank for leg in d.decode.legs if leg.kind == "decode"}
        assert tried == {0, 1, 2}
        d.prefill.set_faults(stall=True)
        asking = [asyncio.create_task(d.http.post(CHAT, chat(f"{i}"))) for i in range(12)]
        await eventually(lambda: len(d.prefill.running) == 12)
        assert d.loads == [6, 6, 4, 4, 4]
        d.prefill.clear_faults()
        assert {got.status for got in await asyncio.gather(*asking)} == {200}
        for engine, expected in ((d.prefill, 6), (d.decode, 4)):
            kind = "prefill" if engine is d.prefill else "decode"
            for rank in engine.config.ranks:
                assert [leg.dp_rank for leg in engine.of_kind(kind)].count(rank) == expected
        await d.idle()


async def test_decode_fetches_from_the_very_rank_that_prefilled() -> None:
    async with deployment(prefill=[{"dp_size": 2}], decode=[{"dp_size": 2}]) as d:
        for i in range(6):
            assert (await d.http.post(CHAT, chat(f"{i}"))).status == 200
        by_id = {leg.request_id: leg for leg in d.prefill.of_kind("prefill")}
        for leg in d.decode.of_kind("decode"):
            assert leg.params["remote_engine_id"].endswith(f"_dp{by_id[leg.request_id].dp_rank}")


async def test_an_idle_gateway_leaves_verified_pairs_alone() -> None:
    async with deployment() as d:
        legs = len(d.decode.legs)
        num_requests = d.decode.num_requests
        await eventually(lambda: d.decode.num_requests >= num_requests + 10, "ten polls")
        assert len(d.decode.legs) == legs


async def test_a_result_about_a_worker_that_has_restarted_meanwhile_does_not_count() -> None:
    async with deployment() as d:
        pool: Pool = d.gateway.pool
        (pair,) = pool.pairs
        before = pool.generations(pair)
        identity = pool.workers["decode-0"].identity
        assert identity is not None
        pool.found("decode-0", identity)
        pool.judge(pair, before, "")
        assert not pool.verified
        pool.judge(pair, pool.generations(pair), "")
        assert pool.verified == (pair,)


async def test_the_gateway_as_it_is_started_by_its_command() -> None:
    """`serve` itself, with its own clocks."""
    async with deployment() as d:
        workers: WorkersFile = d.workers
        async with serve(
            workers,
            "127.0.0.1",
            0,
            random=Random(3),
            started_at_s=17.0,
            request_timeout_s=10.0,
            max_body_bytes=2000,
            grace_s=0.0,
        ) as (gateway, url):
            http = Http(d.client, url)
            await eventually(lambda: gateway.pool.verified)
            assert (await http.post(CHAT, chat())).status == 200
            assert (await http.post(CHAT, chat("x" * 3000))).status == 413
            assert [entry["created"] for entry in (await http.get("/v1/models")).json["data"]] == [17, 17]
        assert not d.decode.running
