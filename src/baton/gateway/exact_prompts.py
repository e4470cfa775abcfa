"""What routing is told of a prompt in the exact mode: its tokens, counted by an engine before the request is routed.

A prefill worker's /tokenize applies the chat template, tools included, and answers with the ids that the engine itself
will hash. Chains of tokens and chains of text are never mixed in one index: a prompt that cannot be tokenized in time
is routed by load alone, with its length estimated from its bytes. So is one with images or other media, whose tokens
do not say what is in them, and one that no prefill rank can serve.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from baton.base.errors import WorkerError
from baton.engine.kv_events import TokenId, block_key
from baton.engine.vllm import VllmServer
from baton.gateway.openai import CHAT, COMPLETIONS, Body, Call
from baton.gateway.prompts import Prompts
from baton.policy.prompt import continued, keyed, root
from baton.policy.routing import Ask

log = logging.getLogger("baton.gateway")

_PATH = "/tokenize"
_MAX_ANSWER_BYTES = 64 << 20
_FIELDS = {
    COMPLETIONS: ("prompt", "add_special_tokens"),
    CHAT: (
        "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "add_special_tokens",
    ),
}  # fmt: skip
"""Fields of a request that decide its tokens and are given to /tokenize as they are."""
_TEMPLATE_FIELDS = ("documents", "reasoning_effort")
"""Fields of a chat request that its template is given; /tokenize takes them as `chat_template_kwargs`."""
_NOT_TEXT = (b'"image_url"', b'"image_embeds"', b'"input_audio"', b'"audio_url"', b'"video_url"', b'"image_pil"')
_NULL = b"null"


class _Tokenized(msgspec.Struct):
    tokens: list[TokenId]


class ExactPrompts(Prompts):
    """Makes Asks whose chains are of tokens.

    block_size   tokens a KV block, as the engines' events say; 0 while none is known: then there are no chains
    servers      the prefill workers that are there; they are asked in turn
    timeout_s    how long one may take to tokenize a prompt
    pause_s      one that failed is not asked for so long
    """

    def __init__(
        self,
        block_size: Callable[[], int],
        servers: Callable[[], Sequence[VllmServer]],
        *,
        timeout_s: float = 0.5,
        pause_s: float = 5.0,
    ) -> None:
        super().__init__()
        self.num_tokenized = 0
        self.num_failed = 0
        self._block_size = block_size
        self._servers = servers
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._paused_until_s: dict[str, float] = {}
        self._turn = 0
        self._token_ids = msgspec.json.Decoder(list[TokenId])
        self._tokenized = msgspec.json.Decoder(_Tokenized)

    async def asks(self, call: Call, session: str) -> list[tuple[Ask, int]]:
        """What to ask of the router for each generation; a prompt of several choices is tokenized once."""
        prompts = {_prompt(call.path, single): single for single in call.singles}
        token_ids = dict(
            zip(prompts, await asyncio.gather(*(self._tokens(call, body) for body in prompts.values())), strict=True)
        )
        return [
            self._exact_ask(call, single, session, token_ids[_prompt(call.path, single)]) for single in call.singles
        ]

    def _exact_ask(self, call: Call, single: Body, session: str, tokens: list[int] | None) -> tuple[Ask, int]:
        num_bytes, size = len(_prompt(call.path, single)), self._block_size()
        chain: Sequence[int] = ()
        if tokens is not None and size:
            before, salt = root(), _value(single, "cache_salt")
            chain = continued(keyed(before, block_key([salt])) if salt else before, tokens, size)
        ask = Ask(
            num_prompt_tokens=len(tokens) if tokens else int(num_bytes * self.tokens_per_byte) + 1,
            max_output_tokens=call.max_tokens,
            chain=chain,
            tokens_per_block=float(size),
            session=session,
            decode_alone=bool(call.decode_alone),
        )
        return ask, num_bytes

    async def _tokens(self, call: Call, single: Body) -> list[int] | None:
        """The prompt's token ids; None where they are not to be had."""
        prompt = _prompt(call.path, single)
        if call.decode_alone or not prompt or "truncate_prompt_tokens" in single:
            return None
        if call.path == COMPLETIONS and prompt.startswith(b"["):
            return self._given(prompt)
        if call.path == CHAT and any(name in prompt for name in _NOT_TEXT):
            return None
        now_s = asyncio.get_running_loop().time()
        servers = [one for one in self._servers() if self._paused_until_s.get(one.worker.name, now_s) <= now_s]
        if not servers:
            self.num_failed += 1
            return None
        self._turn += 1
        server = servers[self._turn % len(servers)]
        try:
            tokens = await self._ask_server(server, _question(call, single), now_s + self._timeout_s)
        except WorkerError as error:
            self.num_failed += 1
            self._paused_until_s[server.worker.name] = now_s + self._timeout_s + self._pause_s
            log.warning("a prompt is routed without its tokens: %s", error)
            return None
        if tokens is None:
            self.num_failed += 1
        else:
            self.num_tokenized += 1
        return tokens

    async def _ask_server(self, server: VllmServer, question: bytes, deadline_s: float) -> list[int] | None:
        """None when the server refuses the prompt: it will refuse the request as well, and say why."""
        response = await server.post(
            _PATH, question, request_id="tokenize", dp_rank=server.worker.dp_ranks[0], deadline_s=deadline_s, headers={}
        )
        answer = await response.read(_MAX_ANSWER_BYTES)
        if 400 <= response.status < 500 and response.status not in (404, 405):
            return None
        if response.status != 200:
            raise WorkerError(f"{server.worker.name} answered {response.status} to POST {_PATH}: {answer[:200]!r}")
        try:
            return self._tokenized.decode(answer).tokens
        except msgspec.DecodeError as error:
            raise WorkerError(f"{server.worker.name} answered no tokens to POST {_PATH}: {error}") from error

    def _given(self, prompt: bytes) -> list[int] | None:
        try:
            return self._token_ids.decode(prompt)
        except msgspec.DecodeError:
            return None  # the engine will say what is wrong with it


def _prompt(path: str, single: Body) -> bytes:
    return bytes(single.get("prompt" if path == COMPLETIONS else "messages", b""))


def _question(call: Call, single: Body) -> bytes:
    """The body for /tokenize: what of the request decides its tokens, still as the client wrote it."""
    question: dict[str, Any] = {"model": call.model}
    question |= {name: single[name] for name in _FIELDS[call.path] if bytes(single.get(name, _NULL)) != _NULL}
    if call.path == CHAT:
        given = _value(single, "chat_template_kwargs")
        template = dict(given) if isinstance(given, dict) else {}
        effort = _value(single, "reasoning_effort")
        if effort is not None and "enable_thinking" not in template:
            template["enable_thinking"] = effort != "none"
        template |= {name: value for name in _TEMPLATE_FIELDS if (value := _value(single, name)) is not None}
        if template:
            question["chat_template_kwargs"] = template
    return msgspec.json.encode(question)


def _value(single: Body, name: str) -> Any:
    raw = single.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw
    except (msgspec.DecodeError, RecursionError):
        return None  # the engine will say what is wrong with it
