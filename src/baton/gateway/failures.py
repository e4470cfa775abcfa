"""What a client is told of a request that failed."""

from __future__ import annotations

from math import ceil

import msgspec

from baton.base.errors import RequestError, WorkerError
from baton.base.reply import Reply
from baton.engine.errors import EngineTimeout, EngineUnreachable
from baton.gateway import openai
from baton.gateway.handoff import RETRY_AFTER_S, EngineRefused
from baton.gateway.relay import StreamFailed

JSON = {"content-type": "application/json"}


def answer_error(error: WorkerError | RequestError, reply: Reply) -> int:
    """Tell the client of a request that failed; the status, which a stream that has begun can't show."""
    headers: dict[str, str] = {}
    match error:
        case StreamFailed():
            if not error.client_knows:
                separator = b"" if error.at_event_boundary else b"\n\n"
                reply.write(separator + b"data: " + openai.error_body(502, str(error)) + b"\n\n")
            reply.end()
            return 502
        case EngineRefused():
            status, body = _engine_error(error)
        case RequestError():
            status, body = error.status, openai.error_body(error.status, error.message, error.kind, error.param)
            if error.retry_after_s is not None:
                headers["retry-after"] = str(ceil(error.retry_after_s))
        case EngineUnreachable():  # another try may find another pair, or this engine back
            status, body = 503, openai.error_body(503, str(error), "service_unavailable")
            headers["retry-after"] = str(RETRY_AFTER_S)
        case EngineTimeout():
            status, body = 504, openai.error_body(504, str(error))
        case _:
            status, body = 502, openai.error_body(502, str(error))
    if not reply.started:
        reply.send(status, JSON | headers, body)
    return status


def _engine_error(error: EngineRefused) -> tuple[int, bytes]:
    """An engine's error as the client gets it: its own body where that has OpenAI's shape, and its status."""
    try:
        shaped = isinstance(msgspec.json.decode(error.body)["error"]["message"], str)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError):
        shaped = False
    if shaped and error.status >= 400:
        return error.status, error.body
    status = error.status if 400 <= error.status < 500 else 502
    return status, openai.error_body(status, str(error))
