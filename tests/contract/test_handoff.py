"""The hand-off between two engines: what prefill offers, what decode makes of it, and what becomes of the KV.

Surprises, all of real vLLM 0.32.0:
- A decode leg naming KV that was let go is served from whatever those blocks hold by then. Nothing notices.
- An error "NotFoundError" lets go of the KV as a "BadRequestError" does: the model is looked up after parsing.
- A prefill leg with more than one token offers them all but the last, and leaves out `remote_prefill_cached_tokens`.
- A notice of KV that is not held counts as one "after expiry", though nothing expired; an idle engine counts it with
  its next step.
- A streamed prefill leg holds its KV as a whole one does, and tells nobody: only the lease ends it.
Not held here, as it kills the engine: a decode leg with `do_remote_prefill` and without `remote_block_ids` ends vLLM's
engine core (AssertionError), and every later answer is a 500.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from contract.engines import CHAT, COMPLETIONS, JsonObject, Pair, text_of
from e2e.running import eventually

from baton.engine.kv_transfer import REQUEST_PREFILL, rejection_released_kv, release_body

BOTH_PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])

OFFER = {
    "do_remote_prefill": bool,
    "do_remote_decode": bool,
    "remote_block_ids": list,
    "remote_engine_id": str,
    "remote_request_id": str,
    "remote_host": str,
    "remote_port": int,
    "tp_size": int,
    "dcp_size": int,
    "pp_size": int,
    "remote_num_tokens": int,
    "remote_blocks_expiry_time": type(None),
    "transfer_mode": str,
    "remote_prefill_cached_tokens": int,
}
INTERNAL = {"error": {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}}


def held(pair: Pair) -> int:
    """KV blocks that prefill holds; a gauge of vLLM's, so a share of all but the null block."""
    blocks = int(pair.prefill.families()["vllm:cache_config_info"].samples[0].labels["num_gpu_blocks"])
    return round(pair.prefill.value("vllm:kv_cache_usage_perc") * (blocks - 1))


def let_go(pair: Pair) -> Callable[[], bool]:
    return lambda: pair.prefill.busy() == 0


@BOTH_PATHS
def test_an_offer_says_where_the_kv_is(pair: Pair, path: str) -> None:
    answer = pair.prefill.prefill(path, "offer-1")
    offer = answer["kv_transfer_params"]
    assert {key: type(value) for key, value in offer.items()} == OFFER
    assert (offer["do_remote_prefill"], offer["do_remote_decode"]) == (True, False)
    assert (offer["tp_size"], offer["dcp_size"], offer["pp_size"], offer["transfer_mode"]) == (1, 1, 1, "pull")
    assert (offer["remote_num_tokens"], offer["remote_prefill_cached_tokens"]) == (answer["usage"]["prompt_tokens"], 0)
    request = "chatcmpl-offer-1" if path == CHAT else "cmpl-offer-1-0"
    assert re.fullmatch(request + "-[0-9a-f]{8}", offer["remote_request_id"])
    assert answer["usage"]["completion_tokens"] == 1
    assert held(pair) == math.ceil(answer["usage"]["prompt_tokens"] / pair.prefill.block_size)
    pair.decode.release(offer)


@pytest.mark.parametrize("num_tokens", [1, 16, 17, 100])
def test_an_offer_names_every_block_of_the_prompt(pair: Pair, num_tokens: int) -> None:
    prompt = pair.prefill.prompt(num_tokens)
    offer = pair.prefill.prefill(COMPLETIONS, "blocks-1", prompt=prompt)["kv_transfer_params"]
    (blocks,) = offer["remote_block_ids"]
    assert len(set(blocks)) == len(blocks) == math.ceil(num_tokens / pair.prefill.block_size) == held(pair)
    assert all(isinstance(block, int) and block > 0 for block in blocks), "block 0 is nobody's"
    pair.decode.release(offer)


def test_a_prefill_leg_of_more_tokens_offers_all_but_the_last(pair: Pair) -> None:
    asked = {"prompt": pair.prefill.prompt(20), "max_tokens": 3, "ignore_eos": True}
    offer = pair.prefill.ask(COMPLETIONS, kv_transfer_params=dict(REQUEST_PREFILL), **asked)["kv_transfer_params"]
    assert offer["remote_num_tokens"] == 22
    assert offer.keys() == OFFER.keys() - {"remote_prefill_cached_tokens"}
    pair.decode.release(offer)


@BOTH_PATHS
def test_the_answer_after_a_hand_off_is_that_of_decode_alone(pair: Pair, path: str) -> None:
    asked = {"max_tokens": 16} if path == CHAT else {"max_tokens": 16, "prompt": pair.decode.prompt(40)}
    alone = pair.decode.ask(path, **asked)
    first = pair.prefill.prefill(path, "same-1", **{**asked, "max_tokens": 1})
    after = pair.decode.ask(path, "same-1", kv_transfer_params=first["kv_transfer_params"], **asked)
    assert text_of(after["choices"][0]) == text_of(alone["choices"][0])
    assert text_of(alone["choices"][0]).startswith(text_of(first["choices"][0]))
    assert after["usage"] == alone["usage"]
    assert after["kv_transfer_params"] is None
    eventually(let_go(pair), "prefill lets go of what decode has fetched", 5)


@BOTH_PATHS
def test_a_streamed_answer_after_a_hand_off_is_the_whole_one(pair: Pair, path: str) -> None:
    alone = pair.decode.ask(path)
    offer = pair.prefill.prefill(path, "same-2")["kv_transfer_params"]
    stream = pair.decode.stream(path, kv_transfer_params=offer)
    assert stream.text() == text_of(alone["choices"][0])
    assert stream.done


