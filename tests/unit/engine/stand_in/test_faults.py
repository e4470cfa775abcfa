"""Every fault, by its name, does something that a client can see, and clearing the faults undoes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from unit.engine.stand_in.standing import INSTANT, PROMPT, Got, Server, now_s, run, serving

from baton.base.errors import BatonError, ConfigError
from baton.engine.kv_transfer import decode_body, prefill_body
from baton.engine.stand_in.config import StepTime
from baton.engine.stand_in.faults import FAULTS, Faults, read_faults
from baton.engine.stand_in.requests import COMPLETIONS

STEP_S = 1.0
TIMED = replace(INSTANT, step_time=replace(INSTANT.step_time, base_s=STEP_S))
LONG = PROMPT * 3
BODY = {"prompt": LONG, "temperature": 0, "max_tokens": 8}
Servers = tuple[Server, Server]
Check = Callable[[Server, Server], Awaitable[None]]


async def fault(server: Server, **faults: Any) -> None:
    """Set faults over the wire, as a person does."""
    got = await server.send("POST", "/faults", faults)
    assert got.status == 200, got.body


async def streamed(server: Server) -> Got:
    return await server.complete(stream=True)


def texts(got: Got) -> list[str]:
    return [event["choices"][0]["text"] for event in got.events if isinstance(event, dict) and "choices" in event]


async def handed_over(prefill: Server, decode: Server) -> Got:
    offer = (await prefill.send("POST", COMPLETIONS, prefill_body(BODY))).offer
    return await decode.send("POST", COMPLETIONS, decode_body(BODY, offer))


async def is_gone(server: Server) -> bool:
    try:
        await server.send("GET", "/health")
    except BatonError:
        return True
    return False


async def die(server: Server, _: Server) -> None:
    server.stand_in.set_faults(die=True)
    await asyncio.sleep(1)
    assert (await is_gone(server), server.num_deaths) == (True, 1)


async def die_after(server: Server, _: Server) -> None:
    await fault(server, die_after=3)
    with pytest.raises(BatonError):
        await streamed(server)
    assert (await is_gone(server), server.num_deaths) == (True, 1)


async def flap(server: Server, _: Server) -> None:
    first_engine = server.rank.engine_id
    await fault(server, flap={"up_s": 10, "down_s": 5})
    await asyncio.sleep(5)
    assert not await is_gone(server)
    await asyncio.sleep(7.5)
    assert await is_gone(server)
    await asyncio.sleep(5)
    assert not await is_gone(server)
    assert server.rank.engine_id != first_engine
    assert server.num_deaths == 0


async def stall(server: Server, _: Server) -> None:
    await fault(server, stall=True)
    asking = asyncio.create_task(server.complete())
    await asyncio.sleep(100)
    assert not asking.done()
    await server.send("DELETE", "/faults")
    assert len((await asking).text) == 8


async def refuse(server: Server, _: Server) -> None:
    await fault(server, refuse={"status": 418, "body": "no"})
    got = await server.complete()
    assert (got.status, got.body) == (418, b"no")


async def answer(server: Server, _: Server) -> None:
    await fault(server, answer="nonsense")
    got = await server.complete()
    assert (got.status, got.body) == (200, b"nonsense")


async def empty(server: Server, _: Server) -> None:
    await fault(server, empty="body")
    assert (await server.complete()).body == b""
    await fault(server, empty="choices")
    assert (await server.complete()).json == {"choices": []}
    await fault(server, empty="content")
    assert (await server.complete()).text == ""


async def hang_before_head(server: Server, _: Server) -> None:
    await fault(server, hang_before_head=True)
    asking = asyncio.create_task(server.complete())
    await asyncio.sleep(500)
    assert not asking.done()
    await server.send("DELETE", "/faults")
    assert (await asking).status == 200


async def hang_after(server: Server, _: Server) -> None:
    await fault(server, hang_after=3)
    asking = asyncio.create_task(streamed(server))
    await asyncio.sleep(500)
    assert not asking.done()
    await server.send("DELETE", "/faults")
    assert len(texts(await asking)) == 8


async def cut_after(server: Server, _: Server) -> None:
    await fault(server, cut_after=3)
    with pytest.raises(BatonError):
        await streamed(server)
    assert not await is_gone(server)


async def cut_inside(server: Server, _: Server) -> None:
    ends = {}
    for inside in (False, True):
        await fault(server, cut_after=3, cut_inside=inside)
        ends[inside] = await raw_until_cut(server)
    assert (ends[False].count(b"\n\n"), ends[True].count(b"\n\n")) == (3, 3)
    assert ends[False].endswith(b"\n\n")
    assert ends[True].endswith(b'data: {"id":"cmpl')


async def raw_until_cut(server: Server) -> bytes:
    """The body of a stream as far as it comes, without chunks' sizes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.stand_in.port)
    body = b'{"prompt":"p","max_tokens":8,"stream":true}'
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    raw = b""
    try:
        while part := await reader.read(1 << 16):
            raw += part
    except ConnectionError:
        pass
    writer.close()
    _, _, chunks = raw.partition(b"\r\n\r\n")
    whole = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        whole, chunks = whole + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]
    return whole


