"""How an engine refuses: the status, and an error whose type says whether the request was parsed.

"Bad Request": the body isn't what the route takes; nothing looked at it. "BadRequestError": the engine read it and
refused. baton tells by it whether the KV that a decode leg named has been let go (engine/kv_transfer.py).
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from contract.engines import ABORT, CHAT, COMPLETIONS, Engine

BOTH_PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
UNREAD, REFUSED = "Bad Request", "BadRequestError"
JSON = {"content-type": "application/json"}


def assert_error(answer: httpx.Response, status: int, kind: str, param: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert (error["type"], error["param"], error["code"]) == (kind, param, status)


@BOTH_PATHS
@pytest.mark.parametrize(
    ("asked", "kind", "param"),
    [
        ({"max_tokens": 0}, REFUSED, "max_tokens"),
        ({"max_tokens": -1}, REFUSED, "max_tokens"),
        ({"max_tokens": 5000}, REFUSED, "max_tokens"),
        ({"temperature": -1}, REFUSED, "temperature"),
        ({"temperature": 2.1}, REFUSED, "temperature"),
        ({"temperature": -1, "stream": True}, REFUSED, "temperature"),
        ({"top_p": 2}, REFUSED, "top_p"),
        ({"n": 0}, REFUSED, None),
        ({"n": 2}, REFUSED, None),  # greedy: all would be equal
        ({"min_tokens": 9}, REFUSED, None),
        ({"stream_options": {"include_usage": True}}, REFUSED, "stream_options"),
        ({"temperature": "hot"}, UNREAD, "body.temperature"),
        ({"max_tokens": "many"}, UNREAD, "body.max_tokens"),
        ({"stream": "x"}, UNREAD, "body.stream"),
        ({"seed": "x"}, UNREAD, "body.seed"),
        ({"stop": 5}, UNREAD, "body.stop"),
        ({"kv_transfer_params": 5}, UNREAD, "body.kv_transfer_params"),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_a_400(
    decode: Engine, path: str, asked: dict[str, Any], kind: str, param: str | None
) -> None:
    assert_error(decode.post(path, **asked), 400, kind, param)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize"])
def test_another_model_is_not_found(decode: Engine, path: str) -> None:
    assert_error(decode.post(path, model="gpt-17"), 404, "NotFoundError", "model")


@BOTH_PATHS
def test_no_model_is_the_model(decode: Engine, path: str) -> None:
    assert decode.ask(path, model=None, max_tokens=1)["model"] == decode.model


@BOTH_PATHS
def test_unknown_fields_are_ignored(decode: Engine, path: str) -> None:
    assert decode.post(path, max_tokens=1, colour="blue").status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize"])
def test_a_body_that_is_no_json_is_unread(decode: Engine, path: str) -> None:
    answer = decode.client.post(path, content=b"{bad", headers=JSON)
    assert_error(answer, 400, UNREAD, "body.1")  # where in the body the parser gave up


@BOTH_PATHS
def test_a_body_that_is_no_object_is_unread(decode: Engine, path: str) -> None:
    assert_error(decode.client.post(path, content=b"[]", headers=JSON), 400, UNREAD, "body")
    assert_error(decode.client.post(path, content=b"", headers=JSON), 400, UNREAD, "body")


@BOTH_PATHS
def test_a_body_of_another_type_is_unread(decode: Engine, path: str) -> None:
    answer = decode.client.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert_error(answer, 400, UNREAD, None)


def test_a_chat_without_messages_is_unread(decode: Engine) -> None:
    assert_error(decode.client.post(CHAT, json={"model": decode.model}), 400, UNREAD, "body.messages")
    assert_error(decode.post(CHAT, messages="Hi."), 400, UNREAD, "body.messages")
    assert_error(decode.post(CHAT, messages=[]), 400, REFUSED, None)


def test_a_completion_without_a_prompt_is_refused(decode: Engine) -> None:
    assert_error(decode.client.post(COMPLETIONS, json={"model": decode.model}), 400, REFUSED, "prompt")
    assert_error(decode.post(COMPLETIONS, prompt=""), 400, REFUSED, "prompt")
    assert_error(decode.post(COMPLETIONS, prompt=[]), 400, REFUSED, None)


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        (COMPLETIONS, {"prompt": [5] * 2049}),
        (COMPLETIONS, {"prompt": "Hello " * 2100}),
        (CHAT, {"messages": [{"role": "user", "content": "Hello " * 2100}]}),
    ],
    ids=["token ids", "text", "chat"],
)
def test_a_prompt_over_the_context_is_refused(decode: Engine, path: str, prompt: dict[str, Any]) -> None:
    assert_error(decode.post(path, **prompt), 400, REFUSED, "input_tokens")


def test_a_prompt_that_leaves_no_room_for_a_token_is_refused_for_its_length(decode: Engine) -> None:
    assert_error(decode.post(COMPLETIONS, prompt=[5] * 2048), 400, REFUSED, "max_tokens")


@BOTH_PATHS
@pytest.mark.parametrize("rank", ["1", "-1"])
def test_a_rank_that_is_not_there_is_refused(decode: Engine, path: str, rank: str) -> None:
    assert_error(decode.post(path, {"x-data-parallel-rank": rank}), 400, REFUSED, None)


@BOTH_PATHS
@pytest.mark.parametrize("rank", ["0", "two"])
def test_a_rank_that_is_there_or_is_no_number_serves(decode: Engine, path: str, rank: str) -> None:
    assert decode.post(path, {"x-data-parallel-rank": rank}, max_tokens=1).status_code == 200


def test_an_unknown_route_and_method_have_a_detail_and_no_error(decode: Engine) -> None:
    unknown = decode.client.get("/v1/nope")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    wrong = decode.client.get(COMPLETIONS)
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["allow"] == "POST"


def test_aborting_nothing_is_fine_and_aborting_without_ids_is_not(decode: Engine) -> None:
    for ids in ([], ["nobody"]):
        answer = decode.client.post(ABORT, json={"request_ids": ids})
        assert (answer.status_code, answer.content) == (200, b"")
    assert_error(decode.client.post(ABORT, json={}), 400, UNREAD, None)