def test_both_sides_count_a_hand_off(pair: Pair) -> None:
    before = pair.prefill.counters(), pair.decode.counters()
    prompt = pair.prefill.prompt(50)
    offer = pair.prefill.prefill(COMPLETIONS, "count-1", prompt=prompt)["kv_transfer_params"]
    pair.decode.ask(COMPLETIONS, prompt=prompt, kv_transfer_params=offer)
    eventually(lambda: pair.decode.counters().kv_transfers > before[1].kv_transfers, "the transfer is counted", 5)
    prefill, decode = pair.prefill.counters() - before[0], pair.decode.counters() - before[1]
    none = prefill - prefill
    assert prefill == replace(none, local_compute=50)
    blocks = math.ceil(50 / pair.decode.block_size)
    assert decode.kv_transferred_bytes > 0
    assert decode.kv_transferred_bytes % blocks == 0, "whole blocks travel"
    bytes_moved = decode.kv_transferred_bytes
    assert decode == replace(none, external_kv_transfer=50, kv_transfers=1, kv_transferred_bytes=bytes_moved)


@pytest.mark.parametrize(
    ("change", "status", "released"),
    [({}, 400, True), ({"model": "gpt-17"}, 404, True), ({"temperature": "hot"}, 400, False)],
    ids=["refused", "another model", "unread"],
)
def test_a_decode_leg_refused_after_parsing_lets_go_of_the_kv(
    pair: Pair, change: JsonObject, status: int, released: bool
) -> None:
    expired = pair.expired()
    offer = pair.prefill.prefill(COMPLETIONS, "release-1")["kv_transfer_params"]
    answer = pair.decode.client.post(COMPLETIONS, json=release_body(pair.decode.model, offer) | change)
    assert answer.status_code == status
    if not released:
        assert held(pair) == 1
        assert not rejection_released_kv(answer.status_code, answer.content)
        answer = pair.decode.release(offer)
    assert rejection_released_kv(answer.status_code, answer.content) or status == 404
    eventually(let_go(pair), "prefill lets go of what decode has refused, long before its lease", 5)
    assert pair.expired() == expired


def test_letting_go_twice_is_counted_and_does_no_harm(pair: Pair) -> None:
    expired, late = pair.expired(), pair.prefill.counters().notifications_after_expiry
    offer = pair.prefill.prefill(COMPLETIONS, "twice-1")["kv_transfer_params"]
    for _ in range(2):
        pair.decode.release(offer)
        eventually(let_go(pair), "prefill lets go", 5)

    def counted() -> bool:
        assert pair.expired() == expired
        return pair.prefill.counters().notifications_after_expiry == late + 1

    eventually(counted, "a notice of what is not held is counted as one after expiry", 5)


def test_kv_that_was_let_go_is_fetched_all_the_same(pair: Pair) -> None:
    expired, transfers = pair.expired(), pair.decode.counters().kv_transfers
    offer = pair.prefill.prefill(COMPLETIONS, "late-1")["kv_transfer_params"]
    pair.decode.release(offer)
    eventually(let_go(pair), "prefill lets go", 5)
    pair.decode.ask(COMPLETIONS, kv_transfer_params=offer)
    eventually(lambda: pair.decode.counters().kv_transfers == transfers + 1, "the transfer is counted", 5)
    assert pair.expired() == expired


@BOTH_PATHS
def test_kv_of_an_unknown_engine_is_an_error_never_a_recomputation(pair: Pair, path: str) -> None:
    failed = pair.decode.counters().failed_transfers
    offer = pair.prefill.prefill(path, "fail-1")["kv_transfer_params"]
    wrong = offer | {"remote_engine_id": "00000000-0000-0000-0000-000000000000"}
    answer = pair.decode.post(path, kv_transfer_params=wrong)
    assert (answer.status_code, answer.json()) == (500, INTERNAL)
    stream = pair.decode.stream(path, kv_transfer_params=wrong)
    assert stream.answer.status_code == 200, "the head went out before the KV was missed"
    *before, error = stream.events
    assert [list(event["choices"][0]["delta"]) for event in before] == ([["role", "content"]] if path == CHAT else [])
    assert error == INTERNAL
    assert stream.done, "an error does not keep a stream from saying that it is done"
    eventually(lambda: pair.decode.counters().failed_transfers >= failed + 2, "the failures are counted", 5)
    pair.decode.ask(path, kv_transfer_params=offer)  # the offer itself has not suffered


def test_kv_behind_a_dead_port_is_an_error(pair: Pair) -> None:
    offer = pair.prefill.prefill(COMPLETIONS, "fail-2")["kv_transfer_params"]
    answer = pair.decode.post(COMPLETIONS, kv_transfer_params=offer | {"remote_engine_id": "nobody", "remote_port": 1})
    assert (answer.status_code, answer.json()) == (500, INTERNAL)
    pair.decode.release(offer)


def test_kv_that_nobody_was_told_of_is_held_until_its_lease_ends(pair: Pair) -> None:
    expired = pair.expired()
    asked = {"max_tokens": 1, "kv_transfer_params": dict(REQUEST_PREFILL)}
    stream = pair.prefill.stream(COMPLETIONS, **asked)
    assert all("kv_transfer_params" not in event for event in stream.events)
    assert held(pair) == 1
    eventually(let_go(pair), "the lease ends", pair.lease_s + 10)
    assert pair.expired() == expired + 1
