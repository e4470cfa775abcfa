"""What a client may ask, read off the body: which single generations a request consists of, and which way each must go.

vLLM's fields pass through untouched, as the bytes the client sent, except those that name other requests' memory
(refused) and those vLLM hands off wrongly: `n > 1` and array prompts become single generations; echo, prompt
log-probabilities, prompt embeddings and beam search are served by a decode rank alone, because prefill's KV cannot
serve them. Only the few fields that decide this are ever decoded: prompts are the bulk of a body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from baton.base.errors import RequestError
from baton.engine.kv_transfer import RESERVED_FIELDS, RESERVED_HEADERS, JsonObject

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MAX_GENERATIONS = 128
"""Most single generations one request may ask for: n x prompts."""


Body: TypeAlias = dict[str, Any]
"""A body's fields; those nobody here needs are still JSON (msgspec.Raw), which msgspec writes as it is."""

_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PROMPTS = msgspec.json.Decoder(list[msgspec.Raw])
_BEFORE_MESSAGES = ("tools", "chat_template", "chat_template_kwargs", "reasoning_effort", "documents", "cache_salt")
"""Fields that change the tokens before a conversation's messages, or who may share them."""

_REPORT_MODE = "kv_cache_report_mode"
"""With `full`, an engine tells again of blocks that a request found cached (vLLM 0.32.0, v1/core/kv_cache_manager.py).
Nobody can tell that from second copies, so an index that follows the events would think them there for ever."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One client request.

    `singles` are the bodies of its single generations in the order of their choices' index; `num_choices` is n;
    `decode_alone` says why prefill cannot take part, and is empty where it can; `max_tokens` is None where the client
    leaves it to the engine.
    """

    path: str
    model: str
    stream: bool
    include_usage: bool
    num_choices: int
    singles: tuple[Body, ...]
    decode_alone: str
    max_tokens: int | None


def read_call(path: str, headers: dict[str, str], raw: bytes, models: frozenset[str]) -> Call:
    """Read a chat or completions request.

    Raises   RequestError 400 on what is not JSON or not allowed, 404 on a model that is not served
    """
    if not RESERVED_HEADERS.isdisjoint(headers):
        name = min(RESERVED_HEADERS & headers.keys())
        raise RequestError(400, f"The header {name} is not for clients: the gateway chooses the rank.", param=name)
    body = _json_object(raw)
    get = body.get
    if not RESERVED_FIELDS.isdisjoint(body) or "vllm_xargs" in body:
        extra = _keys(_value(get("vllm_xargs")))
        for field in RESERVED_FIELDS & (body.keys() | extra):
            text = f"The field {field} is not for clients: it names other requests' memory."
            raise RequestError(400, text, param=field)
        if _REPORT_MODE in extra:
            text = f"The field {_REPORT_MODE} is not for clients: what engines tell of their caches is the gateway's."
            raise RequestError(400, text, param=_REPORT_MODE)
    model = _value(get("model"))
    if not isinstance(model, str) or model not in models:
        allowed = ", ".join(sorted(models))
        raise RequestError(
            404, f"The model {model!r} is not served here; served: {allowed}.", kind="NotFoundError", param="model"
        )
    stream, n = _value(get("stream")), _value(get("n"))
    for field, value, kind in (("stream", stream, bool), ("n", n, int)):
        # vLLM would also take "2", 2.0 or "true", and then do what the gateway does not know of.
        if value is not None and not isinstance(value, kind):
            raise RequestError(
                400, f"The field {field} must be of type {kind.__name__}, not {value!r:.80}.", param=field
            )
    stream_options = _value(get("stream_options"))
    num_choices = n if type(n) is int and n > 1 else 1
    return Call(
        path=path,
        model=model,
        stream=stream is True,
        include_usage=isinstance(stream_options, dict) and stream_options.get("include_usage") is True,
        num_choices=num_choices,
        singles=_singles(path, body, num_choices),
        decode_alone=_decode_alone(body),
        max_tokens=_max_tokens(body),
    )


