"""One request, whole and streamed: a right deployment passes every check, and each way of being wrong fails one."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fakes.deployment import CHAT, deployment
from fakes.observed import MODEL, ObservedEngine

from baton.base.reply import Reply, Request
from baton.base.server import HttpServer
from baton.engine.origin import Origin
from baton.engine.stand_in.answers import error_json
from baton.prove.request import Outcome, send_request
from baton.recipe.recipe import Role, TestRequest

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
MODELS = {"data": [{"id": "m"}, {"id": "n"}]}
ASKED = TestRequest(max_tokens=8)


async def ask(url: str, model: str | None = None, request: TestRequest = ASKED) -> Outcome:
    return await send_request(Origin.parse(url), request, model, timeout_s=5.0)


def failing(outcome: Outcome) -> dict[str, str]:
    return {check.name: check.found for check in outcome.checks if not check.ok}


@contextlib.asynccontextmanager
async def served(handle: Callable[[Request, Reply], Awaitable[None]]) -> AsyncIterator[str]:
    server = HttpServer(handle, lambda status, text: error_json(status, text, "FromTheServer"))
    await server.start("127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.address)
    finally:
        await server.stop(0)


def canned(
    message: dict[str, Any] | None = None,
    usage: object = USAGE,
    finish: object = "stop",
    events: list[Any] | None = None,
    models: object = MODELS,
) -> Callable[[Request, Reply], Awaitable[None]]:
    """A server that answers any chat with this; `events` are the stream's, a right one when not given."""
    said = message or {"content": "Hello"}
    right = [
        {"choices": [{"delta": said, "finish_reason": None}], "usage": None},
        {"choices": [{"delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": usage},
        "[DONE]",
    ]

    async def handle(request: Request, reply: Reply) -> None:
        if request.path != CHAT:
            reply.send(200, {}, json.dumps(models).encode())
        elif json.loads(request.body).get("stream"):
            parts = [part if isinstance(part, str) else json.dumps(part) for part in events or right]
            reply.send(200, {}, "".join(f"data: {part}\n\n" for part in parts).encode())
        else:
            body = {"choices": [{"message": said, "finish_reason": finish}], "usage": usage}
            reply.send(200, {}, json.dumps(body).encode())

    return handle


async def test_a_right_deployment_passes_every_check_through_its_gateway() -> None:
    async with deployment() as d:
        outcome = await ask(d.url)
        assert outcome.ok, failing(outcome)
        assert [check.name for check in outcome.checks] == [
            "models", "whole: status", "whole: content", "whole: finish_reason", "whole: usage",
            "streamed: status", "streamed: form", "streamed: content", "streamed: finish_reason", "streamed: usage",
        ]  # fmt: skip
        assert len(outcome.answer) == 8
        sent = [leg.body for leg in d.decode.of_kind("decode")]
        assert [body["messages"] for body in sent] == [[{"role": "user", "content": "Say hello!"}]] * 2
        assert [body["model"] for body in sent] == [MODEL] * 2
        await d.idle()


async def test_thoughts_count_as_text() -> None:
    async with served(canned({"content": None, "reasoning_content": "Hmm"})) as url:
        outcome = await ask(url)
        assert outcome.ok, failing(outcome)
        assert outcome.answer == "Hmm"


async def test_the_first_model_listed_is_asked_for_or_the_one_given() -> None:
    async with served(canned()) as url:
        assert (await ask(url)).ok
        assert (await ask(url, "n")).ok
        assert failing(await ask(url, "other")) == {"models": "m, n"}


@pytest.mark.parametrize("models", [{"data": []}, {}, [], {"data": [{}]}])
async def test_an_empty_list_of_models_ends_it_with_what_it_means(models: object) -> None:
    async with served(canned(models=models)) as url:
        outcome = await ask(url)
        assert len(outcome.checks) == 1
        assert "no engine serves yet" in failing(outcome)["models"]


async def test_not_ready_is_told_with_the_servers_reason_and_when_to_try_again() -> None:
    async with deployment(started=lambda engine: engine.role is Role.PREFILL, ready=False) as d:
        outcome = await ask(d.url, MODEL)
        found = next(iter(failing(outcome).values()))
        assert found.startswith("503: ")
        assert "try again in " in found
        assert len(outcome.checks) == 2


@pytest.mark.parametrize(
    ("status", "raw", "said"),
    [
        (500, error_json(500, "it\nbroke", "X"), "500: it broke"),
        (404, b'{"detail": "Not Found"}', "404: Not Found"),
        (502, b"<html>", "502: <html>"),
        (400, b"", "400: no reason given"),
        (503, b"[1]", "503: [1]; not ready yet, or full: try again later"),
    ],
)
async def test_any_other_status_is_told_with_its_reason(status: int, raw: bytes, said: str) -> None:
    engine = ObservedEngine()
    await engine.start()
    engine.refuse(status, raw)
    try:
        assert failing(await ask(engine.url)) == {"whole: status": said}
    finally:
        await engine.stop()


async def test_nobody_there_is_a_failed_check() -> None:
    async with served(canned()) as url:
        pass
    assert "models: status" in failing(await ask(url))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": ""}, "no text"),
        ({"content": " \n"}, "no text"),
        ({"content": None}, "no text"),
        ({"content": "\ufffd\ufffd"}, "2 replacement characters and nothing else"),
        ({"content": "!!!!!!!!"}, "'!' 8 times and nothing else"),
    ],
)
async def test_text_that_is_none_fails_both_ways(message: dict[str, Any], said: str) -> None:
    async with served(canned(message)) as url:
        assert failing(await ask(url)) == {"whole: content": said, "streamed: content": said}


