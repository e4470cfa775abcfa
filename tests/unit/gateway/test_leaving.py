"""A client that leaves, whenever it does, leaves no KV held, nothing running and nothing reserved."""

import asyncio
from typing import Any

import pytest
from fakes.deployment import CHAT, COMPLETIONS, Deployment, body_for, chat, deployment, eventually

from baton.engine.client import HttpClient
from baton.engine.origin import Origin


async def leave(asking: "asyncio.Task[object]") -> None:
    """Close the client's connection before its answer is here."""
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def all_clean(d: Deployment) -> None:
    await d.idle()
    assert d.outcomes() == {"cancelled": 1}
    assert d.metric("baton_requests_in_flight") == 0
    assert d.expired == 0


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_during_prefill_the_prefill_is_aborted_by_the_engines_id(path: str) -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.open(path, body_for(path)))
        await eventually(lambda: d.prefill.running)
        (running,) = d.prefill.running
        await leave(asking)
        await eventually(lambda: d.prefill.aborts)
        assert d.prefill.aborts == [running]
        await all_clean(d)
        assert not d.decode.of_kind("decode")
        assert not d.decode.of_kind("release")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_if_prefill_finishes_all_the_same_its_kv_is_released_through_decode(path: str) -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.open(path, body_for(path)))
        await eventually(lambda: d.prefill.running)
        (generation,) = d.prefill.running.values()
        generation.abort = lambda: None  # type: ignore[method-assign]  # the abort comes too late
        await leave(asking)
        await eventually(lambda: d.prefill.aborts)
        d.prefill.clear_faults()
        await eventually(lambda: d.decode.of_kind("release"), "the release")
        await all_clean(d)
        assert d.metric("baton_kv_releases_total", result="released") == 1


async def test_without_the_abort_route_the_prefill_ends_with_its_connection() -> None:
    async with deployment(prefill=[{"enable_scale_out": False}]) as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.open(CHAT, chat()))
        await eventually(lambda: d.prefill.running)
        await leave(asking)
        await all_clean(d)


async def test_in_any_turn_of_the_loop() -> None:
    """From the first turn to the last in which there is somebody to leave, so that each point of both legs is hit."""
    async with deployment() as d:
        for turns in range(1000):
            asking = asyncio.create_task(d.http.open(CHAT, chat()))
            for _ in range(turns):
                await asyncio.sleep(0)
            answered = asking.done()
            await leave(asking)
            await d.idle()
            assert d.expired == 0, f"left after {turns} turns"
            if answered:
                break
        assert answered
        assert d.prefill.aborts
        assert d.decode.of_kind("release")
        assert len(d.decode.of_kind("decode")) > 2
        assert d.outcomes().keys() == {"cancelled", "completed"}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_while_decode_computes_its_connection_is_closed(path: str) -> None:
    async with deployment() as d:
        d.decode.set_faults(hang_before_head=True)
        asking = asyncio.create_task(d.http.open(path, body_for(path)))
        await eventually(lambda: d.decode.running)
        await leave(asking)
        await eventually(lambda: not d.decode.running, "decode stopped")
        await all_clean(d)
        assert not d.decode.of_kind("release")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_in_mid_stream_the_decode_connection_is_closed(path: str) -> None:
    async with deployment() as d:
        d.decode.set_faults(hang_after=3)
        response = await d.http.open(path, body_for(path, stream=True))
        assert b"data: " in await anext(response.chunks())
        assert d.decode.running
        response.close()
        await all_clean(d)


async def test_before_anything_was_sent_to_it() -> None:
    async with deployment() as d:
        asking = asyncio.create_task(d.http.open(CHAT, chat()))
        await asyncio.sleep(0)
        await leave(asking)
        await d.idle()


async def test_a_gateway_that_stops_waits_for_what_it_owes() -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.open(CHAT, chat()))
        await eventually(lambda: d.prefill.running)
        await leave(asking)
        await eventually(d.outcomes)
        await d.gateway.runner.settle()
        assert not d.prefill.running


async def test_while_the_decode_connection_is_made_the_kv_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting, connect = asyncio.Event(), HttpClient._connect

    async def never_the_first_time(client: HttpClient, origin: Origin, doing: str, deadline_s: float | None) -> Any:
        if origin.port == decode_port and doing.endswith(CHAT) and not connecting.is_set():
            connecting.set()
            await asyncio.Event().wait()
        return await connect(client, origin, doing, deadline_s)

    async with deployment() as d:
        decode_port = d.gateway.pool.workers[d.decode.name].server.origin.port
        monkeypatch.setattr(HttpClient, "_take", lambda client, origin: None)
        monkeypatch.setattr(HttpClient, "_connect", never_the_first_time)
        asking = asyncio.create_task(d.http.open(CHAT, chat()))
        await connecting.wait()
        await leave(asking)
        await eventually(lambda: d.decode.of_kind("release"), "the release")
        assert not d.decode.of_kind("decode")
        await all_clean(d)
