"""Whatever an engine does, the client gets one answer that says so, and nothing is left behind."""

import asyncio
import json
from dataclasses import replace

import pytest
from fakes.deployment import CHAT, COMPLETIONS, Deployment, body_for, chat, completion, deployment, eventually
from fakes.observed import ObservedEngine

from baton.engine.stand_in.answers import error_json

UNSHAPED = [b'{"detail":"Not Found"}', b"Internal Server Error", b"", b'{"error":"Unauthorized"}', b"\xff", b"[" * 9999]


def engine(d: Deployment, role: str) -> ObservedEngine:
    return d.prefill if role == "prefill" else d.decode


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_an_engines_own_error_is_passed_on_with_its_status(role: str, stream: bool, status: int) -> None:
    body = error_json(status, "No.", "SomeError")
    async with deployment() as d:
        engine(d, role).refuse(status, body)
        got = await d.http.post(CHAT, chat(stream=stream))
        assert (got.status, got.raw) == (status, body)
        assert got.headers["content-type"] == "application/json"
        assert d.outcomes() == {"failed": 1}
        await d.idle()


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("body", UNSHAPED)
@pytest.mark.parametrize(
    ("status", "expected"), [(500, 502), (503, 502), (404, 404), (401, 401), (204, 502), (307, 502)]
)
async def test_an_error_without_openais_shape_gets_one(role: str, body: bytes, status: int, expected: int) -> None:
    async with deployment() as d:
        engine(d, role).refuse(status, body)
        got = await d.http.post(CHAT, chat())
        assert got.status == expected
        assert got.error["code"] == expected
        await d.idle()


@pytest.mark.parametrize(
    ("kind", "num_releases"),
    [("Bad Request", 1), ("BadRequestError", 0)],
    ids=["invalid before vLLM has parsed it", "rejected after parsing"],
)
async def test_kv_of_a_refused_decode_leg_is_released_unless_the_refusal_did_it(kind: str, num_releases: int) -> None:
    bad = {"top_logprobs": "many"} if kind == "Bad Request" else {"min_tokens": 99}
    async with deployment() as d:
        got = await d.http.post(CHAT, chat(**bad))
        assert got.status == 400
        assert got.error["type"] == kind
        await d.idle()
        assert len(d.decode.of_kind("release")) == num_releases
        assert d.expired == 0


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_stream_options_without_a_stream_do_not_leave_kv_behind(path: str) -> None:
    async with deployment() as d:
        got = await d.http.post(path, body_for(path, stream_options={"include_usage": True}))
        assert got.status == 400
        await d.idle()
        assert d.expired == 0


async def test_a_prefill_that_offers_no_kv_is_a_502_that_says_why() -> None:
    async with deployment() as d:
        d.prefill.config = replace(d.prefill.config, kv_connector=False)
        got = await d.http.post(CHAT, chat())
        assert got.status == 502
        assert "--kv-transfer-config" in got.error["message"]
        assert not d.decode.of_kind("decode")
        await d.idle()


async def test_a_prefill_that_answers_no_json_is_a_502() -> None:
    async with deployment() as d:
        d.prefill.answer(b"<html>")
        assert (await d.http.post(CHAT, chat())).status == 502
        await d.idle()


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_an_unreachable_engine_is_a_503_and_its_pairs_wait_until_they_are_verified_again(role: str) -> None:
    async with deployment(prefill=2, decode=2) as d:
        lost = engine(d, role)
        await lost.stop()
        statuses = {(await d.http.post(CHAT, chat())).status for _ in range(2)}
        assert statuses <= {200, 503}
        await eventually(lambda: len(d.gateway.pool.verified) == 2, "two pairs left")
        assert (await d.http.post(CHAT, chat())).status == 200
        assert (await d.http.get("/ready")).status == 200
        await lost.start()
        before = len(lost.legs)
        await d.ready()
        assert any(leg.request_id.startswith("baton-verify") for leg in lost.legs[before:])
        await d.idle()


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_request_that_finds_an_engine_gone_is_the_last_to_be_sent_there(role: str) -> None:
    """Before any question of the gateway's own has gone unanswered."""

    async def healthy(_: float) -> None:
        pass

    async with deployment() as d:
        for state in d.gateway.pool.workers.values():
            state.server.healthy = healthy  # type: ignore[method-assign]
        await engine(d, role).stop()
        first = await d.http.post(CHAT, chat())
        assert (first.status, first.headers["retry-after"]) == (503, "5")
        assert "connecting" in first.error["message"]
        second = await d.http.post(CHAT, chat())
        assert second.status == 503
        assert d.outcomes()["shed"] == 1
        assert f"{role}-0" in second.error["message"]


async def test_with_its_only_decode_gone_the_gateway_sheds_and_later_serves_again() -> None:
    async with deployment() as d:
        await d.decode.stop()
        await eventually(lambda: not d.gateway.pool.verified, "the pair is lost")
        got = await d.http.post(CHAT, chat())
        assert got.status == 503
        assert got.headers["retry-after"] == "5"
        assert "decode-0" in got.error["message"]
        await d.decode.start()
        await d.ready()
        assert (await d.http.post(CHAT, chat())).status == 200


