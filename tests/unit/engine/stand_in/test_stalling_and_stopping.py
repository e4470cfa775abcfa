"""What a stand-in does while its engine hangs, and that one that is killed says nothing more."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from unit.engine.stand_in.standing import INSTANT, run, serving

from baton.base.errors import BatonError
from baton.engine.kv_transfer import decode_body, prefill_body
from baton.engine.stand_in.config import StepTime
from baton.engine.stand_in.faults import Refusal
from baton.engine.stand_in.requests import COMPLETIONS
from baton.engine.vllm import engine_request_ids

BODY = {"prompt": "What hangs waits.", "temperature": 0, "max_tokens": 8}
SLOW = replace(INSTANT, step_time=replace(StepTime.zero(), base_s=1.0))


def test_in_a_stall_nothing_is_computed_until_it_is_over() -> None:
    async def work() -> None:
        async with serving(INSTANT) as (server,):
            server.stand_in.set_faults(stall=True)
            asking = asyncio.create_task(server.complete())
            await asyncio.sleep(100)
            assert not asking.done()
            assert await server.metric("vllm:num_requests_waiting") == 1
            server.stand_in.clear_faults()
            assert len((await asking).text) == 8

    run(work())


def test_what_waits_in_a_stall_can_be_aborted() -> None:
    async def work() -> None:
        async with serving(INSTANT) as (server,):
            server.stand_in.set_faults(stall=True)
            asking = asyncio.create_task(server.complete(headers={"x-request-id": "mine"}))
            await asyncio.sleep(1)
            ids = engine_request_ids(COMPLETIONS, "mine")
            await server.send("POST", "/inference/v1/abort_requests", {"request_ids": ids})
            assert (await asking).json["choices"][0]["finish_reason"] == "abort"

    run(work())


def test_a_refusal_leaves_the_kv_alone_that_the_request_names() -> None:
    async def work() -> None:
        async with serving(INSTANT, INSTANT) as (prefill, decode):
            offer = (await prefill.send("POST", COMPLETIONS, prefill_body(BODY))).offer
            refusal = Refusal(status=503, body=b"\xff".decode(errors="surrogateescape"))
            decode.stand_in.set_faults(refuse=refusal, limits={"refuse": 1})
            assert (await decode.send("POST", COMPLETIONS, decode_body(BODY, offer))).body == b"\xff"
            await asyncio.sleep(1)
            assert len(prefill.rank.leases) == 1
            assert (await decode.send("POST", COMPLETIONS, decode_body(BODY, offer))).status == 200

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_is_killed_at_work_cuts_its_answers_and_gives_nothing_back(stream: bool) -> None:
    async def work() -> None:
        async with serving(INSTANT, SLOW) as (prefill, decode):
            offer = (await prefill.send("POST", COMPLETIONS, prefill_body(BODY))).offer
            decode.stand_in.set_faults(stall=True)
            body = {**decode_body(BODY, offer), "stream": stream}
            waiting = asyncio.create_task(decode.send("POST", COMPLETIONS, body))
            await asyncio.sleep(1)
            await decode.stand_in.stop()
            with pytest.raises(BatonError):
                await waiting
            await asyncio.sleep(1)
            assert len(prefill.rank.leases) == 1, "a process that is killed tells nobody"

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_whenever_one_is_killed_no_answer_looks_whole(stream: bool) -> None:
    async def work() -> None:
        for turns in range(30):
            async with serving(SLOW) as (server,):
                asking = asyncio.create_task(server.send("POST", COMPLETIONS, {**BODY, "stream": stream}))
                await asyncio.sleep(3.0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await server.stand_in.stop()
                with pytest.raises(BatonError):
                    await asking

    run(work())
