"""What a stand-in writes: whole answers, the events of a stream, and errors, key for key as vLLM does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from baton.engine.stand_in.config import StandInConfig
from baton.engine.stand_in.model import Token, detokenize
from baton.engine.stand_in.requests import ChatBody, CompletionBody
from baton.engine.stand_in.sequence import Sequence

JSON = {"content-type": "application/json"}
INTERNAL = "Internal server error"


def error_json(status: int, message: str, kind: str, param: str | None = None) -> bytes:
    """An error, in OpenAI's shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": status}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request's answer: one choice a sequence.

    id_base   the client's id of the request, or one by chance
    """

    config: StandInConfig
    body: CompletionBody | ChatBody
    id_base: str
    created: int
    sequences: list[Sequence]

    @property
    def is_chat(self) -> bool:
        """Whether it answers a chat."""
        return isinstance(self.body, ChatBody)

    # -- whole ---------------------------------------------------------------------------------------------------

    def whole(self) -> bytes:
        """The answer, when every sequence is over."""
        chat, ids = self.is_chat, self.body.return_token_ids
        choices = [self._choice(index, sequence) for index, sequence in enumerate(self.sequences)]
        answer = {
            **self._head(streamed=False),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self._fingerprint,
            "usage": self._usage(streamed=False),
        }
        if chat:
            prompt = self._prompt_of(0) if ids else None
            answer |= {"prompt_logprobs": None, "prompt_token_ids": prompt, "prompt_text": None}
        offers = [sequence.offer for sequence in self.sequences if sequence.offer]
        answer |= {"kv_transfer_params": offers[-1] if offers else None, "ec_transfer_params": None, "metrics": None}
        return msgspec.json.encode(answer)

    def _choice(self, index: int, sequence: Sequence) -> dict[str, Any]:
        body, tokens = self.body, sequence.output
        ids = [token.id for token in tokens] if body.return_token_ids else None
        end = {"finish_reason": sequence.finish, "stop_reason": sequence.stop_reason, "token_ids": ids}
        if isinstance(body, ChatBody):
            message, end["finish_reason"] = self._message(body, sequence)
            logprobs = _chat_logprobs(body, tokens)
            return {"index": index, "message": message, "logprobs": logprobs, **end, "routed_experts": None}
        prompt = self._prompt_of(index)
        return {
            "index": index,
            "text": detokenize(prompt) + sequence.text if body.echo else sequence.text,
            "logprobs": _text_logprobs(body, tokens, 0),
            **end,
            "prompt_logprobs": _prompt_logprobs(prompt) if body.prompt_logprobs is not None else None,
            "prompt_token_ids": prompt if body.return_token_ids else None,
            "routed_experts": None,
        }

    def _message(self, body: ChatBody, sequence: Sequence) -> tuple[dict[str, Any], str | None]:
        num_reasoning = self.config.reasoning_tokens
        message: dict[str, Any] = {
            "role": "assistant",
            "content": sequence.text[num_reasoning:] or (None if num_reasoning else ""),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": sequence.text[:num_reasoning] or None,
        }
        choice = body.tool_choice if body.tool_choice is not None else "auto"
        if not body.tools or choice == "none" or sequence.finish == "abort":
            return message, sequence.finish
        name = body.tools[0].get("function", {}).get("name")
        arguments = msgspec.json.encode({"x": sequence.text}).decode()
        call = {"id": "call-0", "type": "function", "function": {"name": name, "arguments": arguments}}
        return {**message, "content": None, "tool_calls": [call]}, "tool_calls"

    def _usage(self, *, streamed: bool) -> dict[str, Any]:
        """Of the whole request; a stream's leaves out what has no value."""
        n, sequences = self.body.n or 1, self.sequences
        num_prompt = sum(sequence.num_prompt for sequence in sequences[::n])
        usage: dict[str, Any] = self._counts(num_prompt, sum(len(sequence.output) for sequence in sequences))
        details: dict[str, Any] | None = None
        if self.config.enable_prompt_tokens_details:
            details = {"cached_tokens": sum(map(_num_cached, sequences[::n]))}
            if self.is_chat:
                details["created_cache_tokens"] = sum(map(self._num_created, sequences[::n]))
            elif not streamed:
                details["created_cache_tokens"] = None
            if not streamed:
                details["multimodal_tokens"] = None
        if details is not None or not streamed:
            usage["prompt_tokens_details"] = details
        if self.is_chat:
            usage["completion_tokens_details"] = {"reasoning_tokens": self._num_reasoning}
        elif not streamed:
            usage["completion_tokens_details"] = None
        return usage

    @property
    def _num_reasoning(self) -> int:
        return sum(min(self.config.reasoning_tokens, len(sequence.output)) for sequence in self.sequences)

    def _num_created(self, sequence: Sequence) -> int:
        """Tokens of the prompt's blocks that went into the cache with this request."""
        size = self.config.block_size
        return sequence.num_prompt // size * size - sequence.num_cached if self.config.enable_prefix_caching else 0

    @staticmethod
    def _counts(num_prompt: int, num_output: int) -> dict[str, Any]:
        total = num_prompt + num_output
        return {"prompt_tokens": num_prompt, "total_tokens": total, "completion_tokens": num_output}

    # -- streamed ------------------------------------------------------------------------------------------------

    def first_event(self, index: int) -> bytes:
        """What a chat's choice begins with."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        event = {**self._head(streamed=True), "choices": [choice]}
        if self._with_every_event:
            event["usage"] = self._usage_so_far(0, index)
        prompt = self._prompt_of(index) if self.body.return_token_ids else None
        return _event({**event, "prompt_token_ids": prompt, "prompt_text": None})

    def token_event(self, index: int, place: int, text: str, *, is_last: bool) -> bytes:
        """The event of one token, or, without one, of the end of its choice.

        place   of the token in its choice; the number of tokens for an end without one
        text    that it shows: what may begin a stop string is held back
        """
        sequence = self.sequences[index]
        tokens = sequence.output[place : place + 1]
        ids = [token.id for token in tokens] if self.body.return_token_ids else None
        finish = sequence.finish if is_last else None
        if isinstance(self.body, ChatBody):
            key = "reasoning" if place < self.config.reasoning_tokens else "content"
            choice = {"index": index, "delta": {key: text}, "logprobs": _chat_logprobs(self.body, tokens)}
            choice |= {"finish_reason": finish, **({"stop_reason": sequence.stop_reason} if is_last else {})}
            choice["token_ids"] = ids
        else:
            prompt = self._prompt_of(index)
            choice = {
                "index": index,
                "text": detokenize(prompt) + text if self.body.echo and place == 0 else text,
                "logprobs": _text_logprobs(self.body, tokens, place),
                "finish_reason": finish,
                "stop_reason": sequence.stop_reason if is_last else None,
                "prompt_token_ids": prompt if self.body.return_token_ids and place == 0 else None,
                "token_ids": ids,
            }
        event = {**self._head(streamed=True), "choices": [choice]}
        if self._with_every_event:
            event["usage"] = self._usage_so_far(place + len(tokens), index)
        if is_last and not self.with_usage:
            event["system_fingerprint"] = self._fingerprint
        return _event(event)

    def usage_event(self) -> bytes:
        """The last event of a stream that tells its usage."""
        usage = self._usage(streamed=True)
        event = {**self._head(streamed=True), "choices": [], "usage": usage}
        return _event({**event, "system_fingerprint": self._fingerprint})

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.body.stream_options and self.body.stream_options.include_usage)

    @property
    def _with_every_event(self) -> bool:
        options = self.body.stream_options
        return bool(options and options.include_usage and options.continuous_usage_stats)

    def _usage_so_far(self, num_tokens: int, index: int) -> dict[str, Any]:
        usage = self._counts(self.sequences[index].num_prompt, num_tokens)
        if self.is_chat:
            usage["completion_tokens_details"] = {"reasoning_tokens": min(self.config.reasoning_tokens, num_tokens)}
        return usage

    # -- both ----------------------------------------------------------------------------------------------------

    def _head(self, *, streamed: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if streamed else "chat.completion") if self.is_chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.id_base}",
            "object": kind,
            "created": self.created,
            "model": self.body.model or self.config.model,
        }

    @property
    def _fingerprint(self) -> str:
        return f"vllm-{self.config.version}-5ead1a7e"

    def _prompt_of(self, index: int) -> list[int]:
        sequence = self.sequences[index]
        return sequence.ids[: sequence.num_prompt]


def _num_cached(sequence: Sequence) -> int:
    """Tokens of a prompt that were cached; after a hand-off, on prefill, if it said so."""
    told = sequence.params.get("remote_prefill_cached_tokens")
    return told if isinstance(told, int) else sequence.num_cached


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _name(token_id: int) -> str:
    return detokenize([token_id])


def _text_logprobs(body: CompletionBody, tokens: list[Token], offset: int) -> dict[str, Any] | None:
    if body.logprobs is None:
        return None
    tops = [{_name(t.id): t.logprob, _name(t.other_id): t.other_logprob} for t in tokens]
    return {
        "text_offset": [offset + i for i in range(len(tokens))],
        "token_logprobs": [token.logprob for token in tokens],
        "tokens": [_name(token.id) for token in tokens],
        "top_logprobs": [dict(list(top.items())[: max(1, body.logprobs)]) for top in tops],
    }


def _chat_logprobs(body: ChatBody, tokens: list[Token]) -> dict[str, Any] | None:
    if not body.logprobs:
        return None

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        return {"token": _name(token_id), "logprob": logprob, "bytes": list(_name(token_id).encode())}

    num_top = body.top_logprobs or 0
    return {
        "content": [
            {
                **entry(t.id, t.logprob),
                "top_logprobs": [entry(t.id, t.logprob), entry(t.other_id, t.other_logprob)][:num_top],
            }
            for t in tokens
        ]
    }


def _prompt_logprobs(prompt: list[int]) -> list[dict[str, Any] | None]:
    return [None, *({str(i): {"logprob": -1.0, "rank": 1, "decoded_token": _name(i)}} for i in prompt[1:])]