async def test_kv_of_a_decode_engine_that_cannot_be_reached_is_released_through_another() -> None:
    async with deployment(decode=2) as d:
        d.prefill.set_faults(stall=True)
        asking = [asyncio.create_task(d.http.post(COMPLETIONS, completion("x" * 40 + str(i)))) for i in range(2)]
        await eventually(lambda: len(d.prefill.running) == 2)
        await d.decode.stop()
        d.prefill.clear_faults()
        statuses = sorted(got.status for got in await asyncio.gather(*asking))
        assert statuses == [200, 200], "what the lost one was to decode is tried again on the other"
        await d.idle()
        assert d.expired == 0
        assert d.metric("baton_kv_releases_total", result="released") == 1


async def test_kv_that_nobody_can_release_is_counted_as_left_to_its_lease() -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.post(CHAT, chat()))
        await eventually(lambda: d.prefill.running)
        await d.decode.stop()
        d.prefill.clear_faults()
        assert (await asking).status == 503
        await d.idle(but_for_leases=True)
        assert d.metric("baton_kv_releases_total", result="left_to_lease") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_while_decoding_fails_the_request(stream: bool) -> None:
    async with deployment() as d:
        if stream:
            d.decode.set_faults(hang_after=2)
        else:
            d.decode.set_faults(hang_before_head=True)
        asking = asyncio.create_task(d.http.post(CHAT, chat(stream=stream)))
        await eventually(lambda: d.decode.running)
        await asyncio.sleep(0)
        if stream:
            await eventually(lambda: d.metric("baton_time_to_first_token_seconds_count") == 1)
        await d.decode.stop()
        got = await asking
        if stream:
            assert got.status == 200
            assert json.loads(got.payloads[-1])["error"]["code"] == 502
            assert b"[DONE]" not in got.raw
        else:  # 503 where the leg was on a kept connection: it is tried on a new one, and there is nobody
            assert got.status in {502, 503}
            assert got.error["code"] == got.status


@pytest.mark.parametrize("inside", [False, True], ids=["between events", "inside an event"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_that_is_cut_ends_with_an_error_event_and_no_done(path: str, inside: bool) -> None:
    async with deployment() as d:
        d.decode.set_faults(cut_after=3, cut_inside=inside)
        got = await d.http.post(path, body_for(path, stream=True))
        assert got.status == 200
        *_, last = got.payloads
        assert json.loads(last)["error"]["type"] == "server_error"
        assert b"[DONE]" not in got.raw
        assert d.outcomes() == {"failed": 1}
        await d.idle()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_whose_first_event_is_an_error_becomes_an_http_error(path: str) -> None:
    async with deployment() as d:
        d.decode.set_faults(error_after=0)
        got = await d.http.post(path, body_for(path, stream=True))
        assert got.status == 500
        assert got.error["message"] == "Internal server error"
        assert got.headers["content-type"] == "application/json"
        await d.idle()


async def test_kv_that_cannot_be_loaded_is_an_http_error_streamed_or_not() -> None:
    async with deployment() as d:
        for stream in (False, True):
            d.prefill.set_faults(stall=True)
            asking = asyncio.create_task(d.http.post(CHAT, chat(stream=stream)))
            await eventually(lambda: d.prefill.running)
            await d.prefill.ranks[0].side.stop()  # whoever fetches finds nobody there
            d.prefill.clear_faults()
            got = await asking
            assert got.status == 500
            assert got.error["type"] == "InternalServerError"


async def test_an_error_event_in_mid_stream_reaches_the_client() -> None:
    async with deployment() as d:
        d.decode.set_faults(error_after=2)
        got = await d.http.post(CHAT, chat(stream=True))
        assert got.status == 200
        assert b'"error"' in got.payloads[-1], "the engine's words come last, and [DONE] is not passed on"
        assert sum(b'"error"' in payload for payload in got.payloads) == 1
        assert d.outcomes() == {"failed": 1}
        await d.idle()


async def test_a_stream_without_done_ends_with_an_error() -> None:
    async with deployment() as d:
        d.decode.set_faults(no_done=True)
        got = await d.http.post(CHAT, chat(stream=True))
        error = json.loads(got.payloads[-1])["error"]
        assert "[DONE]" in error["message"]
        assert d.outcomes() == {"failed": 1}


@pytest.mark.parametrize("where", ["prefill", "decode head", "decode stream"])
async def test_a_request_that_takes_longer_than_its_deadline_fails(where: str) -> None:
    async with deployment(request_timeout_s=0.3) as d:
        if where == "prefill":
            d.prefill.set_faults(stall=True)
        elif where == "decode head":
            d.decode.set_faults(hang_before_head=True)
        else:
            d.decode.set_faults(hang_after=2)
        got = await d.http.post(CHAT, chat(stream=where == "decode stream"))
        if where == "decode stream":
            assert got.status == 200
            assert "deadline" in json.loads(got.payloads[-1])["error"]["message"]
        else:
            assert got.status == 504
            assert got.error["code"] == 504
        await d.idle()
        assert d.outcomes() == {"failed": 1}


async def test_failures_of_one_request_do_not_touch_another() -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = [asyncio.create_task(d.http.post(CHAT, chat(f"{i}"))) for i in range(4)]
        bad = asyncio.create_task(d.http.post(CHAT, chat(temperature=-2)))
        assert (await bad).status == 400
        d.prefill.clear_faults()
        assert [got.status for got in await asyncio.gather(*asking)] == [200] * 4
        await d.idle()
