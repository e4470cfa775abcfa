"""n > 1 and array prompts: one hand-off each, put together as the engine alone would answer."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from fakes.deployment import CHAT, COMPLETIONS, chat, completion, deployment, eventually

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat n": (CHAT, chat(n=3, temperature=0.8, seed=11)),
    "chat n with logprobs": (CHAT, chat(n=2, temperature=1, seed=3, logprobs=True, top_logprobs=2)),
    "completions n": (COMPLETIONS, completion(n=3, temperature=0.8, seed=11, logprobs=2)),
    "two texts": (COMPLETIONS, completion(["one", "two and more"], logprobs=1)),
    "two id lists": (COMPLETIONS, completion([[5, 6, 7], [8, 9]], return_token_ids=True)),
    "texts and n": (COMPLETIONS, completion(["one", "two and more", "three"], n=2, temperature=0.5, seed=40)),
    "a list of one text": (COMPLETIONS, completion(["one"])),
    "equally long prompts": (COMPLETIONS, completion(["a" * 40, "b" * 40, "c" * 40])),
    "echo": (COMPLETIONS, completion(["one", "two"], echo=True)),
}


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in {"id", "kv_transfer_params"}}


@pytest.mark.parametrize("name", CASES)
async def test_a_split_answer_equals_what_the_engine_answers_alone(name: str) -> None:
    path, body = CASES[name]
    async with deployment() as d:
        got, alone = await d.http.post(path, body), await d.native(path, body)
        assert got.status == 200
        assert without_id(got.json) == without_id(alone.json)
        await d.idle()
        assert d.expired == 0


@pytest.mark.parametrize("name", CASES)
async def test_a_split_stream_holds_what_the_engine_streams_alone(name: str) -> None:
    path, body = CASES[name]
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with deployment() as d:
        got, alone = await d.http.post(path, body), await d.native(path, body)
        assert by_choice(got.events) == by_choice(alone.events)
        assert got.events[-1]["usage"] == alone.events[-1]["usage"]
        assert got.events[-1]["choices"] == []
        assert len({event["id"] for event in got.events}) == 1
        await d.idle()


def by_choice(events: list[dict[str, Any]]) -> dict[int, list[Any]]:
    found = defaultdict(list)
    for event in events:
        for choice in event["choices"]:
            found[choice["index"]].append(choice)
    return dict(found)


async def test_a_split_stream_without_include_usage_has_no_usage_event() -> None:
    async with deployment() as d:
        got = await d.http.post(CHAT, chat(n=2, temperature=1, stream=True))
        assert all(event["choices"] for event in got.events)


async def test_every_generation_is_one_hand_off_of_one_choice_with_its_own_seed() -> None:
    async with deployment() as d:
        assert (await d.http.post(COMPLETIONS, completion(["x", "y"], n=2, seed=100, temperature=1))).status == 200
        prefills, decodes = d.prefill.of_kind("prefill"), d.decode.of_kind("decode")
        assert len(prefills) == len(decodes) == 4
        asked = sorted((leg.body["prompt"], leg.body["n"], leg.body["seed"]) for leg in decodes)
        assert asked == [("x", 1, 100), ("x", 1, 101), ("y", 1, 100), ("y", 1, 101)]
        assert len({leg.request_id for leg in prefills}) == 4
        assert d.outcomes() == {"completed": 4}


async def test_generations_of_a_request_without_a_seed_get_none() -> None:
    async with deployment() as d:
        got = await d.http.post(CHAT, chat(n=2, temperature=1))
        assert [choice["index"] for choice in got.json["choices"]] == [0, 1]
        legs = [*d.prefill.of_kind("prefill"), *d.decode.of_kind("decode")]
        assert [(leg.body["n"], leg.body.get("seed")) for leg in legs] == [(1, None)] * 4


async def test_a_largest_seed_does_not_break_the_gateway() -> None:
    async with deployment() as d:
        got = await d.http.post(CHAT, chat(n=2, seed=2**64 - 1, temperature=1))
        assert got.status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_if_one_generation_is_refused_the_call_is(stream: bool) -> None:
    async with deployment() as d:
        long = "x" * 3000
        got = await d.http.post(COMPLETIONS, completion(["short", long], stream=stream))
        if got.status == 200:  # the short one streamed first
            assert b'"error"' in got.payloads[-1]
        else:
            assert got.status == 400
            assert "context length" in got.error["message"]
        await d.idle(but_for_leases=True)


async def test_if_one_stream_breaks_the_others_end_and_the_client_sees_an_error() -> None:
    async with deployment() as d:
        d.decode.set_faults(cut_after=4)
        got = await d.http.post(COMPLETIONS, completion(["one", "two"], stream=True))
        assert got.status == 200
        assert b'"error"' in got.payloads[-1]
        assert b"[DONE]" not in got.raw
        await d.idle(but_for_leases=True)


@pytest.mark.parametrize("fault", ["error_after", "garbage_after"])
@pytest.mark.parametrize("after", [0, 3])
async def test_an_error_event_or_garbage_in_one_stream_fails_the_call(fault: str, after: int) -> None:
    async with deployment() as d:
        d.decode.set_faults(**{fault: after})
        got = await d.http.post(COMPLETIONS, completion(["one", "two"], stream=True))
        if got.status == 200:
            assert b'"error"' in got.payloads[-1]
            assert b"[DONE]" not in got.raw
        else:
            assert got.status in {500, 502}
            assert got.error
        await d.idle(but_for_leases=True)


@pytest.mark.parametrize(
    "answer", [b"[]", b"{}", b"nonsense", b'{"choices": 3}', b'{"choices": [1]}', b'data: {"a": 1}\n\n']
)
async def test_an_engine_that_answers_200_with_no_completion_is_a_502(answer: bytes) -> None:
    async with deployment() as d:
        d.decode.answer(answer)
        got = await d.http.post(CHAT, chat(n=2, temperature=1))
        assert got.status == 502
        assert got.error
        await d.idle(but_for_leases=True)


async def test_split_calls_without_a_ready_pair_are_503() -> None:
    async with deployment(decode=[{"weights": "other"}], ready=False) as d:
        got = await d.http.post(CHAT, chat(n=3, temperature=1))
        assert got.status == 503
        assert got.headers["retry-after"] == "5"
        assert got.error["type"] == "service_unavailable"


async def test_a_client_that_leaves_a_split_call_leaves_nothing_behind() -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.open(COMPLETIONS, completion(["one", "two", "three"], n=2, temperature=1)))
        await eventually(lambda: len(d.prefill.running) == 6)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await d.idle()
        assert d.outcomes() == {"cancelled": 6}
