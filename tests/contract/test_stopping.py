"""What ends a request before its time: an abort by the engine's own id, or a client that leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from contract.engines import ABORT, CHAT, COMPLETIONS, Engine, Pair, Stream
from e2e.running import eventually

from baton.engine.kv_transfer import REQUEST_PREFILL
from baton.engine.vllm import engine_request_ids

BOTH_PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
LONG = {"max_tokens": 1900, "ignore_eos": True}


def begun(answer: httpx.Response) -> Iterator[str]:
    """The lines of a stream of which a few tokens have come."""
    lines = answer.iter_lines()
    for _ in range(8):
        next(lines)
    return lines


def aborting(engine: Engine, ids: list[str], ended: threading.Event) -> threading.Thread:
    """Abort again and again until the answer is here: when the engine takes a request up is not for us to know."""

    def abort() -> None:
        while not ended.wait(0.05):
            assert httpx.post(str(engine.client.base_url.join(ABORT)), json={"request_ids": ids}).status_code == 200

    return threading.Thread(target=abort)


@BOTH_PATHS
def test_an_aborted_stream_ends_as_a_finished_one_does(decode: Engine, path: str) -> None:
    body = decode.body(path, stream=True, stream_options={"include_usage": True}, **LONG)
    with decode.client.stream("POST", path, json=body, headers={"x-request-id": "abort-1"}) as answer:
        lines = begun(answer)
        aborted = httpx.post(
            str(decode.client.base_url.join(ABORT)), json={"request_ids": engine_request_ids(path, "abort-1")}
        )
        assert (aborted.status_code, aborted.content) == (200, b"")
        raw = "".join(line + "\n" for line in lines).lstrip("\n")
    stream = Stream.parse(answer, raw)
    assert stream.done
    *_, end, usage = stream.events
    (choice,) = end["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("abort", None), "its text may be a last token's"
    assert 0 < usage["usage"]["completion_tokens"] < 1900


@BOTH_PATHS
def test_an_aborted_answer_is_what_there_was_of_it(decode: Engine, path: str) -> None:
    ended = threading.Event()
    abort = aborting(decode, engine_request_ids(path, "abort-2"), ended)
    abort.start()
    answer = decode.ask(path, "abort-2", **LONG)
    ended.set()
    abort.join()
    assert answer["choices"][0]["finish_reason"] == "abort"
    assert answer["usage"]["completion_tokens"] < 1900


@pytest.mark.parametrize("wrong", ["abort-3", "cmpl-abort-3", "cmpl-abort-3-1"])
def test_an_abort_takes_the_engines_id_of_a_request_and_no_other(decode: Engine, wrong: str) -> None:
    body = decode.body(COMPLETIONS, stream=True, **LONG)
    with decode.client.stream("POST", COMPLETIONS, json=body, headers={"x-request-id": "abort-3"}) as answer:
        lines = begun(answer)
        assert httpx.post(str(decode.client.base_url.join(ABORT)), json={"request_ids": [wrong]}).status_code == 200
        for _ in range(8):
            assert '"finish_reason":"abort"' not in next(lines)


def test_a_prefill_leg_that_is_aborted_offers_nothing_and_holds_nothing(pair: Pair) -> None:
    ended = threading.Event()
    abort = aborting(pair.prefill, ["cmpl-abort-4-0"], ended)
    expired = pair.expired()
    abort.start()
    answer = pair.prefill.prefill(COMPLETIONS, "abort-4", prompt=[5] * 2000)
    ended.set()
    abort.join()
    assert (answer["choices"][0]["finish_reason"], answer["choices"][0]["text"]) == ("abort", "")
    assert (answer["usage"]["completion_tokens"], answer["kv_transfer_params"]) == (0, None)
    eventually(lambda: pair.prefill.busy() == 0, "nothing is held for an offer that was not made", 5)
    assert pair.expired() == expired


@BOTH_PATHS
def test_a_client_that_leaves_a_stream_ends_the_request(decode: Engine, path: str) -> None:
    body = decode.body(path, stream=True, **LONG)
    with decode.client.stream("POST", path, json=body) as answer:
        _lines = begun(answer)  # kept: a generator that is dropped closes the answer
        eventually(lambda: decode.value("vllm:num_requests_running") == 1, "it runs", 5)
    eventually(lambda: decode.busy() == 0, "it does not run on", 5)
    assert decode.value("vllm:request_success_total", finished_reason="length") >= 0


def test_a_client_that_leaves_before_the_answer_ends_the_request(decode: Engine) -> None:
    generated = decode.value("vllm:generation_tokens_total")
    with pytest.raises(httpx.ReadTimeout):
        decode.client.post(COMPLETIONS, json=decode.body(COMPLETIONS, **LONG), timeout=httpx.Timeout(5, read=0.4))
    eventually(lambda: decode.busy() == 0, "it does not run on", 5)
    assert decode.value("vllm:generation_tokens_total") - generated < 1900


def test_a_client_that_leaves_a_prefill_leg_leaves_no_kv(pair: Pair) -> None:
    expired = pair.expired()
    asked = {"prompt": [5] * 2000, "max_tokens": 1, "kv_transfer_params": dict(REQUEST_PREFILL)}
    with pytest.raises(httpx.ReadTimeout):
        pair.prefill.client.post(
            COMPLETIONS, json=pair.prefill.body(COMPLETIONS, **asked), timeout=httpx.Timeout(5, read=0.2)
        )
    eventually(lambda: pair.prefill.busy() == 0, "nothing is held for who has left", 5)
    assert pair.expired() == expired
