"""A generation's body: read as vLLM reads it, and refused for what vLLM refuses, in its two ways.

`Unread`: the body isn't what the route takes, and nothing of it was looked at. `Refused`: it was read; then KV that it
names is let go, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.model import chat_prompt, tokenize
from baton.engine.stand_in.sequence import Sampling

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class Refused(Exception):
    """A request that is answered with an error."""

    kind = "BadRequestError"

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, kind: str = "") -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.kind = kind or self.kind


class Unread(Refused):
    """A request whose body isn't what the route takes."""

    kind = "Bad Request"


class StreamOptions(msgspec.Struct):
    """What a stream says besides the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Body(msgspec.Struct):
    """What both routes take; fields that aren't here are ignored."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None
    cache_salt: str | None = None
    kv_transfer_params: dict[str, Any] | None = None

    @property
    def params(self) -> dict[str, Any]:
        """The hand-off's parameters."""
        return self.kv_transfer_params or {}


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: Any = None
    echo: bool | None = None
    logprobs: int | None = None

    def prompts(self) -> list[list[int]]:
        """Token ids of each prompt.

        Raises   Refused when there is none; Unread for what is no prompt
        """
        prompt = self.prompt
        if prompt is None or prompt == "":
            raise Refused("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
        if prompt == []:
            raise Refused("prompt should be a list of strings or of token ids, and not empty")
        several = prompt if isinstance(prompt, list) and not _is_ids(prompt) else [prompt]
        if not all(_is_ids(one) or (isinstance(one, str) and one) for one in several):
            raise Unread("1 validation error:\n  body.prompt: expected text, token ids, or a list of either", "prompt")
        return [tokenize(one) if isinstance(one, str) else one for one in several]


class ChatBody(Body, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None

    def prompts(self) -> list[list[int]]:
        """Token ids of the one prompt.

        Raises   Refused when there is no message
        """
        if not self.messages:
            raise Refused("messages should hold at least one message")
        return [chat_prompt({"messages": self.messages, "tools": self.tools})]


AnyBody = TypeVar("AnyBody", bound=msgspec.Struct)


def parsed(raw: bytes, content_type: str, kind: type[AnyBody]) -> AnyBody:
    """A body of a route, numbers and booleans in text included, as vLLM takes them.

    Raises   Unread naming where in the body it fails
    """
    if not content_type.startswith("application/json"):
        raise Unread(f"1 validation error:\n  body: Input should be JSON, not {content_type or 'untyped'}")
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except msgspec.ValidationError as error:
        where = re.search(r"at `\$\.?([^`]*)`", str(error))
        missing = re.search(r"missing required field `(\w+)`", str(error))
        path = ".".join(["body", *([where[1]] if where and where[1] else []), *([missing[1]] if missing else [])])
        raise Unread(f"1 validation error:\n  {path}: {error}", path) from error
    except (msgspec.DecodeError, RecursionError) as error:
        byte = re.search(r"\(byte (\d+)\)", str(error))
        path = f"body.{byte[1]}" if byte else "body"
        raise Unread(f"1 validation error:\n  {path}: {error}", path) from error


def checked(body: CompletionBody | ChatBody, prompts: list[list[int]], config: StandInConfig) -> list[Sampling]:
    """How each of a prompt's `n` answers is drawn, prompt after prompt.

    Raises   Refused
    """
    wanted = body.max_tokens
    if isinstance(body, ChatBody):
        wanted = wanted if body.max_completion_tokens is None else body.max_completion_tokens
    elif wanted is None:
        wanted = 16
    limit = config.max_model_len
    if body.stream_options is not None and not body.stream:
        raise Refused("Stream options can only be defined when `stream=True`.", "stream_options")
    _check_sampling(body, wanted, limit)
    samplings: list[Sampling] = []
    for prompt in prompts:
        if len(prompt) > limit:
            raise Refused(
                f"This model's maximum context length is {limit} tokens. However, your prompt contains {len(prompt)} "
                "input tokens. Please reduce the length of the input prompt.",
                "input_tokens",
            )
        room = limit - len(prompt)
        if room < 1:
            raise Refused(f"max_tokens must be at least 1, got {room}.", "max_tokens")
        one = Sampling(
            max_tokens=room if wanted is None else min(wanted, room),
            min_tokens=body.min_tokens or 0,
            ignore_eos=bool(body.ignore_eos),
            stops=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
            ends_every=config.answer_ends_every,
        )
        seed = body.seed or 0
        samplings += [one if body.temperature == 0 else replace(one, salt=seed + i) for i in range(body.n or 1)]
    return samplings


def _check_sampling(body: CompletionBody | ChatBody, wanted: int | None, limit: int) -> None:
    n = 1 if body.n is None else body.n
    num_logprobs = body.top_logprobs if isinstance(body, ChatBody) else body.logprobs
    if isinstance(body, ChatBody) and body.top_logprobs and not body.logprobs:
        raise Refused("when using `top_logprobs`, `logprobs` must be set.", "top_logprobs")
    if wanted is not None and wanted > limit:
        raise Refused(f"max_tokens={wanted} cannot be greater than max_model_len={limit}.", "max_tokens")
    limits: tuple[tuple[str, float | None, Callable[[float], bool], str], ...] = (
        ("max_tokens", wanted, lambda x: x >= 1, "at least 1"),
        ("temperature", body.temperature, lambda x: 0 <= x <= 2, "in [0, 2]"),
        ("top_p", body.top_p, lambda x: 0 < x <= 1, "in (0, 1]"),
        ("frequency_penalty", body.frequency_penalty, lambda x: -2 <= x <= 2, "in [-2, 2]"),
        ("presence_penalty", body.presence_penalty, lambda x: -2 <= x <= 2, "in [-2, 2]"),
        ("n", n, lambda x: x >= 1, "at least 1"),
        ("logprobs", num_logprobs, lambda x: x <= 20, "at most 20"),
    )
    for name, value, is_allowed, allowed in limits:
        if value is not None and not is_allowed(value):
            named = name if name not in ("n", "frequency_penalty", "presence_penalty") else None
            raise Refused(f"{name} must be {allowed}, got {value}.", named)
    if n > 1 and body.temperature == 0:
        raise Refused(f"n must be 1 when using greedy sampling, got {n}.")
    if (body.min_tokens or 0) > (limit if wanted is None else wanted):
        raise Refused(f"min_tokens must be less than or equal to max_tokens={wanted}, got {body.min_tokens}.")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i < 2**31 for i in value)
