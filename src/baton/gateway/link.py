"""Messages between the router process and its fronts: msgpack over a Unix socket, all of one loop turn in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec

_LENGTH_BYTES = 4


class Link(asyncio.Protocol):
    """One end; messages are lists, and arrive in the order they were sent.

    received   called with each message
    closed     called once, when nothing more will come
    """

    def __init__(self, received: Callable[[Link, list[Any]], None], closed: Callable[[Link], None]) -> None:
        self._received = received
        self._closed = closed
        self._decoder = msgspec.msgpack.Decoder()
        self._encoder = msgspec.msgpack.Encoder()
        self._in = bytearray()
        self._out = bytearray()
        self._flush_at: asyncio.TimerHandle | asyncio.Handle | None = None
        self._transport: asyncio.Transport | None = None

    def send(self, message: list[Any], within_s: float = 0.0) -> None:
        """Queue a message; it leaves with whatever leaves first, at the latest in `within_s`.

        0 is the end of this turn of the loop.
        """
        raw = self._encoder.encode(message)
        self._out += len(raw).to_bytes(_LENGTH_BYTES, "big")
        self._out += raw
        loop = asyncio.get_running_loop()
        if not within_s:
            if self._flush_at is not None:
                if not isinstance(self._flush_at, asyncio.TimerHandle):
                    return
                self._flush_at.cancel()
            self._flush_at = loop.call_soon(self._flush)
        elif self._flush_at is None:
            self._flush_at = loop.call_later(within_s, self._flush)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        self._flush_at = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._out))
        self._out.clear()

    # -- the transport calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Messages may go out."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand on every message that is whole."""
        buffer = self._in
        buffer += data
        begin, end = 0, len(buffer)
        while end - begin >= _LENGTH_BYTES:
            stop = begin + _LENGTH_BYTES + int.from_bytes(buffer[begin : begin + _LENGTH_BYTES], "big")
            if stop > end:
                break
            self._received(self, self._decoder.decode(memoryview(buffer)[begin + _LENGTH_BYTES : stop].tobytes()))
            begin = stop
        del buffer[:begin]

    def connection_lost(self, _: Exception | None) -> None:
        """The other end is gone."""
        if self._flush_at is not None:
            self._flush_at.cancel()
        self._closed(self)
