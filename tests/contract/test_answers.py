"""What an engine answers whole: every level's keys, and how its figures hang together."""

from __future__ import annotations

import re

import pytest
from contract.engines import CHAT, COMPLETIONS, Engine, text_of

BOTH_PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])

COMPLETION = {"id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
              "kv_transfer_params", "ec_transfer_params", "metrics"}  # fmt: skip
ANSWER = {COMPLETIONS: COMPLETION, CHAT: COMPLETION | {"prompt_logprobs", "prompt_token_ids", "prompt_text"}}
CHOICE = {"index", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"}
CHOICES = {COMPLETIONS: CHOICE | {"text", "prompt_logprobs", "prompt_token_ids"}, CHAT: CHOICE | {"message"}}
MESSAGE = {"role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"}
USAGE = {"prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"}
OBJECT = {COMPLETIONS: "text_completion", CHAT: "chat.completion"}
MODEL = {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"}


def test_health_is_an_empty_200(decode: Engine) -> None:
    answer = decode.client.get("/health")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_version_stands_alone(decode: Engine) -> None:
    assert decode.client.get("/version").json() == {"version": "0.32.0"}


def test_every_served_name_is_a_model(decode: Engine) -> None:
    answer = decode.client.get("/v1/models").json()
    assert answer.keys() == {"object", "data"}
    assert answer["object"] == "list"
    first = answer["data"][0]
    assert first["id"] == decode.model
    for model in answer["data"]:
        assert model.keys() == MODEL
        assert (model["object"], model["owned_by"], model["parent"]) == ("model", "vllm", None)
        assert (model["root"], model["max_model_len"]) == (first["root"], 2048)


def test_a_prompt_is_tokenized_as_a_request_with_it_is(decode: Engine) -> None:
    answer = decode.client.post("/tokenize", json={"model": decode.model, "prompt": "What is 2 + 2?"}).json()
    assert answer.keys() == {"count", "max_model_len", "tokens", "token_strs"}
    assert (answer["count"], answer["max_model_len"], answer["token_strs"]) == (len(answer["tokens"]), 2048, None)
    whole = decode.ask(COMPLETIONS, return_token_ids=True)
    assert whole["choices"][0]["prompt_token_ids"] == answer["tokens"]
    assert whole["usage"]["prompt_tokens"] == answer["count"]


def test_messages_are_tokenized_as_a_chat_with_them_is(decode: Engine) -> None:
    messages = decode.body(CHAT)["messages"]
    answer = decode.client.post("/tokenize", json={"model": decode.model, "messages": messages}).json()
    assert answer.keys() == {"count", "max_model_len", "tokens", "token_strs"}
    whole = decode.ask(CHAT, return_token_ids=True)
    assert whole["prompt_token_ids"] == answer["tokens"]
    assert whole["usage"]["prompt_tokens"] == answer["count"] == len(answer["tokens"])


@BOTH_PATHS
def test_an_answer_has_every_key_of_its_kind(decode: Engine, path: str) -> None:
    answer = decode.ask(path)
    assert answer.keys() == ANSWER[path]
    assert (answer["object"], answer["model"], answer["service_tier"]) == (OBJECT[path], decode.model, None)
    assert isinstance(answer["created"], int)
    assert re.fullmatch(r"vllm-0\.32\.0-[0-9a-f]{8}", answer["system_fingerprint"])
    (choice,) = answer["choices"]
    assert choice.keys() == CHOICES[path]
    assert (choice["index"], choice["logprobs"], choice["token_ids"]) == (0, None, None)
    assert answer["kv_transfer_params"] is None
    if path == CHAT:
        assert choice["message"].keys() == MESSAGE
        assert choice["message"]["role"] == "assistant"


@BOTH_PATHS
def test_usage_adds_up(decode: Engine, path: str) -> None:
    answer = decode.ask(path, max_tokens=5, ignore_eos=True)
    usage = answer["usage"]
    assert usage.keys() == USAGE
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert usage["prompt_tokens_details"].keys() == {"cached_tokens", "created_cache_tokens", "multimodal_tokens"}
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


@BOTH_PATHS
def test_an_answer_ends_at_its_longest(decode: Engine, path: str) -> None:
    answer = decode.ask(path, max_tokens=3, return_token_ids=True)
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"] == 3


def test_a_chat_prefers_the_new_name_of_the_length(decode: Engine) -> None:
    assert decode.ask(CHAT, max_tokens=7, max_completion_tokens=2)["usage"]["completion_tokens"] == 2


def test_an_answer_that_the_context_cannot_hold_is_cut_not_refused(decode: Engine) -> None:
    answer = decode.ask(COMPLETIONS, prompt=[5] * 2040, max_tokens=100, ignore_eos=True)
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (8, "length")


def test_completions_are_sixteen_tokens_unless_asked_for_more(decode: Engine) -> None:
    assert decode.ask(COMPLETIONS, max_tokens=None, ignore_eos=True)["usage"]["completion_tokens"] == 16


def test_a_model_ends_its_answer_itself(decode: Engine) -> None:
    answer = decode.ask(CHAT, max_tokens=256)
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    assert answer["usage"]["completion_tokens"] < 256


@BOTH_PATHS
def test_a_stop_string_cuts_the_text_before_it_and_is_named(decode: Engine, path: str) -> None:
    whole = text_of(decode.ask(path, max_tokens=24)["choices"][0])
    stop = whole[4:6]
    choice = decode.ask(path, max_tokens=24, stop=[stop])["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert text_of(choice) == whole[: whole.index(stop)]


@BOTH_PATHS
def test_several_answers_are_numbered_and_counted_together(decode: Engine, path: str) -> None:
    answer = decode.ask(path, n=3, temperature=1, seed=5, max_tokens=4, ignore_eos=True)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 12


def test_several_prompts_are_answered_in_order_under_one_id(decode: Engine) -> None:
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    answer = decode.ask(COMPLETIONS, "batch-1", prompt=prompts, max_tokens=2, ignore_eos=True, return_token_ids=True)
    assert answer["id"] == "cmpl-batch-1"
    assert [choice["prompt_token_ids"] for choice in answer["choices"]] == prompts
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (9, 6)


@BOTH_PATHS
def test_token_ids_come_when_asked_for(decode: Engine, path: str) -> None:
    answer = decode.ask(path, return_token_ids=True, ignore_eos=True)
    choice = answer["choices"][0]
    prompt = choice["prompt_token_ids"] if path == COMPLETIONS else answer["prompt_token_ids"]
    assert len(prompt) == answer["usage"]["prompt_tokens"]
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"]
    assert all(isinstance(token, int) for token in prompt + choice["token_ids"])


def test_a_seed_is_reproduced_and_another_answers_otherwise(decode: Engine) -> None:
    asked = {"prompt": decode.prompt(20), "temperature": 2, "max_tokens": 24, "ignore_eos": True}
    once, again, other = (decode.ask(COMPLETIONS, seed=seed, **asked)["choices"][0]["text"] for seed in (7, 7, 8))
    assert once == again != other


def test_logprobs_of_a_chat_are_a_list_of_tokens(decode: Engine) -> None:
    choice = decode.ask(CHAT, logprobs=True, top_logprobs=2, max_tokens=3)["choices"][0]
    assert choice["logprobs"].keys() == {"content"}
    assert len(choice["logprobs"]["content"]) == 3
    for token in choice["logprobs"]["content"]:
        assert token.keys() == {"token", "logprob", "bytes", "top_logprobs"}
        assert token["logprob"] <= 0
        assert bytes(token["bytes"]).decode() == token["token"]
        assert len(token["top_logprobs"]) == 2
        assert all(top.keys() == {"token", "logprob", "bytes"} for top in token["top_logprobs"])
        assert token["top_logprobs"][0]["token"] == token["token"], "greedy takes the likeliest"


def test_logprobs_of_a_completion_are_lists_side_by_side(decode: Engine) -> None:
    choice = decode.ask(COMPLETIONS, logprobs=2, max_tokens=3)["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs.keys() == {"text_offset", "token_logprobs", "tokens", "top_logprobs"}
    assert {len(column) for column in logprobs.values()} == {3}
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"][0] == 0
    assert all(token in top for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True))


@pytest.mark.parametrize(("path", "prefix"), [(CHAT, "chatcmpl-"), (COMPLETIONS, "cmpl-")])
def test_an_id_is_made_of_the_clients_or_of_chance(decode: Engine, path: str, prefix: str) -> None:
    assert decode.ask(path, "my-request-1")["id"] == f"{prefix}my-request-1"
    assert re.fullmatch(prefix + "[0-9a-f]{16}", decode.ask(path)["id"])
