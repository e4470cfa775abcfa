"""What a client sends reaches the engines, and what decode answers reaches the client, unchanged."""

import json

import pytest
from fakes.deployment import ALIAS, CHAT, COMPLETIONS, MODEL, body_for, chat, completion, deployment

GATEWAYS_OWN = {"max_tokens", "max_completion_tokens", "kv_transfer_params", "stream"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

RICH_CHAT = chat(
    stop=["zz"],
    seed=7,
    temperature=0.6,
    top_p=0.9,
    logprobs=True,
    top_logprobs=2,
    response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    tools=[TOOL],
    tool_choice="none",
    user="ünï \U0001f600",
    chat_template_kwargs={"thinking": True},
    vllm_xargs={"mine": 1},
    return_token_ids=True,
    logit_bias={"17": -1.5},
    a_field_of_tomorrow=[1, 2.5, None, 123456789012345678901234567890],
)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_unstreamed_answer_is_the_decode_engines_bytes(path: str) -> None:
    async with deployment() as d:
        got = await d.http.post(path, body_for(path, logprobs=path == CHAT or 2, return_token_ids=True))
        assert got.status == 200
        assert got.raw == d.decode.answers[-1]
        assert got.headers["content-type"] == "application/json"
        assert got.headers["x-baton-legs"] == "prefill+decode"
        await d.idle()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_handed_off_answer_equals_the_engines_own(path: str) -> None:
    fields = {"logprobs": path == CHAT or 2, "return_token_ids": True, "stop": ["q"]}
    async with deployment() as d:
        for stream in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
            got = await d.http.post(path, body_for(path, **fields, **stream))
            alone = await d.native(path, body_for(path, **fields, **stream))
            id_of = (got.events[0] if stream else got.json)["id"].encode()
            alone_id = (alone.events[0] if stream else alone.json)["id"].encode()
            assert got.raw.replace(id_of, alone_id) == alone.raw
        assert d.decode.of_kind("decode")
        await d.idle()


async def test_a_stream_has_a_role_first_then_tokens_then_usage_then_done() -> None:
    async with deployment() as d:
        got = await d.http.post(CHAT, chat(stream=True, stream_options={"include_usage": True}, max_tokens=3))
        assert got.headers["content-type"].startswith("text/event-stream")
        first, *middle, last = got.events
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert [len(event["choices"][0]["delta"]["content"]) for event in middle] == [1, 1, 1]
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 3


async def test_reasoning_content_passes_through() -> None:
    async with deployment(decode=[{"reasoning_tokens": 3}], prefill=[{"reasoning_tokens": 3}]) as d:
        got = await d.http.post(CHAT, chat(max_tokens=5))
        assert len(got.json["choices"][0]["message"]["reasoning"]) == 3
        streamed = await d.http.post(CHAT, chat(max_tokens=5, stream=True))
        deltas = [event["choices"][0]["delta"] for event in streamed.events]
        assert "".join(delta.get("reasoning", "") for delta in deltas) == got.json["choices"][0]["message"]["reasoning"]


async def test_tool_calls_pass_through() -> None:
    async with deployment(prefill=[{"tool_parser": True}], decode=[{"tool_parser": True}]) as d:
        got = await d.http.post(CHAT, chat(tools=[TOOL], tool_choice="auto"))
        assert got.json["choices"][0]["finish_reason"] == "tool_calls"
        assert got.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "add"
        assert got.raw == d.decode.answers[-1]


async def test_the_decode_leg_is_the_clients_body_with_where_the_kv_lies() -> None:
    async with deployment() as d:
        assert (await d.http.post(CHAT, RICH_CHAT)).status == 200
        (leg,) = d.decode.of_kind("decode")
        assert {k: v for k, v in leg.body.items() if k != "kv_transfer_params"} == RICH_CHAT
        assert list(leg.body) == [*RICH_CHAT, "kv_transfer_params"]
        assert leg.params["do_remote_prefill"] is True
        assert leg.params["remote_engine_id"] == d.prefill.ranks[0].engine_id


async def test_the_prefill_leg_asks_for_one_unstreamed_token_and_no_logprobs() -> None:
    body = {**RICH_CHAT, "stream": True, "stream_options": {"include_usage": True}, "min_tokens": 2}
    async with deployment() as d:
        assert (await d.http.post(CHAT, body)).status == 200
        (leg,) = d.prefill.of_kind("prefill")
        gone = {"stream_options", "min_tokens", "logprobs", "top_logprobs"}
        assert gone.isdisjoint(leg.body)
        kept = {k: v for k, v in body.items() if k not in gone | GATEWAYS_OWN}
        assert {k: v for k, v in leg.body.items() if k not in GATEWAYS_OWN} == kept
        assert leg.body["max_tokens"] == 1
        assert leg.body["stream"] is False


@pytest.mark.parametrize(
    ("path", "lengths"),
    [
        (CHAT, {"max_completion_tokens": 5}),
        (CHAT, {"max_completion_tokens": 5, "max_tokens": 7}),
        (COMPLETIONS, {"max_completion_tokens": 5}),
        (COMPLETIONS, {}),
    ],
)
async def test_however_a_client_limits_the_output_prefill_computes_one_token(
    path: str, lengths: dict[str, int]
) -> None:
    body = body_for(path)
    del body["max_tokens"]
    async with deployment() as d:
        got = await d.http.post(path, {**body, **lengths})
        assert got.json["usage"]["completion_tokens"] == (5 if path == CHAT else 16)
        usages = [json.loads(raw)["usage"] for raw in d.prefill.answers if b"kv_transfer_params" in raw]
        assert usages[-1]["completion_tokens"] == 1


async def test_both_legs_carry_the_same_id_the_rank_and_the_trace_and_nothing_else_of_the_client() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1"}
    mine = {"authorization": "Bearer dummy", "x-request-id": "mine", "cookie": "a=b", "x-anything": "1"}
    async with deployment() as d:
        got = await d.http.post(CHAT, chat(), trace | mine)
        (prefill,), (decode,) = d.prefill.of_kind("prefill"), d.decode.of_kind("decode")
        assert prefill.request_id == decode.request_id == got.headers["x-request-id"] != "mine"
        for leg in (prefill, decode):
            assert leg.headers["x-data-parallel-rank"] == "0"
            assert trace.items() <= leg.headers.items()
            assert not {"authorization", "cookie", "x-anything"} & leg.headers.keys()


async def test_an_alias_is_served_under_its_name_and_listed_as_an_alias() -> None:
    async with deployment() as d:
        got = await d.http.post(CHAT, chat() | {"model": ALIAS})
        assert got.json["model"] == ALIAS
        listed = (await d.http.get("/v1/models")).json["data"]
        assert [(entry["id"], entry["alias_of"]) for entry in listed] == [(MODEL, None), (ALIAS, MODEL)]


@pytest.mark.parametrize(
    ("path", "fields", "why"),
    [
        (COMPLETIONS, {"echo": True}, "echo"),
        (COMPLETIONS, {"prompt_embeds": ["AA==", "AQ=="], "n": 2, "temperature": 1}, "prompt_embeds"),
        (COMPLETIONS, {"prompt_logprobs": 0}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": 1}, "prompt_logprobs"),
        (COMPLETIONS, {"use_beam_search": True, "n": 2, "temperature": 1}, "beam"),
    ],
)
async def test_what_prefill_cannot_serve_is_served_by_decode_alone_and_counted(
    path: str, fields: dict, why: str
) -> None:
    async with deployment() as d:
        got = await d.http.post(path, body_for(path, **fields))
        assert got.status == 200
        assert got.headers["x-baton-legs"] == "decode"
        assert got.raw == d.decode.answers[-1]
        assert not d.prefill.of_kind("prefill")
        assert d.decode.of_kind("alone")[-1].body == body_for(path, **fields)
        (family,) = d.gateway.metrics.decode_alone.collect()
        assert [s.value for s in family.samples if s.name.endswith("_total") and why in s.labels["reason"]] == [1.0]
        await d.idle()


async def test_completions_by_token_ids_are_one_generation() -> None:
    async with deployment() as d:
        assert (await d.http.post(COMPLETIONS, completion([5, 6, 7]))).json["usage"]["prompt_tokens"] == 3
        assert len(d.prefill.of_kind("prefill")) == 1
