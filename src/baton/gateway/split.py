"""Requests of several generations (n > 1, array prompts): each handed off by itself, the answers put together again.

Choice i of prompt p gets index p * n + i, as vLLM numbers them. Prompt tokens are counted once a prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec

from baton.base.errors import RequestError, WorkerError
from baton.base.reply import Reply
from baton.engine.errors import EngineGarbled
from baton.engine.kv_transfer import JsonObject
from baton.engine.response import Response
from baton.gateway.counts import ItlCounts
from baton.gateway.handoff import EngineRefused, Generation, HandoffRunner
from baton.gateway.openai import Body, Call
from baton.gateway.relay import DONE, EVENT_STREAM, MAX_ANSWER_BYTES, StreamFailed, error_status

_ROLE = {"role": "assistant", "content": ""}


async def serve_split(
    runner: HandoffRunner,
    call: Call,
    generations: Sequence[Generation],
    reply: Reply,
    headers: Callable[[Generation], Mapping[str, str]],
    itl: ItlCounts,
) -> None:
    """Answer a call of several generations; if one fails, the others are cancelled and the call fails.

    headers   asked for the reply's once the first byte of the first generation is here
    Raises    what the first failing generation raised; StreamFailed once a stream has started
    """
    parts: list[JsonObject] = [{} for _ in call.singles]
    request_id = generations[0].client_id

    async def run(index: int, body: Body) -> None:
        own = generations[index]

        async def deliver(response: Response) -> None:
            if call.stream:
                parts[index] = await _pass_events(response, index, request_id, reply, own, headers, itl)
            else:
                parts[index] = _completion(await response.read(MAX_ANSWER_BYTES), response)
                own.ledger.ended = monotonic()
                own.num_output_tokens = (parts[index].get("usage") or {}).get("completion_tokens", 0)

        await runner.run(own, body, deliver, lambda: reply.started)

    try:
        async with asyncio.TaskGroup() as tasks:
            for index, body in enumerate(call.singles):
                tasks.create_task(run(index, body))
    except* (WorkerError, RequestError) as failures:
        first = _first(failures)
        if not reply.started:
            raise first from None
        raise StreamFailed(str(first), at_event_boundary=True) from None
    usage = _usage([part.get("usage") for part in parts], call.num_choices)
    if not call.stream:
        last = max(generations, key=lambda generation: generation.ledger.ended)
        json = {**headers(last), "content-type": "application/json"}
        reply.send(200, json, msgspec.json.encode(_merged(parts, usage)))
        return
    if call.include_usage:
        reply.write(b"data: " + msgspec.json.encode({**parts[0], "choices": [], "usage": usage}) + b"\n\n")
    reply.write(DONE)
    reply.end()


async def _pass_events(
    response: Response,
    index: int,
    request_id: str,
    reply: Reply,
    own: Generation,
    headers: Callable[[Generation], Mapping[str, str]],
    itl: ItlCounts,
) -> JsonObject:
    """Pass one generation's events on under its index; returns its usage event, or {} where none came."""
    usage: JsonObject = {}
    last_s, held = 0.0, b""
    async for event in _events(response):
        event["id"] = request_id
        if not event.get("choices"):
            usage = event
            continue
        for choice in event["choices"]:
            choice["index"] = index
        now_s = monotonic()
        if last_s:
            itl.add(now_s - last_s, 1)
        else:
            own.ledger.first_byte = now_s
        last_s = now_s
        own.num_output_tokens += 1
        raw = b"data: " + msgspec.json.encode(event) + b"\n\n"
        if own.num_output_tokens == 1 and _ROLE.items() <= event["choices"][0].get("delta", {}).items():
            held = raw  # what follows may be an error still (relay.py)
            continue
        if not reply.started:
            reply.start(200, {**headers(own), **EVENT_STREAM})
        if not reply.write(held + raw):
            await reply.drain()
        held = b""
    return usage


async def _events(response: Response) -> AsyncIterator[JsonObject]:
    """The JSON events of a stream, until [DONE].

    Raises   EngineGarbled when the stream ends without it
    """
    buffer = b""
    async for data in response.chunks():
        buffer += data
        *whole, buffer = buffer.split(b"\n\n")
        for raw in whole:
            payload = raw.removeprefix(b"data: ")
            if payload == b"[DONE]":
                return
            yield _completion(payload, response)
    raise EngineGarbled(response.origin, response.doing, "a stream without data: [DONE]", response.received_bytes)


def _completion(raw: bytes, response: Response) -> JsonObject:
    """A completion, or a chunk of one.

    Raises   EngineRefused on an error, EngineGarbled on anything else
    """
    try:
        answer = msgspec.json.decode(raw, type=JsonObject)
    except (msgspec.DecodeError, RecursionError) as error:
        raise EngineGarbled(response.origin, response.doing, f"no JSON object but {raw[:200]!r}") from error
    if answer.get("error"):
        raise EngineRefused(error_status(raw), raw)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise EngineGarbled(response.origin, response.doing, f"no completion but {raw[:200]!r}")
    return answer


def _merged(parts: list[JsonObject], usage: JsonObject) -> JsonObject:
    choices = [{**choice, "index": index} for index, part in enumerate(parts) for choice in part["choices"]]
    return {**parts[0], "choices": choices, "usage": usage}


def _usage(usages: list[Any], num_choices: int) -> JsonObject:
    """Sums of the parts' usage: completion tokens of all, prompt tokens of the first choice of each prompt."""
    known = [usage or {} for usage in usages]
    completion = sum(usage.get("completion_tokens", 0) for usage in known)
    prompt = sum(usage.get("prompt_tokens", 0) for usage in known[::num_choices])
    return {**known[0], "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _first(failures: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
