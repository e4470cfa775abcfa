"""One chat request as any client sends it, whole and streamed, and whether what comes back adds up.

It knows OpenAI's shapes and nothing of workers: it is the first thing to try on a deployment, and proves less than
`baton prove`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from baton.base.errors import WorkerError
from baton.engine.client import HttpClient
from baton.engine.origin import Origin
from baton.prove.verdict import Check
from baton.recipe.recipe import TestRequest

MODELS, CHAT = "/v1/models", "/v1/chat/completions"
_MAX_ANSWER_BYTES = 64 << 20
_MAX_REASON = 300
_TEXTS = ("reasoning_content", "reasoning", "content")
"""where a message has its text: with a reasoning parser the thoughts come apart, under either name"""
_FINISHED = ("stop", "length")
_MIN_REPEATS = 4
"""so many of one character and nothing else is what broken engines answer; fewer may be an answer"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The checks in the order they were made, and the text of the last answer."""

    checks: tuple[Check, ...]
    answer: str

    @property
    def ok(self) -> bool:
        """True when every check holds."""
        return all(check.ok for check in self.checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """A chat answer, however it came; problem: why it is none."""

    text: str = ""
    finish_reason: object = None
    usage: object = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    raw: bytes


async def send_request(origin: Origin, request: TestRequest, model: str | None, *, timeout_s: float) -> Outcome:
    """Send a request once whole and once streamed, and check both; a server that fails is an outcome, not an error.

    model       the name to ask for; None takes the first one the server lists
    timeout_s   of each of the three exchanges
    """
    client = HttpClient(connect_timeout_s=min(5.0, timeout_s))
    try:
        return await _sent(client, origin, request, model, timeout_s)
    finally:
        client.close()


async def _sent(
    client: HttpClient, origin: Origin, request: TestRequest, model: str | None, timeout_s: float
) -> Outcome:
    check, found = await _model(client, origin, model, timeout_s)
    checks, text = [check], ""
    body = {
        "model": found,
        "messages": [{"role": "user", "content": request.prompt}],
        "max_tokens": request.max_tokens,
    }
    prompt_tokens = None
    for way, more in (("whole", {}), ("streamed", {"stream": True, "stream_options": {"include_usage": True}})):
        if not check.ok:
            break
        check, reply = await _exchange(client, origin, "POST", CHAT, {**body, **more}, timeout_s, way)
        checks.append(check)
        if reply is not None and check.ok:
            answer = _streamed(reply.raw) if more else _whole(reply.raw)
            checks += _judged(way, answer, request.max_tokens, prompt_tokens)
            prompt_tokens, text = _number(answer.usage, "prompt_tokens"), answer.text
    return Outcome(checks=tuple(checks), answer=text)


async def _model(client: HttpClient, origin: Origin, wanted: str | None, timeout_s: float) -> tuple[Check, str]:
    """The model to ask for, which the server must list."""
    check, reply = await _exchange(client, origin, "GET", MODELS, None, timeout_s, "models")
    if reply is None or not check.ok:
        return check, ""
    entries = _get(_json(reply.raw), "data")
    names = [_get(entry, "id") for entry in entries] if isinstance(entries, list) else []
    known = [name for name in names if isinstance(name, str)]
    expected = f"{wanted} among {MODELS}" if wanted is not None else f"a model in {MODELS}"
    listed = ", ".join(known) or "none: the server is up, but no engine serves yet, or not both roles; try again later"
    name = wanted if wanted is not None else (known[0] if known else "")
    return Check(name="models", ok=name in known, expected=expected, found=listed), name


async def _exchange(
    client: HttpClient, origin: Origin, method: str, path: str, body: Any, timeout_s: float, what: str
) -> tuple[Check, _Reply | None]:
    """One exchange, and whether it was answered with 200."""
    raw = msgspec.json.encode(body) if body is not None else b""
    headers = {"content-type": "application/json"} if raw else {}
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    name, expected = f"{what}: status", f"200 to {method} {path}"
    try:
        with await client.send(origin, method, path, headers, raw, deadline_s=deadline_s) as response:
            reply = _Reply(status=response.status, headers=response.headers, raw=await response.read(_MAX_ANSWER_BYTES))
    except WorkerError as error:
        return Check(name=name, ok=False, expected=expected, found=str(error)), None
    found = "200" if reply.status == 200 else f"{reply.status}: {_reason(reply)}"
    return Check(name=name, ok=reply.status == 200, expected=expected, found=found), reply


def _reason(reply: _Reply) -> str:
    """Why a server did not answer, in its own words, and what to do about it."""
    said = _error(_json(reply.raw)) or reply.raw.decode(errors="replace").strip()
    words = " ".join(said.split())[:_MAX_REASON] or "no reason given"
    if reply.status != 503:
        return words
    after = reply.headers.get("retry-after")
    return f"{words}; not ready yet, or full: try again {f'in {after} s' if after else 'later'}"


def _whole(raw: bytes) -> _Answer:
    answer = _json(raw)
    choice = _first(_get(answer, "choices"))
    if choice is None:
        shown = raw[:_MAX_REASON].decode(errors="replace")
        return _Answer(problem=_error(answer) or f"no choices in {shown!r}")
    return _Answer(
        text=_text(_get(choice, "message")),
        finish_reason=_get(choice, "finish_reason"),
        usage=_get(answer, "usage"),
    )


def _streamed(raw: bytes) -> _Answer:
    text, finish_reason, usage = "", None, None
    payloads = list(_payloads(raw))
    for payload in payloads:
        if payload == b"[DONE]":
            continue
        event = _json(payload)
        if not isinstance(event, dict) or "error" in event:
            shown = payload[:_MAX_REASON].decode(errors="replace")
            return _Answer(text=text, problem=f"an error event: {_error(event) or shown}")
        choice = _first(event.get("choices"))
        text += _text(_get(choice, "delta"))
        finish_reason = _get(choice, "finish_reason") or finish_reason
        usage = event.get("usage") or usage
    is_done = payloads[-1:] == [b"[DONE]"]
    problem = "" if is_done else f"{len(payloads)} events and no [DONE] at the end: the answer broke off"
    return _Answer(text=text, finish_reason=finish_reason, usage=usage, problem=problem)


def _payloads(raw: bytes) -> Iterator[bytes]:
    """The data of each server-sent event."""
    for event in raw.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            yield b"\n".join(lines)


def _judged(way: str, answer: _Answer, max_tokens: int, prompt_tokens: int | None) -> Iterator[Check]:
    form = "events, then [DONE]" if way == "streamed" else "one choice"
    if answer.problem:
        yield Check(name=f"{way}: form", ok=False, expected=form, found=answer.problem)
        return
    if way == "streamed":
        yield Check(name=f"{way}: form", ok=True, expected=form, found=form)
    fault = _text_fault(answer.text)
    found = fault or f"{len(answer.text)} characters"
    yield Check(name=f"{way}: content", ok=not fault, expected="text", found=found)
    finish, ends = answer.finish_reason, " or ".join(_FINISHED)
    yield Check(name=f"{way}: finish_reason", ok=finish in _FINISHED, expected=ends, found=str(finish))
    yield _usage(way, answer.usage, max_tokens, prompt_tokens)


def _usage(way: str, usage: object, max_tokens: int, prompt_tokens: int | None) -> Check:
    prompt, completion, total = (_number(usage, f"{name}_tokens") for name in ("prompt", "completion", "total"))
    ok = (
        prompt is not None
        and completion is not None
        and prompt > 0
        and prompt_tokens in (None, prompt)
        and 1 <= completion <= max_tokens
        and total == prompt + completion
    )
    expected = f"{prompt_tokens or 'prompt'} + 1 to {max_tokens} tokens = total"
    return Check(name=f"{way}: usage", ok=ok, expected=expected, found=f"{prompt} + {completion} = {total}")


def _text_fault(text: str) -> str:
    """Why a text is no answer; "" when it is one."""
    letters = "".join(text.split())
    if not letters:
        return "no text"
    if set(letters) == {"\ufffd"}:
        return f"{len(letters)} replacement characters and nothing else"
    if len(letters) >= _MIN_REPEATS and len(set(letters)) == 1:
        return f"{letters[0]!r} {len(letters)} times and nothing else"
    return ""


def _text(message: object) -> str:
    parts = (_get(message, key) for key in _TEXTS)
    return "".join(part for part in parts if isinstance(part, str))


def _error(answer: object) -> str:
    """The message of an error in OpenAI's shape, or in the one of FastAPI."""
    error = _get(answer, "error")
    for found in (_get(error, "message"), error, _get(answer, "message"), _get(answer, "detail")):
        if isinstance(found, str) and found:
            return found
    return ""


def _json(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _get(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _number(usage: object, key: str) -> int | None:
    value = _get(usage, key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
