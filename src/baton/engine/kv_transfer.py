"""The KV hand-off as vLLM speaks it: what each leg's request body must carry, and what the prefill leg's answer says.

    prefill leg   the client's body with one output token, kv_transfer_params {do_remote_decode: true}, not streamed
                  (a stream never carries the parameters)
    its answer    kv_transfer_params naming engine, blocks, host and port where the KV lies
    decode leg    the client's body with those parameters, whole
    release       a decode rank is sent the parameters with a request it must reject after parsing; the rejection
                  notifies prefill, which frees the KV within 0.1 s. Nothing sent to prefill itself does that.

Source: vLLM 0.32.0, NixlConnector in pull mode; every shape here was read off running servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from baton.base.errors import WorkerError

JsonObject = dict[str, Any]

REQUEST_PREFILL: Mapping[str, object] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}

RESERVED_FIELDS = frozenset({"kv_transfer_params", "ec_transfer_params"})
"""Body fields that name other requests' memory: only the gateway may set them."""

RESERVED_HEADERS = frozenset({"x-data-parallel-rank"})
"""Request headers that choose an engine rank: only the gateway may set them."""

_LENGTHS = ("max_tokens", "max_completion_tokens")
_NOT_FOR_PREFILL = frozenset({"stream", "stream_options", "min_tokens", "logprobs", "top_logprobs", *_LENGTHS})


class NoKvOffered(WorkerError):
    """A prefill engine answered, but offered no KV: it has no KV connector, or it did not treat this as a hand-off."""


def prefill_body(body: JsonObject) -> JsonObject:
    """The prefill leg's body: the client's, cut to one output token."""
    leg = {key: value for key, value in body.items() if key not in _NOT_FOR_PREFILL}
    # Both where both may be given: chat prefers the second, completions know only the first.
    lengths = {length: 1 for length in _LENGTHS if length in body or length == "max_tokens"}
    return {**leg, **lengths, "stream": False, "kv_transfer_params": REQUEST_PREFILL}


def decode_body(body: JsonObject, params: JsonObject) -> JsonObject:
    """The decode leg's body: the client's, with where the KV lies."""
    return {**body, "kv_transfer_params": params}


def release_body(model: str, params: JsonObject) -> JsonObject:
    """A /v1/completions body that a decode rank parses, rejects for its temperature, and so releases the KV."""
    return {"model": model, "prompt": [0], "max_tokens": 1, "temperature": -1, "kv_transfer_params": params}


def rejection_released_kv(status: int, answer: bytes) -> bool:
    """Whether a decode rank that answered an error has told prefill to free the KV it was offered.

    It has if it rejected the request after parsing ("BadRequestError"), not if the body failed validation ("Bad
    Request"). Of other errors nothing is known, and releasing twice does no harm.
    """
    try:
        return status == 400 and bool(msgspec.json.decode(answer)["error"]["type"] == "BadRequestError")
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError):
        return False


class Prefilled(msgspec.Struct):
    """What a gateway needs of a prefill leg's answer: where the KV lies, and how long the prompt was."""

    class Usage(msgspec.Struct):
        """Token counts of a request."""

        class Details(msgspec.Struct):
            """Given with --enable-prompt-tokens-details."""

            cached_tokens: int | None = None

        prompt_tokens: int | None = None
        prompt_tokens_details: Details | None = None

    kv_transfer_params: JsonObject | None = None
    usage: Usage | None = None

    @property
    def num_prompt_tokens(self) -> int | None:
        """Tokens of the prompt; None where the engine does not say."""
        return None if self.usage is None else self.usage.prompt_tokens

    @property
    def num_cached_tokens(self) -> int | None:
        """Tokens that came from prefill's prefix cache; None where the engine does not say."""
        details = None if self.usage is None else self.usage.prompt_tokens_details
        return None if details is None else details.cached_tokens


_PREFILLED = msgspec.json.Decoder(Prefilled)


def read_prefilled(answer: bytes) -> Prefilled:
    """A prefill leg's answer, whose KV is offered.

    Raises   NoKvOffered when the hand-off parameters are missing or do not offer KV
    """
    try:
        prefilled = _PREFILLED.decode(answer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NoKvOffered(f"prefill answered 200 with what is no completion: {answer[:200]!r}") from error
    checked_offer(prefilled.kv_transfer_params)
    return prefilled


def num_blocks(params: JsonObject) -> int:
    """KV blocks that an offer names, over all KV cache groups; 0 where it names none."""
    groups = params.get("remote_block_ids")
    if not isinstance(groups, list):
        return 0
    return sum(len(group) if isinstance(group, list) else 1 for group in groups)


def checked_offer(params: JsonObject | None) -> JsonObject:
    """The parameters themselves, if they offer KV.

    Raises   NoKvOffered
    """
    if not params or not params.get("do_remote_prefill"):
        raise NoKvOffered(
            f"prefill answered 200 without offering its KV (kv_transfer_params: {params!r}); "
            "is it started with --kv-transfer-config?"
        )
    return params
