"""The deployment as its clients see it: the official client, plain HTTP, and what the engines say afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from e2e.running import Deployment, eventually

pytestmark = pytest.mark.vllm

HELLO = [{"role": "user", "content": "Say hello!"}]
SUM = [{"role": "user", "content": "What is 347 + 586?"}]
ALIAS = "deepseek-ai/DeepSeek-R1"


@pytest.fixture
def official(deployment: Deployment) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{deployment.url}/v1", api_key="dummy", max_retries=0)


def test_the_greeting_of_the_readme_is_a_greeting(official: openai.OpenAI) -> None:
    answer = official.chat.completions.create(model=ALIAS, messages=HELLO, max_tokens=64)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert "hello" in (choice.message.content or "").lower()
    assert answer.model == "tiny-r1", "an alias is never passed off as the real model"


def test_a_streamed_answer_is_the_unstreamed_one_and_reports_usage(official: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny-r1", "messages": SUM, "max_tokens": 128, "temperature": 0}
    whole = official.chat.completions.create(**asked)
    chunks = list(official.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert "933" in text
    assert (chunks[-1].usage.total_tokens, chunks[-1].choices) == (whole.usage.total_tokens, [])


async def test_the_async_client_works_streaming_and_not(deployment: Deployment) -> None:
    async with openai.AsyncOpenAI(base_url=f"{deployment.url}/v1", api_key="dummy", max_retries=0) as client:
        asked: dict[str, Any] = {"model": "tiny-r1", "messages": SUM, "max_tokens": 128, "temperature": 0}
        whole, stream = await asyncio.gather(
            client.chat.completions.create(**asked), client.chat.completions.create(**asked, stream=True)
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == whole.choices[0].message.content


def test_reasoning_is_kept_apart_from_the_answer(client: httpx.Client) -> None:
    message = client.post(
        "/v1/chat/completions", json={"model": "tiny-r1", "messages": SUM, "max_tokens": 128, "temperature": 0}
    ).json()["choices"][0]["message"]
    assert message["reasoning"].strip()
    assert "<think>" not in message["content"]


def test_logprobs_seed_and_stop_pass_through(client: httpx.Client) -> None:
    body = {
        "model": "tiny-r1",
        "prompt": "What is 2 + 2?",
        "max_tokens": 8,
        "seed": 7,
        "temperature": 1.0,
        "logprobs": 2,
    }
    first, again = (client.post("/v1/completions", json=body).json()["choices"][0] for _ in range(2))
    assert first["text"] == again["text"]
    assert len(first["logprobs"]["tokens"]) == 8
    stopped = client.post("/v1/completions", json={**body, "stop": [first["text"][2:4]]}).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "asked", [{"prompt": ["What is 1 + 2?", "Hello! How are you today, my dear friend?"]}, {"prompt": "Hi.", "n": 3}]
)
def test_split_requests_answer_what_a_decode_engine_alone_answers(
    client: httpx.Client, workers: dict[str, dict[str, Any]], asked: dict[str, Any]
) -> None:
    body = {"model": "tiny-r1", "max_tokens": 12, "temperature": 0.8, "seed": 11, "ignore_eos": True, **asked}
    mine = client.post("/v1/completions", json=body).json()
    alone = httpx.post(f"{workers['decode-0']['url']}/v1/completions", json=body, timeout=120).json()
    assert [c["text"] for c in mine["choices"]] == [c["text"] for c in alone["choices"]]
    assert mine["usage"]["total_tokens"] == alone["usage"]["total_tokens"]


def test_prompt_logprobs_are_served_by_decode_alone(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/completions", json={"model": "tiny-r1", "prompt": "Hi.", "max_tokens": 1, "prompt_logprobs": 1}
    )
    assert answer.headers["x-baton-legs"] == "decode"
    assert answer.json()["choices"][0]["prompt_logprobs"]


def test_the_alias_is_listed_as_an_alias(client: httpx.Client) -> None:
    models = {model["id"]: model["alias_of"] for model in client.get("/v1/models").json()["data"]}
    assert models == {"tiny-r1": None, ALIAS: "tiny-r1"}


def test_engine_errors_keep_their_words_and_status(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json={"model": "tiny-r1", "messages": HELLO, "temperature": -3})
    assert answer.status_code == 400
    assert "temperature" in answer.json()["error"]["message"]


def test_other_requests_memory_cannot_be_named(client: httpx.Client) -> None:
    body = {"model": "tiny-r1", "prompt": "Hi.", "kv_transfer_params": {"do_remote_prefill": True}}
    assert client.post("/v1/completions", json=body).status_code == 400


def test_tools_and_structured_output_reach_the_engine(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    body = {
        "model": "tiny-r1",
        "messages": SUM,
        "max_tokens": 128,
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}},
    }
    message = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert message["content"].lstrip().startswith("{"), message
    tools = [{"type": "function", "function": {"name": "add", "parameters": schema}}]
    answer = client.post(
        "/v1/chat/completions", json={"model": "tiny-r1", "messages": SUM, "max_tokens": 8, "tools": tools}
    )
    assert answer.status_code in (200, 400), "the engine's own answer, whichever it is"
    assert "choices" in answer.json() or "tool" in answer.json()["error"]["message"]


def test_a_client_that_leaves_leaves_nothing_behind(deployment: Deployment, workers: dict[str, dict[str, Any]]) -> None:
    def gauge(worker: str, name: str) -> float:
        text = httpx.get(f"{workers[worker]['url']}/metrics", timeout=30).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"vllm:{name}{{"))

    body = {"model": "tiny-r1", "prompt": "Hello " * 400, "max_tokens": 1000, "stream": True, "ignore_eos": True}
    with httpx.Client(base_url=deployment.url, timeout=60) as leaving:
        with leaving.stream("POST", "/v1/completions", json=body) as stream:
            next(stream.iter_bytes())
        with pytest.raises(httpx.ReadTimeout):
            leaving.post("/v1/completions", json=body, timeout=httpx.Timeout(60, read=0.05))
    for worker in ("prefill-0", "decode-0"):
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
            eventually(lambda w=worker, n=name: gauge(w, n) == 0, f"{name} of {worker} is 0, sooner than a lease", 25)


def test_json_of_streams_is_json(client: httpx.Client) -> None:
    body = {"model": "tiny-r1", "messages": SUM, "max_tokens": 16, "stream": True, "n": 2}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert {choice["index"] for event in events for choice in event["choices"]} == {0, 1}
    assert len({event["id"] for event in events}) == 1
