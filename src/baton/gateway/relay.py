"""A decode rank's answer on its way to the client: passed on as bytes, checked for its end, never parsed per event.

A stream starts towards the client only when its first event is here and is no error, so that a failed hand-off still
becomes an HTTP error. The first event of a chat only names the role, and vLLM sends it before it knows whether the KV
could be fetched: it waits for the next one; a stream that ends without `[DONE]` is a failure, whatever its status was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

import msgspec

from baton.base.errors import WorkerError
from baton.base.reply import Reply
from baton.engine.errors import EngineGarbled
from baton.engine.response import Response
from baton.gateway.counts import ItlCounts
from baton.gateway.handoff import EngineRefused, Generation

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
MAX_ANSWER_BYTES = 256 << 20

_ERROR_EVENT = b'data: {"error"'
_ROLE_ALONE = b'"delta":{"role":"assistant","content":""}'


class StreamFailed(WorkerError):
    """A stream broke after it had started towards the client.

    at_event_boundary   whether what the client has ends with a whole event
    client_knows        whether the engine's own error event has been passed on
    """

    def __init__(self, message: str, *, at_event_boundary: bool, client_knows: bool = False) -> None:
        super().__init__(message)
        self.at_event_boundary = at_event_boundary
        self.client_knows = client_knows


async def relay(
    response: Response, reply: Reply, headers: Callable[[], Mapping[str, str]], generation: Generation, itl: ItlCounts
) -> None:
    """Pass one decode answer to the client; `headers` is asked for the reply's once its first byte is here.

    Raises   EngineRefused, EngineError before anything was sent; StreamFailed once a stream has started
    """
    if not is_stream(response):
        body = await response.read(MAX_ANSWER_BYTES)
        generation.ledger.ended = monotonic()
        generation.num_output_tokens = num_completion_tokens(body)
        content_type = response.headers.get("content-type", "application/json")
        reply.send(200, {**headers(), "content-type": content_type}, body)
        return
    stream = _Stream(reply, headers, generation, itl)
    try:
        await response.pipe(stream.feed, reply.drain)
        stream.finish(response)
    except WorkerError as error:
        if not reply.started:
            raise
        raise StreamFailed(
            str(error), at_event_boundary=stream.at_event_boundary, client_knows=stream.told_error
        ) from error
    finally:
        generation.ledger.ended = monotonic()
        generation.num_output_tokens = max(0, stream.num_events - 1)  # [DONE] is no token
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


def num_completion_tokens(body: bytes) -> int:
    """What an unstreamed answer's usage says; 0 where it says nothing."""
    try:
        usage = _WITH_USAGE.decode(body).usage
    except (msgspec.DecodeError, RecursionError):
        return 0
    return usage.completion_tokens if usage else 0


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _WithUsage(msgspec.Struct):
    usage: _Usage | None = None


_WITH_USAGE = msgspec.json.Decoder(_WithUsage)


class _Stream:
    """Sink of one decode stream."""

    __slots__ = (
        "_error", "_generation", "_headers", "_held", "_itl", "_last_s", "_reply", "_tail", "num_events", "told_error",
    )  # fmt: skip

    def __init__(
        self, reply: Reply, headers: Callable[[], Mapping[str, str]], generation: Generation, itl: ItlCounts
    ) -> None:
        self._reply = reply
        self._headers = headers
        self._generation = generation
        self._itl = itl
        self._tail = b""
        self._error = self._held = b""
        self._last_s = 0.0
        self.num_events = 0
        self.told_error = False

    def feed(self, data: bytes) -> bool:
        """Take body bytes; the first decide whether there is a stream at all."""
        now_s, num_events = monotonic(), data.count(b"\n\n")
        self.num_events += num_events
        if self._last_s:
            if num_events:
                self._itl.add(now_s - self._last_s, num_events)
                self._last_s = now_s
        elif not self._start(data, now_s):
            return True
        elif self._held:
            data, self._held = self._held + data, b""
        if _ERROR_EVENT in data or (not self.at_event_boundary and _ERROR_EVENT in self._tail + data[: len(DONE)]):
            self.told_error = True
        if self.told_error:
            data = data.removesuffix(DONE)
        self._tail = data[-len(DONE) :] if len(data) >= len(DONE) else (self._tail + data)[-len(DONE) :]
        return self._reply.write(data)

    def _start(self, data: bytes, now_s: float) -> bool:
        """Begin the reply, unless the stream begins with an error, or does not say yet whether it does."""
        said = data if self._error or self._held else _after_role(data)
        if self._error or said.startswith(_ERROR_EVENT):
            self._error += said
            return False
        if data and not said:
            self._held = data
            return False
        self._last_s = self._generation.ledger.first_byte = now_s
        if self.num_events > 1:
            self._itl.add(0.0, self.num_events - 1)
        self._reply.start(200, {**self._headers(), **EVENT_STREAM})
        return True

    @property
    def at_event_boundary(self) -> bool:
        """Whether what was passed on ends with a whole event."""
        return self._tail.endswith(b"\n\n")

    def finish(self, response: Response) -> None:
        """The engine says the stream is complete; believe it only if it is."""
        if self._held and not self._error:  # a stream of nothing but its role
            self._start(b"", monotonic())
            self._tail = self._held[-len(DONE) :]
            self._reply.write(self._held)
        if self._error:
            event = self._error.split(b"\n\n", 1)[0].removeprefix(b"data: ")
            raise EngineRefused(error_status(event), event)
        if self.told_error:
            raise WorkerError("the engine ended its stream with an error event")
        if self._tail != DONE:
            raise EngineGarbled(
                response.origin, response.doing, "a stream without data: [DONE]", response.received_bytes
            )


def _after_role(data: bytes) -> bytes:
    """What a stream begins with, but for a whole first event in which nothing is said but who speaks."""
    first, end, rest = data.partition(b"\n\n")
    return rest if end and _ROLE_ALONE in first else data
