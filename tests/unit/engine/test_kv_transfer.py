"""The bodies of both legs, and what a prefill leg's answer must hold."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.engine.kv_transfer import (
    RESERVED_FIELDS,
    RESERVED_HEADERS,
    NoKvOffered,
    decode_body,
    prefill_body,
    read_prefilled,
    rejection_released_kv,
    release_body,
)

OFFER: dict[str, Any] = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[1, 2, 3, 4]],
    "remote_engine_id": "64fe1f98-6e8a-42bd-88f5-bf7e6dd7fea5",
    "remote_request_id": "cmpl-8ecdf83badce376e-0-a465208f",
    "remote_host": "127.0.0.1",
    "remote_port": 18255,
    "transfer_mode": "pull",
}
BODIES = st.dictionaries(
    st.sampled_from(["model", "prompt", "messages", "stream", "stream_options", "min_tokens", "max_tokens", "stop",
                     "max_completion_tokens", "logprobs", "top_logprobs", "tools", "seed", "x"]),
    st.integers() | st.text() | st.booleans() | st.lists(st.integers()),
)  # fmt: skip


@given(BODIES)
def test_no_leg_changes_the_clients_body(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    prefill_body(body)
    decode_body(body, OFFER)
    assert body == before


@given(BODIES)
def test_the_prefill_leg_is_the_clients_body_cut_to_one_unstreamed_token(body: dict[str, Any]) -> None:
    leg = prefill_body(body)
    assert leg["max_tokens"] == 1
    assert leg.get("max_completion_tokens", 1) == 1
    assert leg["stream"] is False
    assert {"stream_options", "min_tokens", "logprobs", "top_logprobs"}.isdisjoint(leg)
    kept = {"model", "prompt", "messages", "stop", "tools", "seed", "x"}
    assert {k: v for k, v in leg.items() if k in kept} == {k: v for k, v in body.items() if k in kept}
    assert leg["kv_transfer_params"] == {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }


@given(BODIES)
def test_the_decode_leg_is_the_clients_body_with_the_offer_whole(body: dict[str, Any]) -> None:
    assert decode_body(body, OFFER) == {**body, "kv_transfer_params": OFFER}


def test_a_release_is_parsed_and_then_rejected_for_its_temperature() -> None:
    body = release_body("m", OFFER)
    assert body["temperature"] < 0
    assert body["kv_transfer_params"] == OFFER
    assert body["prompt"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b'{"kv_transfer_params": null}',
        b'{"kv_transfer_params": {}}',
        b'{"kv_transfer_params": 3}',
        b'{"kv_transfer_params": {"do_remote_prefill": false}}',
        b'{"kv_transfer_params": {"do_remote_decode": true}}',
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_an_answer_without_an_offer_is_an_error(answer: bytes) -> None:
    with pytest.raises(NoKvOffered, match="prefill answered 200"):
        read_prefilled(answer)


@pytest.mark.parametrize(
    ("status", "answer", "released"),
    [
        (400, {"error": {"type": "BadRequestError", "message": "temperature must be non-negative"}}, True),
        (400, {"error": {"type": "Bad Request", "message": "1 validation error"}}, False),
        (400, {"error": "Unauthorized"}, False),
        (400, {"detail": "x"}, False),
        (400, [], False),
        (500, {"error": {"type": "BadRequestError"}}, False),
        (404, {"error": {"type": "NotFoundError"}}, False),
    ],
)
def test_only_a_request_rejected_after_parsing_has_given_its_kv_back(
    status: int, answer: object, released: bool
) -> None:
    assert rejection_released_kv(status, json.dumps(answer).encode()) is released
    assert not rejection_released_kv(status, b"not json")


def test_what_only_the_gateway_may_say_is_lower_case() -> None:
    assert {"kv_transfer_params"} <= RESERVED_FIELDS
    assert all(name == name.lower() for name in RESERVED_HEADERS)
