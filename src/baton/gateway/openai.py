"""What a client may ask, read off the body: which single generations a request consists of, and which way each must go.

vLLM's fields pass through untouched, except those that name other requests' memory (refused) and those vLLM hands off
wrongly: `n > 1` and array prompts become single generations; echo, prompt log-probabilities, prompt embeddings and beam
search are served by a decode rank alone, because prefill's KV cannot serve them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from baton.base.errors import RequestError
from baton.engine.kv_transfer import RESERVED_FIELDS, RESERVED_HEADERS, JsonObject

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MAX_GENERATIONS = 128
"""Most single generations one request may ask for: n x prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One client request.

    `singles` are the bodies of its single generations in the order of their choices' index; `num_choices` is n;
    `decode_alone` says why prefill cannot take part, and is empty where it can.
    """

    path: str
    model: str
    stream: bool
    include_usage: bool
    num_choices: int
    singles: tuple[JsonObject, ...]
    decode_alone: str


def read_call(path: str, headers: dict[str, str], raw: bytes, models: frozenset[str]) -> Call:
    """Read a chat or completions request.

    Raises   RequestError 400 on what is not JSON or not allowed, 404 on a model that is not served
    """
    for header in RESERVED_HEADERS & headers.keys():
        raise RequestError(400, f"The header {header} is not for clients: the gateway chooses the rank.", param=header)
    body = _json_object(raw)
    for field in RESERVED_FIELDS & (body.keys() | _keys(body.get("vllm_xargs"))):
        raise RequestError(400, f"The field {field} is not for clients: it names other requests' memory.", param=field)
    model = body.get("model")
    if not isinstance(model, str) or model not in models:
        allowed = ", ".join(sorted(models))
        raise RequestError(
            404, f"The model {model!r} is not served here; served: {allowed}.", kind="NotFoundError", param="model"
        )
    for field, kind in (("stream", bool), ("n", int)):
        # vLLM would also take "2", 2.0 or "true", and then do what the gateway does not know of.
        if body.get(field) is not None and not isinstance(body[field], kind):
            raise RequestError(
                400, f"The field {field} must be of type {kind.__name__}, not {body[field]!r:.80}.", param=field
            )
    stream_options = body.get("stream_options")
    bodies = _singles(path, body)
    return Call(
        path=path,
        model=model,
        stream=body.get("stream") is True,
        include_usage=isinstance(stream_options, dict) and stream_options.get("include_usage") is True,
        num_choices=_num_choices(body),
        singles=bodies,
        decode_alone=_decode_alone(body),
    )


def error_body(status: int, message: str, kind: str | None = None, param: str | None = None) -> bytes:
    """OpenAI's error shape."""
    default = "invalid_request_error" if status < 500 else "server_error"
    return msgspec.json.encode({"error": {"message": message, "type": kind or default, "param": param, "code": status}})


def models_list(model: str, aliases: tuple[str, ...], created_s: int) -> bytes:
    """The /v1/models answer: the model, and each alias marked as one."""
    entry = {"object": "model", "created": created_s, "owned_by": "baton"}
    data: list[JsonObject] = [{"id": model, **entry, "alias_of": None}]
    data += [{"id": alias, **entry, "alias_of": model} for alias in aliases]
    return msgspec.json.encode({"object": "list", "data": data})


def _json_object(raw: bytes) -> JsonObject:
    try:
        body = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise RequestError(400, "The body is nested too deeply.") from error
    if not isinstance(body, dict):
        raise RequestError(400, f"The body must be a JSON object, not {type(body).__name__}.")
    return body


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def _num_choices(body: JsonObject) -> int:
    n = body.get("n")
    return n if isinstance(n, int) and not isinstance(n, bool) and n > 1 else 1


def _decode_alone(body: JsonObject) -> str:
    if body.get("prompt_logprobs") is not None:
        return "prompt_logprobs needs the prompt's computation, not its KV"
    if body.get("echo"):
        return "echo needs the prompt's computation, not its KV"
    if body.get("prompt_embeds") is not None:
        return "prompt_embeds may hold several prompts, and vLLM would give all of them the KV of the first"
    return "beam search forks its KV" if body.get("use_beam_search") else ""


def _singles(path: str, body: JsonObject) -> tuple[JsonObject, ...]:
    prompts = body.get("prompt") if path == COMPLETIONS else None
    several = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
    per_prompt = [{**body, "prompt": prompt} for prompt in prompts] if several and prompts else [body]
    n = _num_choices(body)
    if body.get("use_beam_search") or body.get("prompt_embeds") is not None:
        return (body,)  # for decode alone, as it is
    if len(per_prompt) * n > MAX_GENERATIONS:
        raise RequestError(
            400,
            f"The request asks for {len(per_prompt) * n} generations; at most {MAX_GENERATIONS} are allowed.",
            param="n",
        )
    return tuple(_choice(single, i) for single in per_prompt for i in range(n)) if n > 1 else tuple(per_prompt)


def _choice(body: JsonObject, i: int) -> JsonObject:
    """The body of the i-th of n choices, seeded as vLLM seeds its own: seed + i."""
    single = {**body, "n": 1}
    if isinstance(body.get("seed"), int):
        single["seed"] = body["seed"] + i
    return single
