"""A decode rank's answer on its way to the client: passed on as bytes, checked for its end, never parsed per event.

A stream starts towards the client only when its first event is here and is no error, so that a failed hand-off still
becomes an HTTP error; a stream that ends without `[DONE]` is a failure, whatever its status was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from baton.base.errors import WorkerError
from baton.base.reply import Reply
from baton.engine.errors import EngineGarbled
from baton.engine.response import Response
from baton.gateway.handoff import EngineRefused

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
MAX_ANSWER_BYTES = 256 << 20

_ERROR_EVENT = b'data: {"error"'


class StreamFailed(WorkerError):
    """A stream broke after it had started towards the client.

    at_event_boundary   whether what the client has ends with a whole event
    client_knows        whether the engine's own error event has been passed on
    """

    def __init__(self, message: str, *, at_event_boundary: bool, client_knows: bool = False) -> None:
        super().__init__(message)
        self.at_event_boundary = at_event_boundary
        self.client_knows = client_knows


async def relay(response: Response, reply: Reply, headers: Mapping[str, str], on_first: Callable[[], None]) -> None:
    """Pass one decode answer to the client; `on_first` is called with a stream's first byte.

    Raises   EngineRefused, EngineError before anything was sent; StreamFailed once a stream has started
    """
    if not is_stream(response):
        body = await response.read(MAX_ANSWER_BYTES)
        reply.send(200, {**headers, "content-type": response.headers.get("content-type", "application/json")}, body)
        return
    stream = _Stream(reply, headers, on_first)
    try:
        await response.pipe(stream.feed, reply.drain)
        stream.finish(response)
    except WorkerError as error:
        if not reply.started:
            raise
        raise StreamFailed(
            str(error), at_event_boundary=stream.at_event_boundary, client_knows=stream.told_error
        ) from error
    reply.end()


def is_stream(response: Response) -> bool:
    """Whether the engine answers with server-sent events."""
    return response.headers.get("content-type", "").startswith("text/event-stream")


def error_status(event: bytes) -> int:
    """The HTTP status that an engine's error event speaks of; 500 where it names none."""
    try:
        code = msgspec.json.decode(event)["error"]["code"]
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError):
        return 500
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


class _Stream:
    """Sink of one decode stream."""

    __slots__ = ("_error", "_headers", "_on_first", "_reply", "_tail", "told_error")

    def __init__(self, reply: Reply, headers: Mapping[str, str], on_first: Callable[[], None]) -> None:
        self._reply = reply
        self._headers = headers
        self._on_first = on_first
        self._tail = b""
        self._error = b""
        self.told_error = False

    def feed(self, data: bytes) -> bool:
        """Take body bytes; the first decide whether there is a stream at all."""
        if self._error or (not self._reply.started and data.startswith(_ERROR_EVENT)):
            self._error += data
            return True
        if not self._reply.started:
            self._on_first()
            self._reply.start(200, {**self._headers, **EVENT_STREAM})
        if _ERROR_EVENT in data or (not self.at_event_boundary and _ERROR_EVENT in self._tail + data[: len(DONE)]):
            self.told_error = True
        if self.told_error:
            data = data.removesuffix(DONE)
        self._tail = (self._tail + data)[-len(DONE) :] if len(data) < len(DONE) else data[-len(DONE) :]
        return self._reply.write(data)

    @property
    def at_event_boundary(self) -> bool:
        """Whether what was passed on ends with a whole event."""
        return self._tail.endswith(b"\n\n")

    def finish(self, response: Response) -> None:
        """The engine says the stream is complete; believe it only if it is."""
        if self._error:
            event = self._error.split(b"\n\n", 1)[0].removeprefix(b"data: ")
            raise EngineRefused(error_status(event), event)
        if self.told_error:
            raise WorkerError("the engine ended its stream with an error event")
        if self._tail != DONE:
            raise EngineGarbled(
                response.origin, response.doing, "a stream without data: [DONE]", response.received_bytes
            )