async def test_a_short_answer_of_one_character_is_an_answer() -> None:
    async with served(canned({"content": "7"})) as url:
        assert (await ask(url)).ok


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({**USAGE, "total_tokens": 9}, "5 + 3 = 9"),
        ({**USAGE, "prompt_tokens": 0, "total_tokens": 3}, "0 + 3 = 3"),
        ({**USAGE, "completion_tokens": 0, "total_tokens": 5}, "5 + 0 = 5"),
        ({**USAGE, "completion_tokens": 9, "total_tokens": 14}, "5 + 9 = 14"),
        ({**USAGE, "completion_tokens": "3"}, "5 + None = 8"),
        ({**USAGE, "completion_tokens": True, "total_tokens": 6}, "5 + None = 6"),
        (None, "None + None = None"),
    ],
)
async def test_usage_that_does_not_add_up_fails_both_ways(usage: object, found: str) -> None:
    async with served(canned(usage=usage)) as url:
        assert failing(await ask(url)) == {"whole: usage": found, "streamed: usage": found}


async def test_the_same_prompt_counted_otherwise_when_streamed_fails() -> None:
    other = {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}
    events = [{"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}, {"usage": other}, "[DONE]"]
    async with served(canned(events=events)) as url:
        assert failing(await ask(url)) == {"streamed: usage": "6 + 3 = 9"}


@pytest.mark.parametrize("finish", ["abort", None, 3, ["stop"]])
async def test_an_end_that_is_neither_stop_nor_length_fails(finish: object) -> None:
    async with served(canned(finish=finish)) as url:
        assert {"whole: finish_reason", "streamed: finish_reason"} == set(failing(await ask(url)))


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"choices": []}', b"[" * 5000, b"\xff"])
async def test_a_body_that_is_no_answer_fails(raw: bytes) -> None:
    engine = ObservedEngine()
    await engine.start()
    engine.answer(raw)
    try:
        assert {"whole: form", "streamed: form"} == set(failing(await ask(engine.url)))
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"error_after": 2}, "an error event: Internal server error"),
        ({"no_done": True}, "no [DONE] at the end"),
        ({"garbage_after": 1}, "an error event: {not json"),
    ],
)
async def test_a_stream_that_breaks_off_fails(faults: dict[str, Any], said: str) -> None:
    engine = ObservedEngine()
    await engine.start()
    engine.set_faults(**faults)
    try:
        found = failing(await ask(engine.url))
        assert list(found) == ["streamed: form"]
        assert said in found["streamed: form"]
    finally:
        await engine.stop()


async def test_a_connection_cut_in_the_stream_fails() -> None:
    engine = ObservedEngine()
    await engine.start()
    engine.set_faults(cut_after=2)
    try:
        assert list(failing(await ask(engine.url))) == ["streamed: status"]
    finally:
        await engine.stop()


async def test_a_deployment_that_hangs_is_given_up_after_the_limit() -> None:
    engine = ObservedEngine()
    await engine.start()
    engine.set_faults(hang_before_head=True)
    try:
        outcome = await send_request(Origin.parse(engine.url), ASKED, MODEL, timeout_s=0.2)
        assert "the deadline passed" in failing(outcome)["whole: status"]
    finally:
        await engine.stop()
