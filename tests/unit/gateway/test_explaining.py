"""What a request says of itself: where its time went, why it went where it did, and what is kept of it."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from fakes.deployment import CHAT, COMPLETIONS, body_for, chat, completion, deployment, eventually

from baton.gateway.access_log import AccessLog
from baton.gateway.app import Gateway


def timing(value: str) -> dict[str, float]:
    """A Server-Timing header: part -> milliseconds."""
    return {name: float(dur) for name, dur in re.findall(r"([a-z_]+);dur=([0-9.]+)", value)}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_parts_of_a_requests_time_sum_to_the_whole(path: str, stream: bool) -> None:
    async with deployment() as d:
        got = await d.http.post(path, body_for(path, stream=stream))
        parts = timing(got.headers["server-timing"])
        total = parts.pop("total")
        last = "transfer_and_first_decode" if stream else "transfer_and_decode"
        assert list(parts) == ["queue", "route", "prefill", "handover", last]
        assert sum(round(1000 * part) for part in parts.values()) == round(1000 * total)


async def test_of_several_generations_the_parts_sum_too() -> None:
    async with deployment() as d:
        for stream in (False, True):
            got = await d.http.post(COMPLETIONS, completion(["a", "b"], n=2, temperature=1, stream=stream))
            parts = timing(got.headers["server-timing"])
            assert sum(round(1000 * ms) for name, ms in parts.items() if name != "total") == round(
                1000 * parts["total"]
            )


async def test_a_route_is_explained_to_whoever_asks() -> None:
    async with deployment(prefill=2, decode=2) as d:
        plain = await d.http.post(CHAT, chat())
        assert "x-baton-route" not in plain.headers
        got = await d.http.post(CHAT, chat(), {"x-baton-route": "explain"})
        assert re.search(r"prefill-\d/0->decode-\d/0", got.headers["x-baton-route"])
        routes = (await d.http.get("/debug/routes")).json
        assert [route["request_id"] for route in routes["routes"]] == [
            got.headers["x-request-id"], plain.headers["x-request-id"],
        ]  # fmt: skip
        assert routes["routes"][0]["prefill"] in got.headers["x-baton-route"]
        assert routes["step_times"]


async def test_a_conversation_returns_to_the_prefill_rank_that_has_its_beginning() -> None:
    async with deployment(prefill=3, decode=1) as d:
        # These engines take no time, from which nothing can be learnt of ones that do.
        d.gateway.runner.router._may_learn = lambda *_: False  # type: ignore[method-assign]
        for conversation in range(4):
            text = f"conversation {conversation} " + "a long beginning, " * 100
            served = []
            for turn in range(3):
                assert (await d.http.post(CHAT, chat(text + f"turn {turn}"))).status == 200
                served.append(next(p.name for p in d.prefills if any(text[:40] in str(leg.body) for leg in p.legs)))
            assert len(set(served)) == 1
            assert sum(any(text[:40] in str(leg.body) for leg in p.legs) for p in d.prefills) == 1
        assert d.metric("baton_prefix_hit_tokens_total", source="predicted") > 0


async def test_a_request_whose_engine_vanishes_is_tried_on_another_pair() -> None:
    """Before the client has got anything: the prefill rank dies at work, and nobody sees an error."""
    async with deployment(prefill=2) as d:
        for prefill in d.prefills:
            prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.post(CHAT, chat()))
        await eventually(lambda: any(p.running for p in d.prefills))
        victim, other = sorted(d.prefills, key=lambda p: not p.running)
        await victim.stop()
        other.clear_faults()
        got = await asking
        assert got.status == 200
        assert "failed_tries" in timing(got.headers["server-timing"])
        assert d.metric("baton_retries_total", leg="prefill") == 1
        assert d.outcomes() == {"failed": 1, "completed": 1}
        await d.idle()


async def test_the_access_log_has_a_line_a_request_and_no_prompt(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "access.jsonl"), flush_s=0.01)

    def alter(gateway: Gateway) -> None:
        gateway._access_log = log

    async with deployment(alter=alter) as d:
        await d.http.post(CHAT, chat("a secret"))
        await d.http.post(COMPLETIONS, completion(["a secret", "b"], stream=True))
        await d.http.post(CHAT, chat("a secret", temperature=-1.5))
        await d.http.post(CHAT, b"a secret")
        await asyncio.to_thread(log.close)
    raw = (tmp_path / "access.jsonl").read_text()
    assert "secret" not in raw
    lines = [json.loads(line) for line in raw.splitlines()]
    assert [(line["status"], line["outcome"]) for line in lines] == [
        (200, "completed"), (200, "completed"), (400, "failed"), (400, None),
    ]  # fmt: skip
    first, several, *_ = lines
    assert (first["num_output_tokens"], several["num_output_tokens"]) == (8, 16)
    assert first["prefill"] == "prefill-0/0"
    assert first["elapsed_s"] == pytest.approx(sum(first["parts_s"].values()), abs=1e-6)
    assert several["stream"] is True
