"""One engine's response: its head, and its body handed on in the turn of the loop it arrives.

It knows nothing of sockets: the connection that carries it says what came, and is told when to pause and when to end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from baton.engine.errors import EngineError, EngineGarbled
from baton.engine.origin import Origin

Sink: TypeAlias = Callable[[bytes], bool]
"""Takes body bytes as they arrive; False = full, send no more until the `drain` given beside it returns."""

_PAUSE_BYTES = 256 * 1024
"""body kept for a response that nobody reads yet, before reading pauses"""


class Carrier(Protocol):
    """The connection a response arrives on."""

    def drop(self) -> None:
        """Close now."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read on."""


class Response:
    """One response; use it in `with`, which closes the connection unless the response was complete."""

    __slots__ = (
        "_chunks", "_connection", "_error", "_max_bytes", "_paused", "_sink", "_waiter", "complete", "doing", "headers",
        "origin", "received_bytes", "status", "unheard",
    )  # fmt: skip

    def __init__(self, origin: Origin, doing: str, connection: Carrier) -> None:
        self.origin = origin
        self.doing = doing
        self.status = 0
        self.headers: dict[str, str] = {}
        self.received_bytes = 0
        self.unheard = False
        """sent on a reused connection, from which nothing has come yet: if it is lost now, the engine had closed it"""
        self.complete = False
        self._connection: Carrier | None = connection
        self._chunks: list[bytes] = []
        self._error: BaseException | None = None
        self._paused = False
        self._max_bytes = -1
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self, max_bytes: int) -> bytes:
        """The whole body; whoever is cancelled here closes the response.

        Raises   EngineGarbled over `max_bytes`; EngineDisconnected, EngineTimeout
        """
        try:
            return await self.whole(max_bytes)
        finally:
            self.close()

    async def whole(self, max_bytes: int) -> bytes:
        """The whole body, head included in the wait; cancelling the wait closes nothing, and it may be begun again.

        Raises   EngineGarbled over `max_bytes`; EngineDisconnected, EngineTimeout
        """
        self._max_bytes = max_bytes
        self._deliver()
        self._resume()
        while not self.complete or self._error is not None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def pipe(self, sink: Sink, drain: Callable[[], Awaitable[None]]) -> None:
        """Pass the body to `sink` as it arrives, everything of one read in one call, until it is complete.

        When `sink` returns False the engine's connection isn't read until `drain()` returns; `sink` may still be called
        once more before that takes effect. What `sink` raises comes out here.
        Raises   EngineDisconnected, EngineTimeout, EngineGarbled
        """
        try:
            self._sink = sink
            self._deliver()
            while True:
                if self._error is not None:
                    raise self._error
                if self._paused:
                    await drain()
                    self._resume()
                elif self.complete:
                    return
                else:
                    await self._wait()
        finally:
            self.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, in no particular cuts; for tools and tests (`pipe` is the cheap way).

        Raises   EngineDisconnected, EngineTimeout, EngineGarbled
        """
        try:
            while True:
                if self._chunks:
                    taken, self._chunks = self._chunks, []
                    self._resume()
                    for data in taken:
                        yield data
                elif self._error is not None:
                    raise self._error
                elif self.complete:
                    return
                else:
                    await self._wait()
        finally:
            self.close()

    def close(self) -> None:
        """Give up what has not arrived: an incomplete response's connection is closed, at once."""
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the connection calls ----------------------------------------------------------------------------------

    async def head(self) -> None:
        """Wait for the status and headers."""
        while not self.status and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """The head is here."""
        self.status = status
        self.headers = headers
        self._wake()

    def arrived(self, chunks: list[bytes]) -> None:
        """Body bytes of one read."""
        for data in chunks:
            self.received_bytes += len(data)
        if self._sink is not None and len(chunks) == 1 and not self._chunks and self._error is None:
            self._pass_on(chunks[0])
            return
        self._chunks += chunks
        self._deliver()

    def finish(self) -> None:
        """The whole response is here."""
        self._connection = None
        self.complete = True
        self._wake()

    def fail(self, kind: type[EngineError], why: str) -> None:
        """The exchange ended before the response did."""
        self._connection = None
        if self._error is None:
            after = f"reading the body, {self.received_bytes} bytes so far" if self.status else "awaiting the response"
            self._error = kind(self.origin, f"{after} of {self.doing}", why, self.received_bytes)
        self._wake()

    def _deliver(self) -> None:
        if self._error is not None:
            self._chunks.clear()
        elif not self._chunks:
            return
        elif self._sink is not None:
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._pass_on(data)
        elif self._max_bytes < 0:  # nobody reads yet, or `chunks` does
            if sum(map(len, self._chunks)) > _PAUSE_BYTES:
                self._pause()
            self._wake()
        elif self.received_bytes > self._max_bytes:
            why = f"a body over {self._max_bytes} bytes"
            self._error = EngineGarbled(self.origin, self.doing, why, self.received_bytes)
            self._wake()

    def _pass_on(self, data: bytes) -> None:
        assert self._sink is not None, "called with a sink only"
        try:
            full = not self._sink(data)
        except Exception as error:  # noqa: BLE001 (`pipe` raises it, in the task that gave the sink)
            self._error = error
            self._wake()
            return
        if full:
            self._pause()
            self._wake()

    def _pause(self) -> None:
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