async def error_after(server: Server, _: Server) -> None:
    await fault(server, error_after=3)
    got = await streamed(server)
    assert len(texts(got)) == 3
    assert got.events[-2]["error"]["code"] == 500
    assert got.events[-1] == "[DONE]"


async def garbage_after(server: Server, _: Server) -> None:
    await fault(server, garbage_after=3)
    assert "{not json" in (await streamed(server)).events


async def no_done(server: Server, _: Server) -> None:
    assert (await streamed(server)).events[-1] == "[DONE]"
    await fault(server, no_done=True)
    got = await streamed(server)
    assert got.events[-1]["choices"][0]["finish_reason"] == "length"


async def slow(server: Server, _: Server) -> None:
    took_s = []
    for faults in ({}, {"slow": 3}):
        await fault(server, **faults)
        began_s = now_s()
        await server.complete()
        took_s.append(now_s() - began_s)
    assert took_s == pytest.approx([8 * STEP_S, 24 * STEP_S])


async def drop_notice(prefill: Server, decode: Server) -> None:
    await fault(decode, drop_notice=True)
    assert (await handed_over(prefill, decode)).status == 200
    await asyncio.sleep(1)
    assert len(prefill.rank.leases) == 1
    await asyncio.sleep(100)
    await prefill.complete()
    assert await prefill.metric("vllm:nixl_num_kv_expired_reqs_total") == 1


async def expire_lease(prefill: Server, decode: Server) -> None:
    await fault(prefill, expire_lease=True)
    await handed_over(prefill, decode)
    await asyncio.sleep(1)
    assert await prefill.metric("vllm:nixl_num_kv_expired_reqs_total") == 1
    assert await prefill.metric("vllm:nixl_num_notifications_after_expiry_total") == 1


async def other_text(prefill: Server, decode: Server, **faults: Any) -> None:
    right = (await prefill.complete(LONG)).text
    await fault(prefill, **faults)
    got = await handed_over(prefill, decode)
    assert got.status == 200
    assert got.text != right
    await prefill.send("DELETE", "/faults")
    assert (await handed_over(prefill, decode)).text == right


async def corrupt_kv(prefill: Server, decode: Server) -> None:
    await other_text(prefill, decode, corrupt_kv=True)


async def truncate_kv(prefill: Server, decode: Server) -> None:
    await other_text(prefill, decode, truncate_kv=True)


async def weights(prefill: Server, decode: Server) -> None:
    await other_text(prefill, decode, weights="others")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        die, die_after, flap, stall, refuse, answer, empty, hang_before_head, hang_after, cut_after, cut_inside,
        error_after, garbage_after, no_done, slow, drop_notice, expire_lease, corrupt_kv, truncate_kv, weights,
    )
}  # fmt: skip
UNCACHED = replace(TIMED, enable_prefix_caching=False)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_an_effect_that_a_client_sees(name: str) -> None:
    assert name in CHECKS, f"fault {name} has no test: write one that a client of the stand-in could"

    async def work() -> None:
        async with serving(UNCACHED, UNCACHED) as (first, second):
            await CHECKS[name](first, second)

    run(work())


def test_no_check_is_of_a_fault_that_there_is_not() -> None:
    assert set(CHECKS) == set(FAULTS)


def test_a_limit_counts_requests_and_then_the_fault_is_over() -> None:
    async def work() -> None:
        async with serving(INSTANT) as (server,):
            await fault(server, answer="x", limits={"answer": 2})
            assert [(await server.complete()).body == b"x" for _ in range(4)] == [True, True, False, False]
            assert (await server.send("GET", "/faults")).json == {}

    run(work())


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "faults cannot be read"),
        (b'{"slwo": 3}', "slwo"),
        (b'{"slow": "much"}', "slow"),
        (b'{"empty": "head"}', "empty"),
        (b'{"limits": {"slow": 0}}', "a limit is at least 1"),
        (b'{"limits": {"slwo": 1}}', "limits names slwo"),
        (b"[]", "faults cannot be read"),
    ],
)
def test_faults_that_there_are_not_are_refused_with_those_there_are(raw: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_faults(raw)
    assert "hang_before_head" in str(caught.value)

    async def work() -> None:
        async with serving(INSTANT) as (server,):
            got = await server.send("POST", "/faults", raw)
            assert (got.status, said in got.json["error"]["message"]) == (400, True)
            assert server.stand_in.faults == Faults()

    run(work())


def test_no_step_takes_time_unless_it_is_told_to() -> None:
    assert INSTANT.step_time.step_s(1000, 1000, 10, 1000) == 0 < StepTime().step_s(1, 0, 0, 0)