def prompt_text(path: str, body: Body) -> tuple[bytes, bytes]:
    """(seed, text) that two requests share as far as their prompts do: the prompt's own JSON, and all that precedes it.

    Text, not tokens: prefixes of equal tokens that were written differently are not recognised.
    """
    if path == COMPLETIONS:
        return bytes(body.get("cache_salt", b"")), bytes(body.get("prompt", b""))
    seed = b"".join([bytes(body[name]) for name in _BEFORE_MESSAGES if name in body])
    return seed, bytes(body.get("messages", b""))


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


def _json_object(raw: bytes) -> Body:
    try:
        return _BODY.decode(raw)
    except msgspec.ValidationError:
        raise RequestError(400, f"The body must be a JSON object, not {raw[:40]!r}.") from None
    except msgspec.DecodeError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise RequestError(400, "The body is nested too deeply.") from error


def _value(raw: msgspec.Raw | None) -> Any:
    """The value of a field; None where it is missing or null.

    Raises   RequestError 400 on what looks like JSON from afar only, such as a broken string
    """
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from error


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def _max_tokens(body: Body) -> int | None:
    for field in ("max_completion_tokens", "max_tokens"):
        value = _value(body[field]) if field in body else None
        if type(value) is int:
            return value
    return None


def _decode_alone(body: Body) -> str:
    if "prompt_logprobs" in body and _value(body["prompt_logprobs"]) is not None:
        return "prompt_logprobs needs the prompt's computation, not its KV"
    if "echo" in body and _value(body["echo"]):
        return "echo needs the prompt's computation, not its KV"
    if "prompt_embeds" in body and _value(body["prompt_embeds"]) is not None:
        return "prompt_embeds may hold several prompts, and vLLM would give all of them the KV of the first"
    return "beam search forks its KV" if "use_beam_search" in body and _value(body["use_beam_search"]) else ""


def _singles(path: str, body: Body, num_choices: int) -> tuple[Body, ...]:
    if ("use_beam_search" in body or "prompt_embeds" in body) and _decode_alone(body):
        return (body,)  # for decode alone, as it is
    if num_choices > 1 and _is_greedy(body):
        # The engine's own words for what it refuses, and would not see in single generations.
        text = f"n must be 1 when using greedy sampling, got {num_choices}."
        raise RequestError(400, text, kind="BadRequestError")
    prompts = _prompts(body) if path == COMPLETIONS else None
    per_prompt = [body] if prompts is None else [{**body, "prompt": prompt} for prompt in prompts]
    if len(per_prompt) * num_choices > MAX_GENERATIONS:
        raise RequestError(
            400,
            f"The request asks for {len(per_prompt) * num_choices} generations; at most {MAX_GENERATIONS} are allowed.",
            param="n",
        )
    if num_choices == 1:
        return tuple(per_prompt)
    return tuple(_choice(single, i) for single in per_prompt for i in range(num_choices))


def _is_greedy(body: Body) -> bool:
    """Whether an engine would take the likeliest token always: at temperature 0, however it is written.

    Small ones are raised to 0.01, negative ones refused as such (vLLM 0.32.0, sampling_params.py). Where the client
    gives none, the model's generation_config may: the engine then decides.
    """
    value = _value(body.get("temperature"))
    try:
        return value is not None and float(value) == 0.0
    except (ValueError, TypeError, OverflowError):
        return False  # the engine will say what is wrong with it


def _prompts(body: Body) -> list[msgspec.Raw] | None:
    """The prompts of an array of several; None for one prompt, whether text or token ids."""
    raw = body.get("prompt")
    if raw is None or not bytes(raw).startswith(b"["):
        return None
    try:
        prompts = _PROMPTS.decode(raw)
    except msgspec.DecodeError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from error
    return prompts if prompts and not bytes(prompts[0])[:1].isdigit() else None


def _choice(body: Body, i: int) -> Body:
    """The body of the i-th of n choices, seeded as vLLM seeds its own: seed + i."""
    single = {**body, "n": 1}
    seed = _value(body.get("seed"))
    if isinstance(seed, int):
        single["seed"] = seed + i
    return single
