"""The grammar of a stream: events, their keys, and the order they come in.

A chat begins with an event that only names the role. The fingerprint is in the events that end a stream's choices, or,
with usage, in the usage event alone. Keys without a value are left out of a usage, which a whole answer does not do.
"""

from __future__ import annotations

import pytest
from contract.engines import CHAT, COMPLETIONS, Engine, Stream, text_of

BOTH_PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])

EVENT = {"id", "object", "created", "model", "choices"}
CHOICE = {
    CHAT: {"index", "delta", "logprobs", "finish_reason", "token_ids"},
    COMPLETIONS: {"index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids"},
}
OBJECT = {CHAT: "chat.completion.chunk", COMPLETIONS: "text_completion"}
USAGE = {"prompt_tokens", "total_tokens", "completion_tokens"}
WITH_USAGE = {"include_usage": True}


def tokens_of(stream: Stream) -> list[int]:
    return [token for choice in stream.choices for token in choice.get("token_ids") or []]


@BOTH_PATHS
def test_a_stream_is_an_event_stream_that_says_when_it_is_done(decode: Engine, path: str) -> None:
    stream = decode.stream(path)
    assert stream.answer.status_code == 200
    assert stream.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.answer.headers["transfer-encoding"] == "chunked"
    assert stream.done
    assert len({(event["id"], event["created"], event["model"]) for event in stream.events}) == 1


def test_a_chat_begins_with_the_role(decode: Engine) -> None:
    first, second, *_ = decode.stream(CHAT).events
    assert first.keys() == EVENT | {"prompt_token_ids", "prompt_text"}
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert "role" not in second["choices"][0]["delta"]


@BOTH_PATHS
def test_each_event_has_one_choice_and_every_key_of_its_kind(decode: Engine, path: str) -> None:
    events = decode.stream(path, max_tokens=6, ignore_eos=True).events
    *middle, last = events[1:] if path == CHAT else events
    for event in middle:
        assert event.keys() == EVENT
        assert event["object"] == OBJECT[path]
        (choice,) = event["choices"]
        assert choice.keys() == CHOICE[path]
        assert choice["finish_reason"] is None
        assert path == COMPLETIONS or choice["delta"].keys() in ({"content"}, {"reasoning"})
    assert last.keys() == EVENT | {"system_fingerprint"}
    (choice,) = last["choices"]
    assert choice.keys() == CHOICE[path] | {"stop_reason"}
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)


@BOTH_PATHS
def test_a_stream_is_the_whole_answer_in_pieces(decode: Engine, path: str) -> None:
    asked = {"max_tokens": 24, "return_token_ids": True}
    whole, stream = decode.ask(path, **asked), decode.stream(path, **asked)
    assert stream.text() == text_of(whole["choices"][0])
    assert tokens_of(stream) == whole["choices"][0]["token_ids"]


@BOTH_PATHS
def test_usage_comes_last_in_an_event_without_choices(decode: Engine, path: str) -> None:
    whole = decode.ask(path, max_tokens=6)["usage"]
    *events, last = decode.stream(path, max_tokens=6, stream_options=WITH_USAGE).events
    assert all(event["choices"] and "usage" not in event and "system_fingerprint" not in event for event in events)
    assert last.keys() == EVENT | {"usage", "system_fingerprint"}
    assert last["choices"] == []
    usage = last["usage"]
    assert usage.keys() - {"completion_tokens_details"} == USAGE | {"prompt_tokens_details"}
    assert {name: usage[name] for name in USAGE} == {name: whole[name] for name in USAGE}
    details = {"cached_tokens": 0, "created_cache_tokens": 0} if path == CHAT else {"cached_tokens": 0}
    assert usage["prompt_tokens_details"] == details


@BOTH_PATHS
def test_usage_can_come_with_every_event(decode: Engine, path: str) -> None:
    options = WITH_USAGE | {"continuous_usage_stats": True}
    events = decode.stream(path, max_tokens=4, ignore_eos=True, stream_options=options).events
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert (counts[0] == 0) == (path == CHAT), "a chat's first event comes before the first token"
    assert counts[-1] == 4
    assert all(
        e["usage"]["total_tokens"] == e["usage"]["prompt_tokens"] + n for e, n in zip(events, counts, strict=True)
    )


@BOTH_PATHS
def test_the_prompts_token_ids_come_once_with_the_first_event(decode: Engine, path: str) -> None:
    stream = decode.stream(path, return_token_ids=True)
    whole = decode.ask(path, return_token_ids=True)
    if path == CHAT:
        assert stream.events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
        assert all("prompt_token_ids" not in event for event in stream.events[1:])
    else:
        first, *rest = stream.choices
        assert first["prompt_token_ids"] == whole["choices"][0]["prompt_token_ids"]
        assert all(choice["prompt_token_ids"] is None for choice in rest)


@BOTH_PATHS
def test_a_stop_string_is_never_streamed(decode: Engine, path: str) -> None:
    whole = text_of(decode.ask(path, max_tokens=24)["choices"][0])
    stop = whole[4:6]
    stream = decode.stream(path, max_tokens=24, stop=[stop])
    assert stream.text() == whole[: whole.index(stop)]
    assert (stream.choices[-1]["finish_reason"], stream.choices[-1]["stop_reason"]) == ("stop", stop)


@BOTH_PATHS
def test_several_answers_are_streamed_in_turns_with_one_end_each(decode: Engine, path: str) -> None:
    asked = {"n": 2, "temperature": 1, "seed": 3, "max_tokens": 4, "ignore_eos": True}
    whole, stream = decode.ask(path, **asked), decode.stream(path, **asked)
    assert all(len(event["choices"]) == 1 for event in stream.events)
    for choice in whole["choices"]:
        assert stream.text(choice["index"]) == text_of(choice)
        ends = [c for c in stream.choices if c["index"] == choice["index"] and c["finish_reason"]]
        assert [end["finish_reason"] for end in ends] == ["length"]
    roles = [c["index"] for c in stream.choices if "role" in c.get("delta", {})]
    assert sorted(roles) == ([0, 1] if path == CHAT else [])


def test_streamed_logprobs_are_those_of_the_events_tokens(decode: Engine) -> None:
    chat = decode.stream(CHAT, logprobs=True, top_logprobs=1, max_tokens=3, return_token_ids=True)
    for choice in chat.choices[1:]:
        assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
    completion = decode.stream(COMPLETIONS, logprobs=1, max_tokens=3, return_token_ids=True)
    offset = 0
    for choice in completion.choices:
        assert choice["logprobs"].keys() == {"text_offset", "token_logprobs", "tokens", "top_logprobs"}
        assert len(choice["logprobs"]["tokens"]) == len(choice["token_ids"])
        assert choice["logprobs"]["text_offset"][0] == offset, "counted from the start of the answer"
        offset += len(choice["text"])


def test_several_prompts_are_streamed_with_their_number(decode: Engine) -> None:
    prompts = [[5, 6, 7], [8, 9]]
    stream = decode.stream(COMPLETIONS, prompt=prompts, max_tokens=3, ignore_eos=True, return_token_ids=True)
    for index, prompt in enumerate(prompts):
        mine = [choice for choice in stream.choices if choice["index"] == index]
        assert mine[0]["prompt_token_ids"] == prompt
        assert sum(len(choice["token_ids"]) for choice in mine) == 3
