"""The proof, against a real gateway and fake engines: what is right is PROVEN, what is wrong is not, and says why."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fakes.deployment import CHAT, Deployment, chat, deployment, eventually
from fakes.faulty_gateway import Believes, ExchangesBlocks, ForgetsToPull, SkipsPrefill, SwapsPools, with_runner
from fakes.observed import SHAPE

from baton.base.errors import ConfigError, WorkerError
from baton.base.reply import Reply, Request
from baton.prove.run import prove_deployment
from baton.prove.subject import Patience
from baton.prove.verdict import Verdict

PATIENCE = Patience(ready_s=2.0, answer_s=5.0, counters_s=0.2, poll_s=0.01)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path


async def prove(d: Deployment) -> Verdict:
    return await prove_deployment(d.workers, d.url, random=Random(5), patience=PATIENCE)


def failing(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if check.ok is False}


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"prefill": 2, "decode": 2},
        {"prefill": [{"dp_size": 2}], "decode": [{"dp_size": 2}]},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
async def test_a_healthy_deployment_is_proven_by_sixteen_canaries(checkpoint: Path, shape: dict[str, Any]) -> None:
    if shape.get("dtype"):
        (checkpoint / "config.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": 8}))  # half the bytes each
    async with deployment(checkpoint=checkpoint, **shape) as d:
        verdict = await prove(d)
        assert verdict.proven, verdict.reason
        assert verdict.reason == ""
        assert len(verdict.checks) == 11
        found = {check.name: check.found for check in verdict.checks}
        assert found["answers equal to decode alone"].startswith("16 of 16")
        assert found["first tokens equal to prefill's"].startswith("16 of 16")
        canaries = [leg for e in d.prefills for leg in e.of_kind("prefill") if not leg.request_id.startswith("baton")]
        assert len(canaries) == 16
        await d.idle()
        assert d.expired == 0


async def test_a_proof_can_be_repeated_on_a_deployment_that_has_served(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint) as d:
        for _ in range(2):
            await d.http.post(CHAT, chat())
            assert (await prove(d)).proven


async def test_two_proofs_send_different_prompts(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint) as d:
        for seed in (1, 2):
            await prove_deployment(d.workers, d.url, random=Random(seed), patience=PATIENCE)
        prompts = [str(leg.body.get("prompt")) for leg in d.prefill.of_kind("prefill") if leg.path != CHAT]
        assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_an_engine_without_kv_connector(checkpoint: Path, role: str) -> None:
    sides: dict[str, Any] = {role: [{"kv_connector": False}]}
    async with deployment(checkpoint=checkpoint, **sides, ready=False) as d:
        verdict = await prove(d)
        assert not verdict.proven
        assert failing(verdict) == {"pairs of ranks that hand off"}
        assert "--kv-transfer-config" in verdict.reason


async def test_a_decode_without_kv_connector_that_the_gateway_believes_in(checkpoint: Path) -> None:
    """Prefill is paid twice; every token is right."""
    async with deployment(checkpoint=checkpoint, decode=[{"kv_connector": False}], readiness=Believes) as d:
        verdict = await prove(d)
        assert not verdict.proven
        assert {"prompt tokens decode received", "prompt tokens decode computed", "KV moved"} <= failing(verdict)
        assert "answers equal to decode alone" not in failing(verdict)


async def test_a_prefill_without_kv_connector_that_the_gateway_believes_in(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint, prefill=[{"kv_connector": False}], readiness=Believes) as d:
        verdict = await prove(d)
        assert failing(verdict) == {"the gateway answers canaries"}
        assert "without offering its KV" in verdict.reason


async def test_pools_swapped_at_the_gateway(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint, alter=with_runner(SwapsPools)) as d:
        verdict = await prove(d)
        assert {
            "prompt tokens prefill computed",
            "prompt tokens decode received",
            "prompt tokens decode computed",
            "KV moved",
        } <= failing(verdict)
        assert "answers equal to decode alone" not in failing(verdict)


@pytest.mark.parametrize("runner", [ForgetsToPull, SkipsPrefill])
async def test_a_decode_leg_that_pulls_nothing(checkpoint: Path, runner: type) -> None:
    async with deployment(checkpoint=checkpoint, alter=with_runner(runner)) as d:
        verdict = await prove(d)
        assert {"prompt tokens decode received", "prompt tokens decode computed", "KV moved"} <= failing(verdict)
        assert ("prompt tokens prefill computed" in failing(verdict)) == (runner is SkipsPrefill)


async def test_blocks_of_two_equally_long_requests_exchanged(checkpoint: Path) -> None:
    """Every count is right; only the tokens are not."""
    async with deployment(checkpoint=checkpoint, alter=with_runner(ExchangesBlocks)) as d:
        verdict = await prove(d)
        assert failing(verdict) == {"answers equal to decode alone"}
        assert "0 of 16" in verdict.reason


async def test_a_wrong_weights_decode(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint, decode=[{"weights": "wrong"}], ready=False) as d:
        verdict = await prove(d)
        assert failing(verdict) == {"pairs of ranks that hand off"}
        assert "compute different things" in verdict.reason


async def test_a_wrong_weights_decode_that_the_gateway_believes_in(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint, decode=[{"weights": "wrong"}], readiness=Believes) as d:
        verdict = await prove(d)
        assert failing(verdict) == {"answers equal to decode alone", "first tokens equal to prefill's"}


async def test_one_wrong_weights_decode_among_right_ones(checkpoint: Path) -> None:
    decodes = [{}, {"weights": "wrong"}]
    async with deployment(checkpoint=checkpoint, decode=decodes, readiness=Believes) as d:
        assert "first tokens equal to prefill's" in failing(await prove(d))


async def test_a_decode_that_recomputes_what_it_cannot_fetch(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint, decode=[{"kv_load_failure_policy": "recompute"}]) as d:
        verdict = await prove(d)
        assert failing(verdict) == {"KV that cannot be fetched"}
        assert "kv_load_failure_policy fail" in verdict.reason


async def test_kv_whose_lease_ended_before_it_was_fetched(checkpoint: Path) -> None:
    """The memory was not used again, so that every token is right; next time it may be."""
    async with deployment(checkpoint=checkpoint, prefill=[{"kv_lease_duration_s": 0}]) as d:
        verdict = await prove(d)
        assert failing(verdict) == {"KV leases that expired"}


async def test_engines_that_serve_others_meanwhile(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint) as d:
        d.decode.set_faults(stall=True)
        asking = asyncio.create_task(d.http.open(CHAT, chat()))
        await eventually(lambda: d.decode.running)
        verdict = await prove(d)
        assert failing(verdict) == {"the engines are idle"}
        assert "1 requests of others" in verdict.reason
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_bytes_that_are_not_what_the_model_needs(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": 5}))
    async with deployment(checkpoint=checkpoint) as d:
        assert failing(await prove(d)) == {"KV moved"}


async def test_a_worker_that_is_not_there(checkpoint: Path) -> None:
    absent = {"started": lambda engine: engine.name != "decode-1", "ready": False}
    async with deployment(checkpoint=checkpoint, decode=2, **absent) as d:
        verdict = await prove_deployment(
            d.workers, d.url, random=Random(5), patience=Patience(ready_s=0.3, answer_s=5.0, poll_s=0.01)
        )
        assert failing(verdict) == {"pairs of ranks that hand off"}
        assert "decode-1" in verdict.reason


@pytest.mark.parametrize("where", ["given", "as the engines name it"])
async def test_without_the_checkpoint_nothing_can_be_proved(tmp_path: Path, where: str) -> None:
    async with deployment(checkpoint=tmp_path / "nowhere" if where == "given" else None) as d:
        with pytest.raises(ConfigError, match=r"config\.json"):
            await prove(d)


async def test_the_checkpoint_is_found_where_the_engines_say_it_is(checkpoint: Path) -> None:
    sides = {role: [{"root": str(checkpoint)}] for role in ("prefill", "decode")}
    async with deployment(**sides) as d:  # type: ignore[arg-type]
        assert (await prove(d)).proven


async def test_a_gateway_that_is_not_there_is_an_error_not_a_verdict(checkpoint: Path) -> None:
    async with deployment(checkpoint=checkpoint) as d:
        with pytest.raises(WorkerError):
            await prove_deployment(d.workers, "http://127.0.0.1:9", random=Random(5), patience=PATIENCE)


@pytest.mark.parametrize("fault", ["refuse", "answer"])
async def test_an_engine_that_breaks_under_the_canaries(checkpoint: Path, fault: str) -> None:
    async with deployment(checkpoint=checkpoint) as d:
        await eventually(lambda: d.gateway.pool.verified)
        server = d.decode._server
        assert server is not None
        handle = server.handler

        async def breaking(request: Request, reply: Reply) -> None:
            if d.prefill.of_kind("prefill") and fault == "refuse":
                d.decode.refuse(500, b"broken")
            elif d.prefill.of_kind("prefill"):
                d.decode.answer(b"{}")
            await handle(request, reply)

        server.handler = breaking
        verdict_or_error = await asyncio.gather(prove(d), return_exceptions=True)
        (found,) = verdict_or_error
        assert isinstance(found, WorkerError) or not found.proven
